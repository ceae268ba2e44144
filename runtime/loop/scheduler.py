"""When to call the low level, which actions of its answer are still in time, and when a subgoal has grown too old.

Every decision is a pure function of times handed in: no clock, no thread, no robot. The delay estimate is that of
real-time chunking (SPECS 3): with horizon H, s actions executed per chunk and a delay of d = ceil(latency / dt)
actions, chunks can follow each other without a gap iff d <= s <= H - d.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.actions import at_pace
from memrt.runtime.types import ActionChunk, Subgoal

POLL_NS = 10_000_000  # look again after 10 ms when waiting for something that has no known time


class LatencyEstimate:
    """The largest latency of the last `window` calls: it forgets, so that one stall does not slow a policy for ever.

    The first `warm_up` calls count only as long as there are no others: a bad estimate is better than none.
    """

    def __init__(self, window: int, warm_up: int = 0) -> None:
        self._recent: deque[int] = deque(maxlen=window)
        self._warm_up_left = warm_up
        self._stand_in_ns = 0

    def record(self, latency_ns: int) -> None:
        """Take in one call, from its observation's time to the time its chunk was ready."""
        if self._warm_up_left > 0:
            self._warm_up_left -= 1
            self._stand_in_ns = latency_ns
        else:
            self._recent.append(latency_ns)

    @property
    def value_ns(self) -> int:
        """The estimate, 0 before the first call."""
        return max(self._recent, default=self._stand_in_ns)


def delay_steps(latency_ns: int, settings: LoopSettings) -> int:
    """d = ceil(latency / dt): how many of a new chunk's actions the robot passes while it is computed.

    Action 0 is meant for one step after the observation, so d counts the one the robot is moving to when the chunk is
    ready. One more where sending takes longer than a step.
    """
    dt_ns = settings.paced_dt_ns
    return max(-(-latency_ns // dt_ns), -(-(latency_ns + settings.send_lead_ns) // dt_ns) - 1)


@dataclass(frozen=True, slots=True)
class SentChunk:
    """The newest chunk the robot was sent: the times of its observation and of its last action."""

    t_obs_ns: int
    end_ns: int
    subgoal_revision: int


@dataclass(frozen=True, slots=True)
class Decision:
    """`call` now, or `wait` until `t_ns` and decide again. `reason` is for people and the trace."""

    action: Literal["call", "wait"]
    t_ns: int
    reason: str


def decide_low_level(
    now_ns: int,
    settings: LoopSettings,
    *,
    subgoal: Subgoal | None,
    playing: SentChunk | None,
    latency_ns: int,
    oldest_frame_ns: int | None,
) -> Decision:
    """Whether to compute a chunk now. `oldest_frame_ns` is the time of the least recent frame the policy needs.

    Chunks are computed from observations `steps_between_calls` apart, or closer where the delay would else leave a gap.
    A call that is overdue is made once, with the newest observation: none is made up for.
    """
    if subgoal is None:
        return Decision("wait", now_ns + POLL_NS, "no subgoal yet")
    due_ns = now_ns
    if playing is not None and keep_chunk(playing.subgoal_revision, subgoal.revision, settings.on_new_subgoal):
        steps = min(settings.steps_between_calls, settings.horizon - delay_steps(latency_ns, settings))
        due_ns = playing.t_obs_ns + steps * settings.paced_dt_ns
    if due_ns > now_ns:
        return Decision("wait", due_ns, "the playing chunk suffices")
    if oldest_frame_ns is None:
        return Decision("wait", now_ns + POLL_NS, "no frame yet")
    if now_ns - oldest_frame_ns > settings.camera_stale_ns:
        return Decision("wait", now_ns + POLL_NS, "camera stale")
    if playing is not None and oldest_frame_ns <= playing.t_obs_ns:
        return Decision("wait", now_ns + POLL_NS, "no frame newer than the playing chunk's")
    return Decision("call", now_ns, "due")


def pace(chunk: ActionChunk, t_obs_ns: int, settings: LoopSettings) -> ActionChunk:
    """The chunk at the run's speed: the same path, every action `1 / speed` times as far from its observation."""
    if settings.speed == 1.0:
        return chunk
    dt_ns = round(chunk.dt_ns / settings.speed)
    t0_ns = t_obs_ns + round((chunk.t0_ns - t_obs_ns) / settings.speed)
    return replace(chunk, actions=at_pace(chunk.actions, chunk.space, settings.speed), t0_ns=t0_ns, dt_ns=dt_ns)


def splice(chunk: ActionChunk, now_ns: int, lead_ns: int) -> ActionChunk | None:
    """The actions that can still reach the robot in time, or None when the whole chunk came too late."""
    earliest_ns = now_ns + lead_ns
    first = max(0, -(-(earliest_ns - chunk.t0_ns) // chunk.dt_ns))
    if first >= len(chunk.actions):
        return None
    if first == 0:
        return chunk
    return replace(chunk, actions=chunk.actions[first:], t0_ns=chunk.t0_ns + first * chunk.dt_ns)


def keep_chunk(chunk_revision: int, newest_revision: int, on_new_subgoal: Literal["finish", "discard"]) -> bool:
    """Whether a chunk tagged with `chunk_revision` may still be played under the newest subgoal."""
    return on_new_subgoal == "finish" or chunk_revision == newest_revision


class SubgoalBoard:
    """The newest subgoal and when the high level last answered. The latest observation wins; revisions only grow."""

    def __init__(self) -> None:
        self._subgoal: Subgoal | None = None
        self._answered_ns: int | None = None

    @property
    def subgoal(self) -> Subgoal | None:
        """The subgoal in force, None before the first answer."""
        return self._subgoal

    def start(self, now_ns: int) -> None:
        """Begin (or begin again, after a hold) to measure the high level's silence."""
        self._answered_ns = now_ns

    def answer(self, text: str, t_obs_ns: int, now_ns: int) -> bool:
        """Take in an answer; True when the subgoal is a different one now. An answer to an older image is ignored."""
        self._answered_ns = now_ns
        old = self._subgoal
        if not text or (old is not None and t_obs_ns < old.t_obs_ns):
            return False
        changed = old is None or text != old.text
        revision = 1 if old is None else old.revision + changed
        self._subgoal = Subgoal(text, revision, t_obs_ns)
        return changed

    def silence_ns(self, now_ns: int) -> int:
        """How long the high level has not answered."""
        return 0 if self._answered_ns is None else max(0, now_ns - self._answered_ns)

    def expired(self, now_ns: int, time_to_live_ns: int) -> bool:
        """Whether the last answer has outlived its time: the robot has to hold."""
        return self.silence_ns(now_ns) > time_to_live_ns


class InARow:
    """Counts a fault's occurrences in a row; `happened` is True when the limit is reached, a success starts over."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0

    def happened(self) -> bool:
        """Count one more; whether that is the last that is tolerated."""
        self._count += 1
        return self._count >= self._limit

    def reset(self) -> None:
        """A success, or a fresh start."""
        self._count = 0
