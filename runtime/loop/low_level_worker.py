"""The low-level thread's work: compute chunks in time, and hand over what of them can still be played."""

from __future__ import annotations

from memrt.runtime.clock import Clock
from memrt.runtime.loop.following import Followed
from memrt.runtime.loop.gates import refuse_chunk
from memrt.runtime.loop.observer import LoopObserver, LowLevelCall, NoObserver
from memrt.runtime.loop.protocols import LateChunkError, LowLevel, LowLevelReply, TaskRobot
from memrt.runtime.loop.scheduler import (
    InARow,
    LatencyEstimate,
    SentChunk,
    decide_low_level,
    delay_steps,
    keep_chunk,
    pace,
    splice,
)
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.loop.shared import Shared
from memrt.runtime.loop.stages import trace_call
from memrt.runtime.loop.worker import IDLE_NS
from memrt.runtime.policy.chunking import executed, feasible
from memrt.runtime.trace import Trace
from memrt.runtime.types import ActionChunk, Observation, PlayingChunk, Subgoal


class LowLevelWorker:
    """Computes a chunk so early that it arrives when it is needed, and hands over what of it is still in time."""

    def __init__(
        self,
        robot: TaskRobot,
        low_level: LowLevel,
        settings: LoopSettings,
        *,
        shared: Shared,
        clock: Clock,
        trace: Trace,
        observer: LoopObserver | None = None,
    ) -> None:
        self._robot, self._low_level, self._settings = robot, low_level, settings
        self._shared, self._clock, self._trace = shared, clock, trace
        self._observer = observer or NoObserver()
        self._latency = LatencyEstimate(settings.latency_window, settings.warm_up_calls)
        self._rejected = InARow(settings.rejected_before_hold)
        self._late = InARow(settings.late_before_hold)
        self._newest: SentChunk | None = None
        self._followed = Followed(settings)
        self._epoch = -1
        self._calls = 0

    def step(self) -> int:
        """Call when due and when the cameras allow it."""
        shared, settings = self._shared, self._settings
        now_ns = self._clock.now_ns()
        with shared.lock:
            following, epoch, subgoal = shared.following, shared.epoch, shared.board.subgoal
        if not following or shared.hold_asked:
            return now_ns + IDLE_NS
        if epoch != self._epoch:  # a hold or a resume lies between: what was playing is gone
            self._epoch, self._newest = epoch, None
            self._followed.clear()
            self._rejected.reset()
            self._late.reset()
        observation = self._robot.observe()
        oldest = shared.cameras.oldest(observation)
        decision = decide_low_level(
            now_ns,
            settings,
            subgoal=subgoal,
            playing=self._newest,
            latency_ns=self._latency.value_ns,
            oldest_frame_ns=oldest.t_ns if oldest else None,
        )
        if decision.action == "wait" or subgoal is None:
            return decision.t_ns
        noise = self._low_level.noise(settings.seed, self._calls)
        self._calls += 1
        playing = self._continued(observation, subgoal)
        with shared.lock:
            shared.low_level_since_ns = now_ns
        try:
            reply = self._low_level.act(observation, subgoal, shared.record.goal, noise, playing=playing)
        except LateChunkError as missed:
            return self._missed(observation, missed)
        finally:
            with shared.lock:
                shared.low_level_since_ns = None
        ready_ns = self._clock.now_ns()
        trace_call(self._trace, "low level", now_ns, ready_ns, reply, revision=subgoal.revision)
        self._latency.record(ready_ns - observation.t_ns)
        self._observer.low_level(
            LowLevelCall(
                index=self._calls - 1,
                seed=settings.seed,
                goal=shared.record.goal,
                observation=observation,
                subgoal=subgoal,
                playing=playing,
                reply=reply,
                t_ns=now_ns,
                duration_ns=ready_ns - now_ns,
            )
        )
        with shared.lock:
            shared.record.latency("low level", ready_ns - now_ns)
            shared.record.latency("observation to chunk", ready_ns - observation.t_ns)
            shared.record.stages("low level", reply)
            delay = delay_steps(self._latency.value_ns, settings)
            if not feasible(delay, executed(settings.calls, settings.execute, delay), settings.horizon):
                shared.record.counts["calls too slow for the horizon"] += 1
            self._hand_over(reply, observation, subgoal, playing, ready_ns)
        return ready_ns

    def _missed(self, observation: Observation, missed: LateChunkError) -> int:
        """What plays goes on, and the robot stops at its end; so many in a row are a hold."""
        now_ns = self._clock.now_ns()
        self._latency.record(now_ns - observation.t_ns)
        with self._shared.lock:
            self._count("late chunks", now_ns, reason=str(missed))
            if self._late.happened():
                times = self._settings.late_before_hold
                self._shared.ask_hold(f"{times} chunks in a row came too late to be played: {missed}")
        return now_ns

    def _continued(self, observation: Observation, subgoal: Subgoal) -> PlayingChunk | None:
        """What the next chunk continues, where the policy's chunks do, and with which delay."""
        settings, newest = self._settings, self._newest
        if settings.chunking == "none" or newest is None:
            return None
        kept = keep_chunk(newest.subgoal_revision, subgoal.revision, settings.on_new_subgoal)
        delay = delay_steps(self._latency.value_ns, settings)
        return self._followed.playing(observation.t_ns, delay, outdated=not kept)

    def _hand_over(
        self,
        reply: LowLevelReply,
        observation: Observation,
        subgoal: Subgoal,
        playing: PlayingChunk | None,
        now_ns: int,
    ) -> None:
        """Send the chunk, or count why not. The caller holds the lock, so no stop can come in between."""
        shared, settings = self._shared, self._settings
        newest = shared.board.subgoal
        if not shared.following or shared.epoch != self._epoch:
            self._count("chunks dropped at a hold", now_ns)
            return
        if newest is not None and not keep_chunk(subgoal.revision, newest.revision, settings.on_new_subgoal):
            self._count("chunks of an older subgoal", now_ns)
            return
        refusal = refuse_chunk(reply.chunk, settings.horizon)
        if refusal:
            self._count("rejected chunks", now_ns, reason=refusal)
            if self._rejected.happened():
                shared.ask_hold(f"{settings.rejected_before_hold} chunks in a row rejected: {refusal}")
            return
        self._rejected.reset()
        chunk = splice(pace(reply.chunk, observation.t_ns, settings), now_ns, settings.send_lead_ns)
        # A chunk whose first d actions are past does not continue the playing one any more: that one goes on instead.
        beyond = (
            chunk is not None and playing is not None and settings.horizon - len(chunk.actions) > playing.delay_steps
        )
        if chunk is None or beyond:
            self._count("chunks later than their prefix" if beyond else "late chunks", now_ns)
            if self._late.happened():
                shared.ask_hold(f"{settings.late_before_hold} chunks in a row came too late to be played")
            return
        self._late.reset()
        self._note_gap(chunk, now_ns)
        self._robot.send(chunk)
        shared.record.sent(chunk)
        self._observer.sent(self._calls - 1, chunk, now_ns)
        seam = self._followed.take(chunk)
        if seam is not None:
            shared.record.seam(seam, chunk.space)
        self._newest = SentChunk(observation.t_ns, chunk.end_ns, subgoal.revision)

    def _note_gap(self, chunk: ActionChunk, now_ns: int) -> None:
        if self._newest is None or chunk.t0_ns - self._newest.end_ns <= chunk.dt_ns:
            return
        gap_ns = chunk.t0_ns - self._newest.end_ns
        self._shared.record.starved_ns += gap_ns
        self._count("starved", now_ns, gap_ms=gap_ns / 1e6)

    def _count(self, what: str, t_ns: int, **arguments: object) -> None:
        self._shared.record.counts[what] += 1
        self._trace.instant(what, "low level", t_ns, **arguments)
        self._observer.event(what, "low level", t_ns, call=self._calls - 1, **arguments)
