"use strict";
// The data of this page, and the timeline drawn from it. Text is only ever set as text: nothing of a run becomes HTML.

const run = JSON.parse(document.getElementById("run").textContent);
const pictures = JSON.parse(document.getElementById("pictures").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const duration = Math.max(run.duration_s, 0.001);
const percent = (seconds) => `${(100 * Math.min(Math.max(seconds / duration, 0), 1)).toFixed(4)}%`;
const figure = (value, digits = 3) => Number(value.toPrecision(digits)).toString();
const words = (name) => name.replaceAll("_", " ");

function add(parent, tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  Object.assign(node, properties);
  node.append(...children);
  parent?.append(node);
  return node;
}

function draw(parent, tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent.append(node);
  return node;
}

// The last of `items` that begins at or before `time`; -1 before the first.
function indexAt(items, time, start = (item) => item.start_s) {
  let low = 0, high = items.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (start(items[middle]) <= time + 1e-6) low = middle + 1; else high = middle;
  }
  return low - 1;
}

// ---- The timeline: one lane for each kind of thing, time from left to right.
const lanes = byId("lanes");

function lane(name, note = "", legend = []) {
  const box = add(null, "div", { className: "lane" }), line = add(box, "p");
  add(line, "span", { className: "name", textContent: name });
  add(line, "span", { textContent: note });
  for (const part of legend) add(add(line, "span"), "span", { className: `key back${shade(part)}` }).after(part);
  lanes.insertBefore(box, byId("cursor"));
  return add(box, "div", { className: `track ${name.replaceAll(" ", "-")}` });
}

function shade(part) {
  return { vision: 0, prefill: 1, prefix: 1, decode: 2, step: 2, other: 4 }[part] ?? 3;
}

function block(track, start, end, className, text = "") {
  const node = add(track, "div", { className, title: text });
  node.style.left = percent(start);
  node.style.width = percent(end - start);
  return node;
}

// Blocks side by side, and over each run of blocks with the same key one label.
function blocks(track, items, key, text, tone = (item) => key(item) % 5) {
  for (const item of items) block(track, item.start_s, item.end_s, `segment tone${tone(item)}`, text(item));
  for (let first = 0, next; first < items.length; first = next) {
    next = first + 1;
    while (next < items.length && key(items[next]) === key(items[first])) next += 1;
    block(track, items[first].start_s, items[next - 1].end_s, "label").textContent = text(items[first]);
  }
}

// Bars of what calls took: the wider and higher the longer, their stages one above the other. Of other figures: as high.
function bars(name, items, value, parts, unit) {
  if (!items.some((item) => value(item) !== null)) return;
  const sorted = items.map(value).filter((each) => each !== null).sort((a, b) => a - b);
  const most = sorted[sorted.length - 1], median = sorted[sorted.length >> 1];
  const legend = [...new Set(items.flatMap((item) => (value(item) === null ? [] : parts(item).map(([part]) => part))))];
  const track = lane(name, `median ${figure(median)} ${unit}, max ${figure(most)} ${unit}`, legend.length > 1 ? legend : []);
  const svg = draw(track, "svg", { viewBox: `0 0 ${duration} 1`, preserveAspectRatio: "none", class: "bars" });
  const paths = {};
  for (const item of items) {
    let top = 1;
    const width = unit === "ms" ? Math.max(item.duration_ms / 1000, duration / 900) : duration / 300;
    for (const [part, amount] of value(item) === null ? [] : parts(item)) {
      const high = most > 0 ? amount / most : 0;
      top -= high;
      paths[part] = `${paths[part] ?? ""}M${item.start_s} ${top.toFixed(4)}h${width.toFixed(4)}v${high.toFixed(4)}h${-width.toFixed(4)}z`;
    }
  }
  for (const [part, d] of Object.entries(paths)) draw(svg, "path", { d, class: `fill${shade(part)}` });
}

// A call's stages, and what lies between them.
function stages(call) {
  const known = Object.entries(call.stages_ms), sum = known.reduce((total, [, ms]) => total + ms, 0);
  return [...known, ["other", Math.max(0, call.duration_ms - sum)]];
}

const dots = [];

function timeline() {
  byId("video").tabIndex = -1;
  if (run.subgoals.length) blocks(lane("subgoal", `${run.subgoals.length} given`), run.subgoals, (item) => item.group, (item) => item.text);
  const parts = [...new Set(run.memories.flatMap((memory) => Object.keys(memory.parts)))];
  for (const part of parts) {
    let version = -1, before = null;
    const items = run.memories.map((memory) => {
      const text = (memory.parts[part] ?? []).filter(([what]) => what !== "-").map(([, each]) => each).join("");
      if (text !== before) version += 1;
      before = text;
      return { ...memory, text, version };
    });
    blocks(lane(`${words(part)} memory`, `${version} changes`), items, (item) => item.version, (item) => item.text, (item) => 4 * (item.version % 2));
  }
  if (run.keyframes) {
    const track = lane("keyframes", "● shown to the VLM, ○ kept in reserve, × dropped");
    for (const frame of run.keyframes.frames) dots.push(block(track, frame.t_s, frame.t_s, "dot", `frame of ${frame.t_s.toFixed(2)} s`));
  }
  bars("high level", run.calls, (call) => call.duration_ms, stages, "ms");
  bars("low level", run.chunks, (chunk) => chunk.duration_ms, stages, "ms");
  bars("seam", run.chunks, (chunk) => chunk.seam, (chunk) => [["seam", chunk.seam]], run.seam_unit);
  const track = lane("events", `${run.events.filter((event) => event.level !== "info").length} warnings, ${run.holds.length} holds`);
  for (const [from, to] of run.holds) block(track, from, to, "hold", `held from ${from.toFixed(1)} s to ${to.toFixed(1)} s`);
  for (const event of run.events) block(track, event.t_s, event.t_s, `event ${event.level}`, `${event.t_s.toFixed(2)} s: ${event.name} ${event.text}`);
  const axis = lane("", "");
  axis.parentNode.className = "axis";
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800].find((each) => duration / each <= 12) ?? 3600;
  for (let index = 0; index * step <= duration; index += 1) block(axis, index * step, index * step, "tick").textContent = `${figure(index * step)} s`;
}
