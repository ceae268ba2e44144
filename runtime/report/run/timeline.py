"""What happened when: subgoals, calls of both levels, events, holds."""

from __future__ import annotations

from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.memory.coordinates import FRONT_IMAGE_SIZE, CoordinateOrder, find_coordinates, without_coordinates
from memrt.runtime.recording.messages import Log
from memrt.runtime.report.run.document import Call, Chunk, Event, Span, Subgoal
from memrt.runtime.report.run.told import Told

_LEVELS = {2: "info", 3: "warning", 4: "error"}  # foxglove.Log


def subgoals(told: Told, end_s: float, order: CoordinateOrder) -> list[Subgoal]:
    """The subgoals that were followed, each until the next one."""
    events = [event for event in told.events if event.event == "subgoal"]
    starts = [told.seconds(_t_ns(event)) for event in events]
    groups: dict[str, int] = {}
    found = []
    for event, start_s, ends in zip(events, starts, [*starts[1:], end_s], strict=False):
        text = str(event.arguments.get("text", ""))
        marks = [
            ((at.column + 0.5) / FRONT_IMAGE_SIZE, (at.row + 0.5) / FRONT_IMAGE_SIZE)
            for at in find_coordinates(text, order)
        ]
        group = groups.setdefault(without_coordinates(text), len(groups))
        found.append(Subgoal(start_s=start_s, end_s=ends, text=text, group=group, marks=marks))
    return found


def calls(told: Told) -> list[Call]:
    """The high level's calls, with what it was asked and what it said."""
    return [
        Call(
            start_s=told.seconds(request.t_ns),
            answer_s=None if memory is None else told.seconds(told.answered_ns(request, answer)),
            duration_ms=_ms(answer.duration_ns),
            stages_ms={name: _ms(duration_ns) for name, duration_ns in answer.stages.items()},
            tokens=answer.amounts,
            held=answer.held,
            answered_by=answer.answered_by,
            missed=answer.missed,
            prompt=told.text(request.user),
            reply=told.text(answer.reply),
        )
        for request, answer, memory in told.calls
    ]


def chunks(told: Told) -> list[Chunk]:
    """The low level's calls, with the seams where their chunks took over."""
    return [
        Chunk(
            start_s=told.seconds(call.t_ns),
            duration_ms=_ms(call.duration_ns),
            stages_ms={name: _ms(duration_ns) for name, duration_ns in call.stages.items()},
            seam=told.seams.found.get(call.call),
        )
        for call in told.low_level
    ]


def events(told: Told) -> list[Event]:
    """Everything else that happened; the subgoals have a place of their own."""
    return [
        Event(
            t_s=told.seconds(_t_ns(event)), level=_LEVELS.get(event.level, "info"), name=event.event, text=_text(event)
        )
        for event in told.events
        if event.event != "subgoal"
    ]


def _text(event: Log) -> str:
    return ", ".join(f"{name}: {value}" for name, value in event.arguments.items() if value != "")


def holds(told: Told, end_s: float) -> list[Span]:
    """When the robot was held: until an operator resumed, or until the end."""
    found: list[Span] = []
    since: float | None = None
    for event in told.events:
        if event.event == "hold" and since is None:
            since = told.seconds(_t_ns(event))
        elif event.event == "resume" and since is not None:
            found.append((since, told.seconds(_t_ns(event))))
            since = None
    return found if since is None else [*found, (since, end_s)]


def _t_ns(event: Log) -> int:
    return event.timestamp.sec * NS_PER_S + event.timestamp.nsec


def _ms(duration_ns: int) -> float:
    return round(duration_ns / NS_PER_MS, 3)
