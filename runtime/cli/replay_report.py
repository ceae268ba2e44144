"""What `memrt replay` prints: a verdict on the decisions, or what a recording holds; or one JSON object."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from memrt.runtime.bundle import Bundle
from memrt.runtime.clock import NS_PER_S
from memrt.runtime.device_engines import this_device
from memrt.runtime.recording.reader import Recording, Summary
from memrt.runtime.recording.replay import Difference, Verdict

_SHOWN = 400  # characters of a value that differs


def report_verdict(recording: Recording, bundle: Bundle, verdict: Verdict, as_json: bool) -> None:
    """Print what was computed again, and the first difference."""
    run, device = recording.run, this_device(bundle).describe()
    same_bundle = bundle.sha256 == run["bundle_sha256"]
    if as_json:
        values = {
            "recording": str(recording.path),
            "mode": run["mode"],
            "bundle": str(bundle.path),
            "recorded_bundle": same_bundle,
            "device": device,
            "recorded_on": run["device"],
            "cut_off": verdict.cut_off,
            "equal": verdict.equal,
            "stages": {stage: {**asdict(counts), "equal": counts.equal} for stage, counts in verdict.stages.items()},
            "taken_over": verdict.taken_over,
            "largest_action_difference": verdict.largest_action_difference,
            "first_difference": asdict(verdict.first) if verdict.first else None,
        }
        print(json.dumps(values, allow_nan=False))
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not same_bundle:
        console.print(f"another bundle than the recorded one: {bundle.path} instead of {run['bundle']}", style="yellow")
    if device != run["device"]:
        console.print(f"another computer: {device} instead of {run['device']}; last bits may differ", style="yellow")
    if verdict.cut_off:
        console.print(verdict.cut_off, style="yellow")
    table = _table("decisions", "computed again", "equal", "different", "not computed")
    for stage, counts in verdict.stages.items():
        skipped = ", ".join(f"{count} ({reason})" for reason, count in counts.skipped.items())
        table.add_row(stage, str(counts.rerun), str(counts.equal), str(counts.different), skipped or "none")
    console.print(table)
    if verdict.taken_over:
        console.print(f"{verdict.taken_over} of the high level's answers were the remote VLM's, and taken over")
    if verdict.first is None:
        console.print("every decision that was computed again is equal, bit for bit", style="green")
    else:
        _print_difference(console, verdict.first)
        console.print(f"largest difference of an action: {verdict.largest_action_difference:.3g}")


def report_info(summary: Summary, path: Path, as_json: bool) -> None:
    """Print what a recording holds."""
    run, end = summary.run, summary.end or {}
    duration_s, size = summary.duration_ns / NS_PER_S, path.stat().st_size
    if as_json:
        values = {
            "recording": str(path),
            "bytes": size,
            "duration_s": duration_s,
            "complete": summary.end is not None,
            "cut_off": summary.cut_off,
            "outcome": end.get("outcome"),
            "outcome_by": end.get("outcome_by"),
            "reason": end.get("reason"),
            "dropped": summary.dropped,
            "messages": dict(sorted(summary.counts.items())),
            "run": {key: _parsed(value) for key, value in run.items()},
        }
        print(json.dumps(values, allow_nan=False))
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    lost = ", ".join(f"{count} {kind}" for kind, count in sorted(summary.dropped.items()))
    ended = f"{end.get('outcome', 'broken off')} {end.get('reason', '')}".rstrip()
    for name, value in (
        ("goal", run.get("goal")),
        ("run", f"{run.get('mode')}, {duration_s:.1f} s, {size / 1e6:.1f} MB"),
        ("bundle", f"{run.get('bundle')} ({run.get('policy')}, {run.get('precision')})"),
        ("recorded on", run.get("device")),
        ("ended", ended if end else summary.cut_off or "without a last word"),
        ("dropped", lost or "nothing"),
    ):
        console.print(f"{name:>12}  {value}")
    table = _table("channel", "messages", "per s")
    for topic, count in sorted(summary.counts.items()):
        table.add_row(topic, str(count), f"{count / duration_s:.1f}" if duration_s else "")
    console.print(table)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _print_difference(console: Console, first: Difference) -> None:
    where = f"{first.stage} call {first.call} at {first.t_ns / NS_PER_S:.3f} s, {first.field}"
    console.print(f"first difference: {where}", style="red")
    console.print(f"  recorded  {_short(first.recorded)}")
    console.print(f"  found     {_short(first.found)}")


def _parsed(value: str) -> Any:
    """Metadata are strings; what was not one was written as JSON."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
