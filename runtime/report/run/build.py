"""A recording as the document of its page, and the pixels that go with it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.runtime.recording.messages import FRAMES
from memrt.runtime.recording.reader import Recording
from memrt.runtime.report.run.clip import Pictures, read_pictures
from memrt.runtime.report.run.document import About, Latency, RunReport
from memrt.runtime.report.run.keyframes import KeyframeHistory
from memrt.runtime.report.run.memories import memories
from memrt.runtime.report.run.timeline import calls, chunks, events, holds, subgoals
from memrt.runtime.report.run.told import Told, read

_FIGURES = ("counts", "amounts", "robot_values")  # of the run's own report


def find_recording(run: Path) -> Path:
    """`run` itself, or the only recording in the folder `run`. Raises MemrtError when there is none, or more."""
    if not run.is_dir():
        return run
    found = sorted(run.glob("*.mcap"))
    if len(found) != 1:
        raise MemrtError(
            f"run {run}",
            expected="a folder with one recording (.mcap)",
            found=", ".join(path.name for path in found) or "none",
            fix="name the file",
        )
    return found[0]


def build(path: Path, *, video: bool = True) -> tuple[RunReport, Pictures]:
    """Read the recording at `path`. Raises MemrtError for what is none, and for one of another version."""
    recording = Recording(path)
    told = read(recording)
    duration_s = told.seconds(told.last_ns)
    memory: Mapping[str, Any] = told.about("memory") or {}
    history = KeyframeHistory(told)
    keyframes = history.read()
    cameras = _cameras(told)
    pictures = read_pictures(recording, history.pictures, cameras, told.first_ns, duration_s, video=video)
    call_list = calls(told)  # before the remarks: it may run out of room for texts
    report: Mapping[str, Any] = told.end.get("report") or {}
    document = RunReport(
        about=_about(told),
        duration_s=duration_s,
        remarks=[*_remarks(told), *pictures.remarks],
        subgoals=subgoals(told, duration_s, memory.get("coordinate_order", "row_column")),
        calls=call_list,
        memories=memories(told, duration_s),
        chunks=chunks(told),
        seam_unit=told.seams.unit,
        events=events(told),
        holds=holds(told, duration_s),
        keyframes=keyframes,
        video=pictures.video,
        latencies=[Latency(stage=stage, **row) for stage, row in report.get("latency_ms", {}).items()],
        figures={name: report[name] for name in _FIGURES if report.get(name)},
    )
    return document, pictures


def _about(told: Told) -> About:
    run, end = told.run, told.end
    clock = told.about("clock")
    began_s = (clock["unix_ns"] if clock else 0) / NS_PER_S
    return About(
        goal=run.get("goal", ""),
        outcome=str(end.get("outcome") or "broken off"),
        outcome_by=str(end.get("outcome_by", "")),
        reason=str(end.get("reason", "")),
        setting=_setting(run),
        mode={"lockstep": "lock-step", "realtime": "real time"}.get(run.get("mode", ""), ""),
        robot=run.get("robot", ""),
        task=run.get("task", ""),
        policy=run.get("policy", ""),
        precision=run.get("precision", ""),
        bundle=Path(run.get("bundle", "")).name,  # the folder that it lies in tells about the computer, not the run
        bundle_sha256=run.get("bundle_sha256", ""),
        device=run.get("device", ""),
        recorded=f"{datetime.fromtimestamp(began_s, timezone.utc):%Y-%m-%d %H:%M} UTC" if clock else "",
        versions=told.about("versions"),
        seed=run.get("seed", ""),
    )


def _setting(run: Mapping[str, str]) -> Literal["simulated", "real", "not recorded"]:
    """Recordings that do not say so are known to be simulated where time waited for the policy."""
    known: dict[str, Literal["simulated", "real"]] = {"true": "simulated", "false": "real"}
    if run.get("mode") == "lockstep":
        return "simulated"
    return known.get(run.get("simulated", ""), "not recorded")


def _cameras(told: Told) -> list[str]:
    """Those with frames, in the order in which the policy names them."""
    recorded = [topic.removeprefix(FRAMES) for topic in sorted(told.summary.counts) if topic.startswith(FRAMES)]
    named = (told.about("settings") or {}).get("cameras", [])
    return [camera for camera in named if camera in recorded] or recorded


def _remarks(told: Told) -> list[str]:
    found = []
    if told.summary.cut_off:
        found.append(f"The recording ends early: {told.summary.cut_off}.")
    if told.summary.end and (dropped := told.summary.dropped):
        lost = ", ".join(f"{count} {kind}" for kind, count in sorted(dropped.items()))
        found.append(f"The recorder had to leave out {lost}: the computer was too slow.")
    if told.left_out:
        lost = ", ".join(f"{count} {kind}" for kind, count in sorted(told.left_out.items()))
        found.append(f"The run is longer than a page: its last {lost} are not shown.")
    if told.texts_left_out:
        found.append("The prompts and replies of the last calls are left out: all together take too much room.")
    return found
