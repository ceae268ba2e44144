"""What `memrt run` prints at the end: the outcome and a latency table, or one JSON object; or a dry run's plan."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.text import Text

from memrt.runtime.bundle import Bundle
from memrt.runtime.cli.run_recording import recording_line
from memrt.runtime.device_engines import this_device
from memrt.runtime.live_status import answers_text, latency_table
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.chunking import feasible
from memrt.runtime.readiness import Readiness

_STYLES = {"success": "bold green", "failure": "bold red", "fault": "bold red", "held": "bold yellow"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a dry run found out."""

    bundle: Bundle
    settings: LoopSettings
    goal: str
    first_subgoal: str
    robot: str
    timed: RunRecord
    robot_values: Mapping[str, Any]
    readiness: Readiness

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        settings = self.settings
        low = self.timed.latencies["low level"].summary()
        latency_ms = low.p50_ms if low else 0.0
        delay = -(-int(latency_ms * 1e6) // settings.paced_dt_ns)
        return {
            "dry_run": True,
            **about_run(self.bundle, self.robot, self.readiness),
            "goal": self.goal,
            "first_subgoal": self.first_subgoal,
            "cameras": list(settings.cameras),
            "control_hz": 1e9 / settings.dt_ns,
            "speed": settings.speed,
            "horizon": settings.horizon,
            "execute": settings.execute,
            "high_level_period_s": settings.every_steps * settings.paced_dt_ns / 1e9,
            "delay_steps": delay,
            "feasible": feasible(delay, settings.execute, settings.horizon),
            "latency_ms": self.timed.to_dict()["latency_ms"],
            "robot_values": dict(self.robot_values),
        }


def report_plan(plan: Plan, as_json: bool) -> None:
    """Print a dry run's findings."""
    values = plan.to_dict()
    if as_json:
        print(json.dumps(values, allow_nan=False))
        return
    console = Console()
    for name in ("policy", "precision", "robot", "goal", "first_subgoal", "cameras", "control_hz", "speed"):
        shown = ", ".join(values[name]) if isinstance(values[name], list) else values[name]
        console.print(f"{name.replace('_', ' '):>14}  {shown}", markup=False, highlight=False)
    rates = f"{values['execute']} of {values['horizon']} actions executed, {values['delay_steps']} late on arrival"
    verdict = "chunks can follow each other without a gap" if values["feasible"] else "TOO SLOW: the arm will pause"
    console.print(f"{'chunks':>14}  {rates}: {verdict}", markup=False, highlight=False)
    console.print(latency_table(plan.timed))
    console.print(_readiness_line(values), highlight=False, markup=False)
    console.print("Everything is ready; nothing has moved.")


def report_run(
    record: RunRecord,
    bundle: Bundle,
    robot: str,
    task: str,
    readiness: Readiness,
    recording: Mapping[str, Any] | None = None,
    *,
    as_json: bool,
) -> None:
    """Print how a run ended; `recording` is what the recorder says of itself."""
    about = about_run(bundle, robot, readiness)
    if as_json:
        recorded = {} if recording is None else {"recording": dict(recording)}
        print(json.dumps({**about, "task": task, **record.to_dict(), **recorded}, allow_nan=False))
        return
    console = Console()
    line = Text(record.status.replace("_", " "), style=_STYLES.get(record.status, "bold"))
    line.append(f"  {record.reason}" if record.reason else "", style="not bold")
    line.append(f"  ({record.duration_ns / 1e9:.1f} s, {record.counts['chunks']} chunks)", style="dim not bold")
    console.print(line)
    console.print(latency_table(record))
    if record.answers:
        console.print(f"high level answered {answers_text(record)}", highlight=False, markup=False)
    if record.mode == "realtime":
        console.print(_control_line(record), highlight=False, markup=False)
    console.print(_readiness_line(about), highlight=False, markup=False)
    if recording is not None:
        console.print(recording_line(recording), highlight=False, markup=False)


def _remote(bundle: Bundle) -> dict[str, Any]:
    remote = bundle.policy.high_level.remote
    if remote is None:
        return {}
    names = ("endpoint", "model", "on_board", "deadline_s")
    return {"remote": {name: getattr(remote, name) for name in names}}


def _readiness_line(about: Mapping[str, Any]) -> str:
    """When the engines were ready, and the memory of this process; a simulator in lock-step lives in it too."""
    process, memory = about["process_ready_s"], about["memory"]
    since_start = "" if process is None else f" ({process:.2f} s after the process began)"
    resident, peak = (f"{memory[name] / 1e6:.0f} MB" for name in ("resident_bytes", "peak_bytes"))
    libraries = ", ".join(about["training_libraries"])
    loaded = f"{libraries} imported" if libraries else "no torch"
    return f"engines ready in {about['engines_ready_s']:.2f} s{since_start}; memory {resident}, peak {peak}; {loaded}"


def _control_line(record: RunRecord) -> str:
    """Two views of starvation: gaps between the chunks sent, and ticks for which the robot's node had no action."""
    robot = record.robot
    parts = [f"chunk starvation: {record.starved_ns / 1e6:.0f} ms" if record.starved_ns else "chunk starvation: none"]
    if "control ticks starved" in robot:
        parts.append(f"control ticks without an action: {robot['control ticks starved']:.0f}")
    if "control lateness p99 [ms]" in robot:
        parts.append(f"control lateness p99: {robot['control lateness p99 [ms]']:.2f} ms")
    return ", ".join(parts)


def about_run(bundle: Bundle, robot: str, readiness: Readiness) -> dict[str, Any]:
    """What ran where, as plain JSON values."""
    device = this_device(bundle)
    return {
        "robot": robot,
        "policy": bundle.policy.name,
        "precision": bundle.manifest.precision,
        "bundle": str(bundle.path),
        **_remote(bundle),
        "versions": {**{name: version(name) for name in ("memrt", "numpy")}, device.backend: device.version},
        "hardware": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "device": "cpu" if device.sm is None else device.name,
        },
        **readiness.to_dict(),
    }
