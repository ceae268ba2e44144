"""The live display of a run: what the robot is asked, what the policy remembers, how fast and late everything is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from memrt.runtime.loop.realtime import LoopStatus
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.types import RobotMode

_REMOTE = "remote: "  # begins the names of what kept a served VLM from answering
_ANSWERS = ("answered by remote", "answered on board")
STAGES_SHOWN = ("high level", "low level", "observation to chunk")
KEYS = "space stops · r resumes · h goes home · g new goal · y success · n failure · q quits"
ENTRY_KEYS = "enter takes the goal · escape keeps the old one · then r resumes"
_MODE_STYLES = {
    RobotMode.RUNNING: "bold green",
    RobotMode.STOPPED: "bold yellow",
    RobotMode.DISARMED: "yellow",
    RobotMode.FAULT: "bold red",
}


def render_status(status: LoopStatus, robot: Mapping[str, Any], keys: bool, entry: str | None = None) -> RenderableType:
    """The panel for one glance. `robot` holds the node's own figures, `keys` says whether an operator can press any.

    `entry` is a new goal being typed, None while none is.
    """
    lines = Table.grid(padding=(0, 1))
    lines.add_column(style="dim", justify="right", min_width=9)
    lines.add_column(overflow="fold")
    lines.add_row("goal", Text(status.goal))
    if entry is not None:
        lines.add_row("new goal", Text(f"{entry}▏", style="bold yellow"))
    lines.add_row("subgoal", Text(status.subgoal.text if status.subgoal else "…", style="bold cyan"))
    for name, text in memory_texts(status.memory):
        lines.add_row(name, Text(text, style="magenta"))
    mode = Text(status.mode.value, style=_MODE_STYLES[status.mode])
    if status.hold_reason:
        mode.append(f"  {status.hold_reason}", style="yellow")
    lines.add_row("robot", mode)
    if status.record.answered_by:
        lines.add_row("answered", answered_text(status.record))
    title = f"memrt · {status.elapsed_s:5.1f} s"
    parts: list[RenderableType] = [lines, _rates(status.record, robot)]
    if keys:
        parts.append(Text(KEYS if entry is None else ENTRY_KEYS, style="dim"))
    return Panel(Group(*parts), title=title, title_align="left", border_style="blue")


def memory_texts(memory: Any) -> list[tuple[str, str]]:
    """What a policy remembers, as (name, text), empty parts left out; nothing for a policy that keeps nothing."""
    texts = [("memory", getattr(memory, "action_memory", "")), ("places", getattr(memory, "spatial_memory", ""))]
    votes = getattr(memory, "votes", None)
    if votes is not None and votes.clusters:
        texts.append(("keyframes", f"{len(votes.clusters)} moments in {len(votes.held())} frames"))
    history = getattr(memory, "history", ())
    if history:
        texts.append(("history", "; ".join(history[-3:])))
    return [(name, text) for name, text in texts if text]


def answered_text(record: RunRecord) -> Text:
    """Who answered the newest call, why it was not the remote VLM, and how often who did."""
    by = {"remote": "by the remote"}.get(record.answered_by, record.answered_by)
    text = Text(by, style="green" if record.answered_by == "remote" else "yellow")
    if record.missed:
        text.append(f"  {record.missed}", style="yellow")
    return text.append(f"  ({answers_text(record)})", style="dim")


def answers_text(record: RunRecord) -> str:
    """How often who answered the high level's calls, and what kept the remote VLM from it."""
    answers = record.answers
    parts = [f"{answers['remote']} times by the remote", f"{answers['on board']} times on board"]
    if answers["nobody"]:
        parts.append(f"{answers['nobody']} times by nobody")
    misses = [f"{name[len(_REMOTE) :]} {n}" for name, n in sorted(record.counts.items()) if name.startswith(_REMOTE)]
    return ", ".join(parts) + (f"; {', '.join(misses)}" if misses else "")


def latency_table(record: RunRecord) -> Table:
    """Calls, rate and latency percentiles of every stage."""
    table = Table(title=Text("latency [ms]"), title_justify="left", header_style="dim", box=None, pad_edge=False)
    for column in ("stage", "calls", "per s", "p50", "p90", "p99", "max"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, series in sorted(record.latencies.items()):
        summary = series.summary()
        if summary is None:
            continue
        figures = (summary.p50_ms, summary.p90_ms, summary.p99_ms, summary.max_ms)
        rate = f"{record.rate_hz(stage):.2f}"
        table.add_row(stage, str(summary.count), rate, *(f"{figure:.1f}" for figure in figures))
    return table


def _rates(record: RunRecord, robot: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for stage in STAGES_SHOWN:
        series = record.latencies.get(stage)
        summary = series.summary() if series else None
        if series is not None and summary is not None:
            rate = "" if stage == "observation to chunk" else f"{record.rate_hz(stage):.2f}/s"
            table.add_row(Text(stage, style="dim"), rate, f"{series.last_ms:.0f} ms", f"p99 {summary.p99_ms:.0f} ms")
    late = robot.get("control lateness p99 [ms]")
    if isinstance(late, int | float):
        worst = robot.get("control lateness max [ms]", late)
        table.add_row(Text("control lateness", style="dim"), "", f"p99 {late:.2f} ms", f"max {worst:.2f} ms")
    told = ("chunks", "subgoals", *_ANSWERS)  # elsewhere
    troubles = {n: count for n, count in record.counts.items() if count and n not in told and not n.startswith(_REMOTE)}
    if troubles:
        table.add_row(Text("counted", style="dim"), ", ".join(f"{name} {n}" for name, n in sorted(troubles.items())))
    return table
