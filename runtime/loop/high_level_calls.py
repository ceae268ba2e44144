"""One question to the high level, and the notes on it: record, trace, observer. The same in lock-step and real time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from memrt.runtime.clock import Clock
from memrt.runtime.loop.observer import HighLevelCall, LoopObserver
from memrt.runtime.loop.protocols import HighLevel, HighLevelReply
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.stages import trace_call
from memrt.runtime.policy.cancellation import Cancelled
from memrt.runtime.trace import Trace
from memrt.runtime.types import Observation

TRACK = "high level"


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
        """The reply, or None when the call was cancelled. `t_ns` is the call's time on the robot's clock.

        `arguments` go into the trace. Raises whatever the high level raises.
        """
        start_ns = self._clock.now_ns()
        observation = self._observer.watched(observation)
        questions = 0

        def is_cancelled() -> bool:
            nonlocal questions
            questions += 1
            return cancelled is not None and cancelled()

        reply: HighLevelReply | None = None
        with suppress(Cancelled):
            reply = self._high_level.call(goal, observation, state, cancelled=is_cancelled)
        end_ns = self._clock.now_ns()
        counts = {"cancelled calls": 1} if reply is None else dict(getattr(reply, "counts", {}))
        with self._lock:
            if reply is not None:
                self._record.latency(TRACK, end_ns - start_ns)
                self._record.stages(TRACK, reply)
                self._record.counts["held replies"] += reply.held
            self._record.counts.update(counts)
        if self._trace is not None:
            arguments |= counts
            if reply is None:
                self._trace.span("cancelled call", TRACK, start_ns, end_ns, **arguments)
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
                questions=questions,
                t_ns=t_ns,
                duration_ns=end_ns - start_ns,
            )
        )
        self._calls += 1
        return reply
