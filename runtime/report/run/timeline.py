"""What happened when: subgoals, calls, chunks with their seams, events, holds."""

from __future__ import annotations

import numpy as np

from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.loop.following import Followed
from memrt.runtime.loop.record import SEAM_UNITS
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.memory.coordinates import FRONT_IMAGE_SIZE, CoordinateOrder, find_coordinates, without_coordinates
from memrt.runtime.recording.messages import Chunk as RecordedChunk
from memrt.runtime.recording.messages import Log
from memrt.runtime.report.run.document import Call, Chunk, Event, Span, Subgoal
from memrt.runtime.report.run.told import Told
from memrt.runtime.types import ActionChunk, ActionSpace

_LEVELS = {2: "info", 3: "warning", 4: "error"}  # foxglove.Log
RUNNING = "running"


def subgoals(told: Told, end_s: float, order: CoordinateOrder) -> list[Subgoal]:
    """The subgoals that were followed, each until the next one."""
    events = [event for event in told.events if event.event == "subgoal"]
    starts = [told.seconds(_t_ns(event)) for event in events]
    groups: dict[str, int] = {}
    found = []
    for event, start_s, ends in zip(events, starts, [*starts[1:], end_s], strict=True):
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
            prompt=told.text(request.user),
            reply=told.text(answer.reply),
        )
        for request, answer, memory in told.calls
    ]


def chunks(told: Told) -> tuple[list[Chunk], str]:
    """The low level's calls with the seams where their chunks took over, and the seams' unit."""
    seams = _seams(told)
    found = [
        Chunk(
            start_s=told.seconds(call.t_ns),
            duration_ms=_ms(call.duration_ns),
            stages_ms={name: _ms(duration_ns) for name, duration_ns in call.stages.items()},
            seam=seams.get(call.call),
        )
        for call in told.low_level
    ]
    space = told.low_level[0].chunk.space if told.low_level else "joint_position"
    return found, SEAM_UNITS[ActionSpace[space.upper()]]


def _seams(told: Told) -> dict[int, float]:
    """By low-level call, as the run's own record measures them. What a hold lies between is no seam."""
    if not told.low_level:
        return {}
    first = told.low_level[0].chunk
    horizon = len(first.actions)
    followed = Followed(LoopSettings(dt_ns=first.dt_ns, horizon=horizon, execute=horizon, every_steps=1))
    stops = [_t_ns(event) for event in told.events if event.event in ("hold", "home")]
    found = {}
    for command in told.commands:
        while stops and stops[0] <= command.t_ns:
            followed.clear()
            del stops[0]
        seam = followed.take(_chunk(command.chunk))
        if seam is not None:
            found[command.call] = round(seam, 5)
    return found


def _chunk(chunk: RecordedChunk) -> ActionChunk:
    actions = np.array(chunk.actions, np.float64)
    return ActionChunk(actions, chunk.t0_ns, chunk.dt_ns, chunk.subgoal_revision, ActionSpace[chunk.space.upper()])


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
    """When the robot did not run after it had: held, stopped, at fault."""
    found: list[Span] = []
    running_before = False
    since: float | None = None
    for t_ns, mode in told.modes:
        t_s = told.seconds(t_ns)
        if mode == RUNNING:
            if since is not None:
                found.append((since, t_s))
            running_before, since = True, None
        elif running_before and since is None:
            since = t_s
    # A robot that comes to rest when its run is over was not held.
    if since is not None and since < end_s - 1.0:
        found.append((since, end_s))
    return found


def _t_ns(event: Log) -> int:
    return event.timestamp.sec * NS_PER_S + event.timestamp.nsec


def _ms(duration_ns: int) -> float:
    return round(duration_ns / NS_PER_MS, 3)
