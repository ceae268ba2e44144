"""A robot behind the link, as the loop sees it: acknowledged commands, chunks, states, shared-memory frames."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from memrt.robot_io.computer import computer_id
from memrt.robot_io.link.clock_sync import SAME_CLOCK, ClockEstimate, check_arm, good_enough
from memrt.robot_io.link.endpoints import Endpoints
from memrt.robot_io.link.heartbeat import HeartbeatThread
from memrt.robot_io.link.keys import client_keys
from memrt.robot_io.link.observing import Observing
from memrt.robot_io.link.receiving import dropped
from memrt.robot_io.link.refusals import gone, no_such_camera, not_let_in, refused, session_refused, wrong_space
from memrt.robot_io.link.requests import NoAnswerError, Requester
from memrt.robot_io.link.sockets import open_socket
from memrt.robot_io.link.state_feed import StateFeed
from memrt.robot_io.link.streams import Chunk, Outcome, encode_chunk
from memrt.robot_io.link.wire import (
    VERSION,
    Ack,
    Command,
    CommandKind,
    Configure,
    Hello,
    Welcome,
)
from memrt.robot_io.rings import FrameReader
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ActionChunk, Observation, RobotMode

CONNECT_MS = 5_000
STATE_LOST_NS = 500 * NS_PER_MS  # a node publishes every 10 ms; this long without a state it is gone
CHUNK_QUEUE = 4  # chunks are timed: more than a few waiting would all be late


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """How the task stands, as the node reports it; "running" where the robot cannot tell."""

    status: Outcome
    reason: str


class LinkRobot:
    """Implements the loop's `TaskRobot`. Every method may be called from any thread; a stop waits for no other command.

    `alive` returns "" or why the node's process is gone, where this side has started it. `align_to` names the camera
    whose newest frame is "now" in observations; without it they hold every camera's newest. `keys` is the folder with
    this client's keys (`keys.py`). `rings` are the shared-memory rings of cameras that this side has opened; without it
    the node's are read, where it runs on this computer.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        alive: Callable[[], str] | None = None,
        on_close: Callable[[], None] | None = None,
        connect_ms: int = CONNECT_MS,
        align_to: str | None = None,
        keys: str | Path | None = None,
        rings: Mapping[str, str] | None = None,
    ) -> None:
        """Begin a session. Raises MemrtError when the node does not answer or refuses, or keys are missing or wrong."""
        self._alive = alive or (lambda: "")
        self._on_close = on_close or (lambda: None)
        self._endpoints = Endpoints.of(endpoint)
        self._keys = client_keys(endpoint, keys)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sequence = itertools.count(1)
        self._chunk_sequence = itertools.count(1)
        self._lock = threading.Lock()
        self._stops = 0
        self._newest_ack: Ack | None = None
        self._chunks_unsent = 0
        self._session = 1 + secrets.randbelow(2**63 - 1)  # never used before; 0 is no session
        self._frames = FrameReader()
        self._commands = Requester(self._context, self._endpoints.control, self._keys)
        self._stop_lane = Requester(self._context, self._endpoints.control, self._keys)
        self._heartbeat = HeartbeatThread(self._context, self._endpoints.control, self._session, self._keys)
        self._feed: StateFeed | None = None
        self._same_computer: bool | None = None  # not known before the welcome
        self._chunks = open_socket(self._context, zmq.PUSH, self._endpoints.chunks, keys=self._keys, queue=CHUNK_QUEUE)
        try:
            self.welcome = self._connect(connect_ms)
            self._same_computer = self.welcome.computer == computer_id()
            if rings is None:
                rings = self.welcome.rings if self._same_computer else {}
            if align_to is not None and align_to not in rings:
                raise no_such_camera(align_to, rings)
            self._frames.open(rings)
            self._observing = Observing(self._frames, self._state_feed, self._clock, align_to)
        except BaseException:
            self.close()
            raise

    @property
    def goal(self) -> str:
        """The task's instruction as the node knows it, "" where it knows none."""
        return self.welcome.goal

    @property
    def mode(self) -> RobotMode:
        """The node's mode; FAULT while nothing is heard from it."""
        state = self._state_feed.snapshot.state
        if self._link_fault() or state is None:
            return RobotMode.FAULT
        ack = self._newest_ack  # an answered command counts at once, before the next state confirms it
        return RobotMode(ack.mode) if ack is not None and ack.after_state >= state.sequence else state.mode

    @property
    def fault_reason(self) -> str:
        """Why the robot is in FAULT, or ""."""
        snapshot = self._state_feed.snapshot
        reason = self._link_fault() or snapshot.fault
        if not reason and snapshot.state is not None and snapshot.state.mode is RobotMode.FAULT:
            return "the robot's node is in fault; its reason was lost on the way"
        return reason

    @property
    def outcome(self) -> TaskOutcome:
        """How the task stands."""
        snapshot = self._state_feed.snapshot
        return TaskOutcome(snapshot.state.outcome, snapshot.reason) if snapshot.state else TaskOutcome("running", "")

    @property
    def refused_in_a_row(self) -> int:
        """How many of the newest chunks the node refused, or got after their deadline."""
        state = self._state_feed.snapshot.state
        return state.refused_in_a_row if state else 0

    @property
    def statistics(self) -> Mapping[str, Any]:
        """The node's newest report, and this side's own figures."""
        ours = {
            "chunks not sent": self._chunks_unsent,
            "longest heartbeat gap [ms]": self._heartbeat.longest_gap_ns / NS_PER_MS,
        }
        if clock := self._clock():
            ours["clock uncertainty [ms]"] = clock.uncertainty_ns / NS_PER_MS
        ours |= dropped("states", self._state_feed.dropped) | dropped("pulses", self._heartbeat.dropped)
        return {**self._state_feed.snapshot.values, **ours}

    def observe(self) -> Observation:
        """The newest frames, and proprioception at the time they were taken: a policy is trained on such pairs."""
        observation = self._observing.observe()
        if observation is None:
            raise gone(self._link_fault() or "no state was received yet")
        return observation

    def send(self, chunk: ActionChunk) -> None:
        """Hand a chunk to the socket, without waiting. One that does not fit is counted: its successor is better.

        Its deadline is its last action: the seam joins the arm to whatever is left before that, inside the limits.
        Raises MemrtError when the node does not take chunks in its space.
        """
        if chunk.space not in self.welcome.spaces:
            raise wrong_space(chunk.space, self.welcome)
        clock = self._clock() or SAME_CLOCK
        with self._lock:
            message = Chunk(
                session=self._session,
                sequence=next(self._chunk_sequence),
                sent_ns=clock.to_remote(time.monotonic_ns()),
                deadline_ns=clock.to_remote(chunk.end_ns),
                t0_ns=clock.to_remote(chunk.t0_ns),
                dt_ns=chunk.dt_ns,
                revision=chunk.subgoal_revision,
                space=chunk.space,
                actions=chunk.actions,
            )
            try:
                self._chunks.send(encode_chunk(message), zmq.NOBLOCK)
            except zmq.Again:
                self._chunks_unsent += 1

    def arm(self) -> None:
        """Let the robot follow chunks. Raises MemrtError when it refuses or its clock is not known well enough."""
        deadline_ns = time.monotonic_ns() + CONNECT_MS * NS_PER_MS
        while not good_enough(self._clock()) and time.monotonic_ns() < deadline_ns:
            time.sleep(0.01)  # each heartbeat may bring a quicker round trip
        check_arm(self._clock())
        self._command("arm")

    def stop(self) -> None:
        """Stop; returns when the node says that the robot is at rest. Raises MemrtError when it does not say so."""
        with self._lock:
            self._stops += 1
        self._command("stop", self._stop_lane)

    def resume(self) -> None:
        """Follow chunks again. Raises MemrtError when the node refuses, as it does after a later stop."""
        self._command("resume")

    def configure(self, *, speed: float) -> None:
        """Scale the node's limits of speed, as far as its own settings allow; those of a robot that stands still.

        A node whose limits are fixed keeps them. Raises MemrtError when the node refuses.
        """
        if self.welcome.speed:
            with self._lock:
                wanted = Configure(self._session, next(self._sequence), min(speed, self.welcome.speed))
            self._request(wanted, "configure", self._commands)

    def home(self) -> None:
        """Let the stopped robot move to its start posture; returns at once."""
        self._command("home")

    def close(self) -> None:
        """End the session; a running robot is stopped first. The node's own watchdog covers whatever fails here."""
        feed = self._feed
        if feed is not None and not self._link_fault() and self.mode is RobotMode.RUNNING:
            with contextlib.suppress(MemrtError):
                self.stop()
        self._heartbeat.close()
        if feed is not None:
            feed.close()
        for requester in (self._commands, self._stop_lane):
            requester.close()
        self._chunks.close()
        self._frames.close()
        self._context.term()
        self._on_close()

    @property
    def _state_feed(self) -> StateFeed:
        assert self._feed is not None, "the constructor connects"
        return self._feed

    def _connect(self, connect_ms: int) -> Welcome:
        self._chunks.connect(self._endpoints.chunks)
        feed = self._feed = StateFeed(self._context, self._endpoints.state, self._session, self._clock, self._keys)
        hello = Hello(self._session, next(self._sequence), VERSION, computer_id())
        deadline_ns = time.monotonic_ns() + connect_ms * NS_PER_MS
        answer: Ack | Welcome | None = None
        while answer is None:
            if dead := self._alive():
                raise gone(dead)
            try:
                answer = self._commands.ask(hello, "connecting", min(connect_ms, 500))
            except NoAnswerError:
                late = time.monotonic_ns() >= deadline_ns
                if found := self._commands.handshake_failure(final=not late):
                    raise not_let_in(found) from None
                if late:
                    raise
        if isinstance(answer, Ack):
            raise session_refused(answer.error)
        self._heartbeat.start()
        if not feed.wait_first(connect_ms / 1000):
            found = ", ".join(f"{count} {reason}" for reason, count in feed.dropped.items())
            raise gone(f"it answers, but publishes no state{found and f' that can be used ({found})'}")
        return answer

    def _command(self, kind: CommandKind, lane: Requester | None = None) -> None:
        with self._lock:
            command = Command(self._session, next(self._sequence), kind, self._stops)
        self._request(command, kind, lane or self._commands)

    def _request(self, message: Command | Configure, what: str, lane: Requester) -> None:
        if dead := self._alive():
            raise gone(dead)
        answer = lane.ask(message, f"robot command `{what}`")
        if isinstance(answer, Ack):
            with self._lock:
                if self._newest_ack is None or answer.after_state >= self._newest_ack.after_state:
                    self._newest_ack = answer
            if answer.error:
                raise refused(what, answer.error)

    def _clock(self) -> ClockEstimate | None:
        """The node's clock; None before anything is known of it."""
        return SAME_CLOCK if self._same_computer else self._heartbeat.estimate

    def _link_fault(self) -> str:
        if dead := self._alive():
            return dead
        snapshot = self._state_feed.snapshot
        silence_ns = time.monotonic_ns() - snapshot.received_ns
        if snapshot.state is not None and silence_ns > STATE_LOST_NS:
            return f"nothing was heard from the robot's node for {silence_ns / NS_PER_MS:.0f} ms"
        return ""
