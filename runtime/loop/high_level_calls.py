"""One question to the high level, and the notes on it: record, trace, observer. The same in lock-step and real time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from memrt.runtime.clock import Clock
from memrt.runtime.loop.observer import HighLevelCall, LoopObserver
from memrt.runtime.loop.protocols import HighLevel, HighLevelReply, ReadsAhead
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.stages import trace_call
from memrt.runtime.policy.cancellation import Cancelled, Unanswered
from memrt.runtime.trace import Trace
from memrt.runtime.types import Observation

TRACK = "high level"
NOBODY = "nobody"  # as the one who answered


class HighLevelCalls:
    """Asks, measures and notes. `lock` guards the record, where threads share it."""

    def __init__(
        self,
        high_level: HighLevel,
        record: RunRecord,
        *,
        clock: Clock,
        trace: Trace | None,
        observer: LoopObserver,
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._high_level, self._record, self._lock = high_level, record, lock or nullcontext()
        self._clock, self._trace, self._observer = clock, trace, observer
        self._calls = 0

    def ask(
        self,
        goal: str,
        observation: Observation,
        state: Any,
        *,
        t_ns: int,
        cancelled: Callable[[], bool] | None = None,
        **arguments: object,
    ) -> HighLevelReply | None:
        """The reply, or None when the call was cancelled or nobody answered. `t_ns` is its time on the robot's clock.

        `arguments` go into the trace. Raises whatever else the high level raises.
        """
        start_ns = self._clock.now_ns()
        observation = self._observer.watched(observation)
        counted = _Counted(cancelled)
        reply: HighLevelReply | None = None
        ended, missed = "call", ""
        try:
            reply = self._high_level.call(goal, observation, state, cancelled=counted)
            counts, missed = dict(getattr(reply, "counts", {})), getattr(reply, "missed", "")
        except Cancelled:
            ended, counts = "cancelled call", {"cancelled calls": 1}
        except Unanswered as nobody:
            ended, counts, missed = "unanswered call", {"unanswered calls": 1, **nobody.counts}, str(nobody.found)
        end_ns = self._clock.now_ns()
        answered_by = getattr(reply, "answered_by", "")
        with self._lock:
            if reply is not None:
                self._record.latency(TRACK, end_ns - start_ns)
                self._record.stages(TRACK, reply)
                self._record.counts["held replies"] += reply.held
            if answered_by:
                self._record.latency(f"{TRACK}, {answered_by}", end_ns - start_ns)
            if answered_by or missed:
                self._record.answered_by = answered_by or NOBODY
                self._record.missed = missed
            self._record.counts.update(counts)
        if self._trace is not None:
            arguments |= counts | ({"missed": missed} if missed else {})
            if reply is None:
                self._trace.span(ended, TRACK, start_ns, end_ns, **arguments)
            else:
                arguments |= {"subgoal": reply.subgoal, "held": reply.held}
                trace_call(self._trace, TRACK, start_ns, end_ns, reply, **arguments)
        self._observer.high_level(
            HighLevelCall(
                index=self._calls,
                goal=goal,
                observation=observation,
                before=state,
                reply=reply,
                questions=counted.questions,
                cancelled=ended == "cancelled call",
                missed=missed,
                t_ns=t_ns,
                duration_ns=end_ns - start_ns,
            )
        )
        self._calls += 1
        return reply

    def read_ahead(
        self,
        high_level: ReadsAhead,
        goal: str,
        observation: Observation,
        state: Any,
        moment_ns: int,
        *,
        t_ns: int,
        cancelled: Callable[[], bool],
    ) -> None:
        """Let the high level compute what is known already of its next call, with an observation of `moment_ns`."""
        start_ns = self._clock.now_ns()
        observation = self._observer.watched(observation)
        counted, was_cancelled = _Counted(cancelled), False
        try:
            high_level.read_ahead(goal, observation, state, moment_ns, cancelled=counted)
        except Cancelled:
            was_cancelled = True
        end_ns = self._clock.now_ns()
        with self._lock:
            self._record.latency(f"{TRACK}: read ahead", end_ns - start_ns)
        if self._trace is not None:
            self._trace.span("read ahead", TRACK, start_ns, end_ns)
        self._observer.high_level(
            HighLevelCall(
                index=self._calls,
                goal=goal,
                observation=observation,
                before=state,
                reply=None,
                questions=counted.questions,
                cancelled=was_cancelled,
                ahead_of_ns=moment_ns,
                t_ns=t_ns,
                duration_ns=end_ns - start_ns,
            )
        )


class _Counted:
    """Whether a call is cancelled, and how often it asked: with that number a replay ends it at the same place."""

    def __init__(self, cancelled: Callable[[], bool] | None) -> None:
        self._cancelled = cancelled
        self.questions = 0

    def __call__(self) -> bool:
        self.questions += 1
        return self._cancelled is not None and self._cancelled()
