// What the page says above, at one moment, and below; the video, the cursor and the keys. Follows timeline.js.

// ---- What stands above everything.
function head() {
  const { about } = run, header = byId("head");
  const tone = { success: "good", failure: "bad", fault: "bad" }[about.outcome] ?? "open";
  const setting = { simulated: "simulated robot", real: "real robot" }[about.setting] ?? "robot: real or simulated not recorded";
  const chips = add(header, "p", { className: "chips" });
  add(chips, "span", { className: `chip ${tone}`, id: "outcome", textContent: words(about.outcome) });
  add(chips, "span", { className: "chip", id: "setting", textContent: setting });
  for (const text of [about.mode, about.task, about.policy && `policy ${about.policy}`, about.precision])
    if (text) add(chips, "span", { className: "chip", textContent: text });
  add(header, "h1", { textContent: about.goal || "a run without a goal" });
  const judge = about.outcome_by && about.outcome_by !== "run" ? `, judged by the ${about.outcome_by}` : "";
  add(header, "p", { textContent: `${words(about.outcome)} after ${run.duration_s.toFixed(1)} s${judge}${about.reason ? `: ${about.reason}` : ""}` });
  const facts = [
    about.bundle && `bundle ${about.bundle}`, about.bundle_sha256 && `sha256 ${about.bundle_sha256}`, about.robot && `robot ${about.robot}`,
    about.seed && `seed ${about.seed}`, about.recorded, about.device,
    Object.entries(about.versions).map(([name, version]) => `${name} ${version}`).join(", "),
  ];
  add(header, "p", { className: "facts", textContent: facts.filter(Boolean).join(" · ") });
  for (const remark of run.remarks) add(header, "p", { className: "banner", textContent: remark });
}

// ---- What was known and remembered at one moment.
function changed(parent, parts) {
  for (const [what, text] of parts) add(parent, { "=": "span", "+": "ins", "-": "del" }[what], { textContent: text });
  return parent;
}

const shown = { memory: null, subgoal: null, call: null, state: null };
const SAME_S = 0.02; // in real time a subgoal is followed a moment after its answer
const callTimes = run.calls.filter((call) => call.answer_s !== null);

function now(time) {
  const memory = indexAt(run.memories, time), subgoal = indexAt(run.subgoals, time + SAME_S), call = indexAt(callTimes, time, (item) => item.answer_s);
  if (shown.memory === memory && shown.subgoal === subgoal && shown.call === call) return;
  Object.assign(shown, { memory, subgoal, call });
  const box = byId("now"), opened = box.querySelector("details")?.open ?? false;
  box.replaceChildren();
  add(box, "h3", { textContent: "Subgoal" });
  add(box, "p", { id: "subgoal", textContent: run.subgoals[subgoal]?.text ?? "none yet" });
  for (const [part, text] of Object.entries(run.memories[memory]?.parts ?? {})) {
    add(box, "h3", { textContent: `${words(part)} memory` });
    changed(add(box, "p", { className: "memory", id: `memory-${part}` }), text);
  }
  const made = callTimes[call];
  if (made) {
    const took = Object.entries(made.stages_ms).map(([name, ms]) => `${name} ${figure(ms)}`).join(", ");
    const tokens = Object.entries(made.tokens).map(([name, count]) => `${count} ${words(name)}`).join(", ");
    const details = add(box, "details", { open: opened }, add(null, "summary", { textContent: `call answered ${made.answered_by ? `${made.answered_by === "remote" ? "by the remote VLM" : made.answered_by} ` : ""}in ${figure(made.duration_ms)} ms${made.held ? ", reply unusable: the last subgoal is held" : ""}` }));
    add(details, "p", { className: "soft", textContent: [took && `${took} ms`, tokens, made.missed && `not the remote VLM: ${made.missed}`].filter(Boolean).join("; ") });
    for (const [name, text] of [["asked", made.prompt], ["answered", made.reply]])
      if (text) details.append(add(null, "h3", { textContent: name }), add(null, "pre", { textContent: text }));
  }
  marks(run.subgoals[subgoal]?.marks ?? []);
  byId("trace").querySelectorAll("tr[aria-current]").forEach((row) => row.removeAttribute("aria-current"));
  rows[indexAt(rows, time, (row) => row.start_s)]?.row.setAttribute("aria-current", "true");
}

function marks(points) {
  const svg = byId("marks"), view = run.video?.views[0];
  svg.replaceChildren();
  if (!view || view.width !== view.height) return; // coordinates are of a square picture
  for (const [x, y] of points) {
    const [cx, cy, arm] = [view.left + x * view.width, y * view.height, view.height / 22];
    for (const className of ["under", "over"]) draw(svg, "path", { class: className, d: `M${cx - arm} ${cy}h${2 * arm}M${cx} ${cy - arm}v${2 * arm}` });
  }
}

// ---- Keyframes: kept, recent, dropped.
function thumbnail(parent, image, time, note, className = "") {
  const button = add(parent, "button", { type: "button", className: `thumb ${className}`, title: `go to ${time.toFixed(2)} s` });
  const source = image === null ? null : pictures[image];
  if (source) add(button, "img", { src: `data:image/jpeg;base64,${source}`, alt: `frame of ${time.toFixed(2)} s` });
  else add(button, "span", { className: "gone", textContent: "no picture" });
  add(button, "span", { textContent: `${time.toFixed(1)} s${note}` });
  button.addEventListener("click", () => seek(time));
}

function keyframes(time) {
  if (!run.keyframes) return;
  const { frames, states } = run.keyframes, index = indexAt(states, time);
  if (shown.state === index) return;
  shown.state = index;
  const state = states[index] ?? { events: [], reserve: [], voted: [], recent: [] }, box = byId("frames");
  const votes = (count) => ` · ${count} ${count === 1 ? "vote" : "votes"}`;
  const kept = new Map(state.events), reserve = new Map(state.reserve);
  const dropped = frames.flatMap((frame, number) => (frame.dropped_s !== null && frame.dropped_s <= time + 1e-6 ? [[number, frame]] : []));
  const voted = new Set(state.voted.map((number) => frames[number].t_s));
  box.replaceChildren();
  const row = (name, id) => { add(box, "h3", { textContent: name }); return add(box, "div", { className: "strip", id }); };
  const first = row(`kept and shown to the VLM (${kept.size})`, "kept");
  for (const [number, count] of kept) thumbnail(first, frames[number].image, frames[number].t_s, votes(count));
  const second = row("recent frames of the last question; marked: voted for by its answer", "recent");
  for (const [at, image] of state.recent) thumbnail(second, image, at, "", voted.has(at) ? "voted" : "");
  if (reserve.size) { const third = row(`kept in reserve (${reserve.size})`, "reserve"); for (const [number, count] of reserve) thumbnail(third, frames[number].image, frames[number].t_s, votes(count)); }
  if (dropped.length) { const last = row(`dropped (${dropped.length})`, "dropped"); for (const [, frame] of dropped.slice(-24)) thumbnail(last, frame.image, frame.t_s, ` · at ${frame.dropped_s.toFixed(1)} s`, "lost"); }
  dots.forEach((dot, number) => { dot.className = `dot ${kept.has(number) ? "kept" : frames[number].dropped_s !== null && frames[number].dropped_s <= time ? "lost" : frames[number].voted_s <= time ? "reserve" : "later"}`; });
}

// ---- The tables below.
const rows = [];

function table(parent, heads, lines) {
  const wide = add(parent, "div", { className: "card" }), body = add(wide, "table");
  const top = add(add(body, "thead"), "tr");
  for (const head of heads) add(top, "th", { textContent: head.replace("#", ""), className: head.startsWith("#") ? "number" : "" });
  const rest = add(body, "tbody");
  for (const cells of lines) {
    const row = add(rest, "tr");
    cells.forEach((cell, index) => row.append(add(null, "td", { className: heads[index].startsWith("#") ? "number" : "" }, cell)));
  }
  return rest;
}

function moment(time) {
  const button = add(null, "button", { type: "button", className: "moment", textContent: `${time.toFixed(1)} s` });
  button.addEventListener("click", () => seek(time));
  return button;
}

function trace() {
  const kept = run.memories.filter((memory) => memory.boundary), box = byId("trace");
  if (!kept.length) return;
  const parts = [...new Set(kept.flatMap((memory) => Object.keys(memory.parts)))];
  add(box, "h2", { textContent: parts.length ? "How the memory changed" : "Subgoals" });
  add(box, "p", { className: "soft" }, "A row wherever the subgoal or the memory changed in more than coordinates; ",
    add(null, "ins", { textContent: "new words" }), " and ", add(null, "del", { textContent: "words that are gone" }), " against the version before.");
  const body = table(box, ["time", "subgoal", ...parts.map((part) => `${words(part)} memory`)], kept.map((memory) =>
    [moment(memory.start_s), memory.subgoal, ...parts.map((part) => changed(add(null, "span", { className: "memory" }), memory.parts[part] ?? []))]));
  kept.forEach((memory, index) => rows.push({ start_s: memory.start_s, row: body.rows[index] }));
}

function tables() {
  const box = byId("figures");
  const told = run.events.filter((event) => event.name !== "end");
  if (told.length) {
    add(box, "h2", { textContent: "Events" });
    table(box, ["time", "", "event", ""], told.slice(0, 500).map((event) => [moment(event.t_s), event.level, event.name, event.text]));
  }
  if (run.latencies.length) {
    add(box, "h2", { textContent: "Latency" });
    add(box, "p", { className: "soft", textContent: "Milliseconds, measured on the computer named above." });
    table(box, ["stage", "#calls", "#p50", "#p90", "#p99", "#max"], run.latencies.map((each) =>
      [each.stage, String(each.count), ...[each.p50, each.p90, each.p99, each.max].map((value) => figure(value))]));
  }
  const lines = Object.entries(run.figures).flatMap(([kind, values]) => Object.entries(values).map(([name, value]) =>
    [words(kind), name, typeof value === "object" ? Object.entries(value).map(([key, each]) => `${key} ${figure(Number(each))}`).join(", ") : typeof value === "number" ? figure(value, 6) : String(value)]));
  if (lines.length) {
    add(box, "h2", { textContent: "Counted and measured" });
    table(box, ["", "", ""], lines);
  }
}

// ---- One time for everything: the video, the cursor, the panels.
const video = byId("video");
let time = 0, playing = false, lastFrame = 0, zoom = 1;

function show() {
  byId("cursor").style.left = percent(time);
  byId("clock").textContent = `${time.toFixed(2)} of ${run.duration_s.toFixed(1)} s`;
  lanes.setAttribute("aria-valuenow", time.toFixed(2));
  now(time);
  keyframes(time);
  lanes.setAttribute("aria-valuetext", `${time.toFixed(1)} seconds: ${run.subgoals[shown.subgoal]?.text ?? "no subgoal yet"}`);
}

function seek(to) {
  time = Math.min(Math.max(to, 0), run.duration_s);
  if (run.video) video.currentTime = time;
  show();
}

function play(on) {
  if (on && time >= run.duration_s - 0.05) seek(0);
  playing = on;
  byId("play").textContent = on ? "❚❚" : "▶";
  byId("play").setAttribute("aria-label", on ? "Pause" : "Play");
  if (run.video) { if (on) video.play().catch(() => play(false)); else video.pause(); }
  lastFrame = performance.now();
  if (on) requestAnimationFrame(follow);
}

function follow(at) {
  if (!playing) return;
  time = run.video ? Math.max(time, video.currentTime) : time + (at - lastFrame) / 1000;
  time = Math.min(time, run.duration_s);
  lastFrame = at;
  show();
  if (time >= run.duration_s || (run.video && video.ended)) play(false);
  else requestAnimationFrame(follow);
}

function step(direction, times) {
  const next = direction > 0 ? times.find((each) => each > time + 1e-3) : times.findLast((each) => each < time - 1e-3);
  seek(next ?? (direction > 0 ? run.duration_s : 0));
}

function keys(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const calls = callTimes.map((call) => call.answer_s), changes = run.memories.filter((memory) => memory.boundary).map((memory) => memory.start_s);
  const seconds = Array.from({ length: Math.ceil(run.duration_s) }, (_, index) => index);
  const stops = event.shiftKey && changes.length ? changes : calls.length ? calls : seconds;
  if (event.key === "ArrowRight" || event.key === "ArrowLeft") step(event.key === "ArrowRight" ? 1 : -1, stops);
  else if (event.key === "Home" || event.key === "End") seek(event.key === "Home" ? 0 : run.duration_s);
  else if (event.key === " " && !event.target.closest("button, summary")) play(!playing);
  else return;
  event.preventDefault();
}

function widen(factor) {
  zoom = Math.min(Math.max(zoom * factor, 1), 64);
  lanes.style.width = `${zoom * 100}%`;
  byId("scroll").scrollLeft = (time / duration) * lanes.clientWidth - byId("scroll").clientWidth / 2;
}

function film() {
  if (!run.video) return;
  byId("screen").hidden = false;
  const bytes = Uint8Array.from(atob(byId("film-data").textContent), (character) => character.charCodeAt(0));
  video.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
  video.addEventListener("error", () => { byId("cameras").textContent = "This browser cannot play the video (H.264)."; });
  byId("marks").setAttribute("viewBox", `0 0 ${run.video.width} ${run.video.height}`);
  const ratio = run.video.width / run.video.height;
  Object.assign(byId("film").style, { aspectRatio: `${ratio}`, maxWidth: `${26 * ratio}rem` });
  byId("cameras").textContent = `${run.video.views.map((view) => view.camera).join(" · ")}; the cross is where the subgoal points`;
}

function pointer(event) {
  if (event.button !== 0 || (event.type === "pointermove" && (!(event.buttons & 1) || event.pointerType === "touch"))) return;
  const box = lanes.getBoundingClientRect();
  seek(((event.clientX - box.left) / box.width) * duration);
}

head();
film();
timeline();
trace();
tables();
byId("keyframes").hidden = !run.keyframes;
lanes.setAttribute("aria-valuemax", run.duration_s.toFixed(2));
lanes.addEventListener("click", pointer);
lanes.addEventListener("pointermove", pointer);
byId("play").addEventListener("click", () => play(!playing));
byId("wider").addEventListener("click", () => widen(2));
byId("narrower").addEventListener("click", () => widen(0.5));
document.addEventListener("keydown", keys);
seek(Number.parseFloat(location.hash.slice(1)) || callTimes[0]?.answer_s || 0);
