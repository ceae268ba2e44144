"""The robot's side of the link: one thread that serves the three sockets, watches the client and commands the driver.

The node owns safety. It stops the robot when the client is silent, when it is told to, and when its driver reports a
fault; a chunk reaches the driver only from the present session while the robot is RUNNING. It says "stopped" only once
the driver is at rest.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import cast

import zmq

from memrt.robot_io.computer import computer_id
from memrt.robot_io.driver import Driver
from memrt.robot_io.link.session import NodeSession, Reaction, Watchdog
from memrt.robot_io.link.wire import (
    MAX_TEXT,
    MAX_TRANSPORT_BYTES,
    VERSION,
    Ack,
    Chunk,
    Command,
    Endpoints,
    Heartbeat,
    Hello,
    InOrder,
    Message,
    Pulse,
    Receiver,
    Report,
    State,
    ToNode,
    Welcome,
    encode,
)
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.types import ARM_JOINTS, RobotMode

STATE_PERIOD_NS = 10 * NS_PER_MS  # 100 Hz
REPORT_PERIOD_NS = 200 * NS_PER_MS
ACKS_KEPT = 64  # answers remembered for repeated commands; a client has at most two commands under way
HELD_UP_NS = 20 * NS_PER_MS  # a round of this loop takes at most 10 ms of waiting and well below 1 ms of work
DELIVERY_MS = 5
REST_DEADLINE_NS = 2 * NS_PER_S  # an FR3 at full speed needs 0.5 s to come to rest
SEND_QUEUE = 100  # messages to a client that does not read; beyond it they are dropped, never waited for


@dataclass(slots=True)
class _PendingStop:
    identity: bytes
    command: Command
    deadline_ns: int


class RobotNode:
    """Serves one driver. `serve` blocks until `shutdown` is set; the driver is braked on the way out."""

    def __init__(self, driver: Driver, endpoint: str, watchdog: Watchdog | None = None) -> None:
        self._driver = driver
        self._session = NodeSession(watchdog or Watchdog())
        self._control_in = Receiver(ToNode)
        self._chunks_in = Receiver(Chunk)
        self._chunk_order = InOrder()
        self._pulse_order = InOrder()
        self._acks: OrderedDict[int, Ack] = OrderedDict()
        self._pending: list[_PendingStop] = []
        self._refused_in_a_row = 0
        self._revision = 0
        self._sequence = 0
        self._counts: Counter[str] = Counter()
        self._last_refusal = ""
        self.shutdown = threading.Event()
        endpoints = Endpoints.of(endpoint)
        self._context = zmq.Context()
        self._control = self._bind(zmq.ROUTER, endpoints.control)
        self._chunks = self._bind(zmq.PULL, endpoints.chunks)
        self._state = self._bind(zmq.PUB, endpoints.state)

    def serve(self) -> None:
        """Run until `shutdown`: messages as they come, the watchdog and the state every 10 ms."""
        poller = zmq.Poller()
        poller.register(self._control, zmq.POLLIN)
        poller.register(self._chunks, zmq.POLLIN)
        now_ns = next_state_ns = next_report_ns = time.monotonic_ns()
        try:
            while not self.shutdown.is_set():
                wait_ms = max(0, -(-(next_state_ns - time.monotonic_ns()) // NS_PER_MS))  # rounded up: no busy waiting
                poller.poll(wait_ms)
                # Silence is judged as of a time before the sockets are emptied: when this process itself was held up,
                # the heartbeats that waited meanwhile count, once ZMQ's own thread has had time to bring them.
                before_ns = time.monotonic_ns()
                if before_ns - now_ns > HELD_UP_NS:
                    poller.poll(DELIVERY_MS)
                self._drain_control()
                self._drain_chunks()
                self._react(self._session.check(before_ns, self._driver.fault))
                now_ns = time.monotonic_ns()
                self._answer_stops(now_ns)
                if now_ns >= next_state_ns:
                    self._publish_state()
                    next_state_ns = max(next_state_ns + STATE_PERIOD_NS, now_ns)
                if now_ns >= next_report_ns:
                    self._publish_report()
                    next_report_ns = max(next_report_ns + REPORT_PERIOD_NS, now_ns)
        finally:
            self._driver.brake()
            self._context.destroy(linger=0)

    def _bind(self, kind: int, address: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_TRANSPORT_BYTES)
        socket.setsockopt(zmq.SNDHWM, SEND_QUEUE)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(address)
        return socket

    def _drain_control(self) -> None:
        while True:
            try:
                identity, *frames = self._control.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(frames) != 1:
                self._control_in.dropped["malformed"] += 1
                continue
            message = self._control_in.decode(frames[0])
            now_ns = time.monotonic_ns()
            if isinstance(message, Hello):
                self._on_hello(identity, message, now_ns)
            elif isinstance(message, Heartbeat):
                self._on_heartbeat(identity, message, now_ns)
            elif isinstance(message, Command):
                self._react(self._session.heard(message.session, now_ns))
                self._on_command(identity, message, now_ns)

    def _drain_chunks(self) -> None:
        while True:
            try:
                data = self._chunks.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            chunk = cast(Chunk | None, self._chunks_in.decode(data))
            if chunk is not None:
                self._on_chunk(chunk)

    def _on_hello(self, identity: bytes, hello: Hello, now_ns: int) -> None:
        new = hello.session != self._session.session
        error = self._session.hello(hello, now_ns, self._driver.fault)
        if error:
            self._send(identity, Ack(hello.session, hello.sequence, error, self._session.mode.value, self._sequence))
            return
        if new:
            self._driver.brake()  # whatever the last client left behind does not go on
            self._chunk_order, self._pulse_order = InOrder(), InOrder()
            self._acks.clear()
            self._pending.clear()
            self._refused_in_a_row = 0
        driver = self._driver
        welcome = Welcome(
            hello.session, hello.sequence, VERSION, computer_id(), driver.name, driver.goal, dict(driver.rings)
        )
        self._send(identity, welcome)

    def _on_heartbeat(self, identity: bytes, beat: Heartbeat, now_ns: int) -> None:
        if beat.session != self._session.session or not self._pulse_order.accept(beat.sequence):
            self._counts["heartbeats dropped"] += 1
            return
        self._react(self._session.heard(beat.session, now_ns))
        self._send(identity, Pulse(beat.session, beat.sequence, beat.t_client_ns, now_ns))

    def _on_command(self, identity: bytes, command: Command, now_ns: int) -> None:
        if any(pending.command.sequence == command.sequence for pending in self._pending):
            return  # a repeated stop: it will be answered when the robot is at rest
        done = self._acks.get(command.sequence)
        if done is not None and command.session == self._session.session:
            self._send(identity, done)
            return
        error, reaction = self._session.command(command, now_ns, at_rest=self._driver.at_rest())
        self._react(reaction)
        if command.kind == "stop" and not error:
            self._pending.append(_PendingStop(identity, command, now_ns + REST_DEADLINE_NS))
        else:
            self._acknowledge(identity, command, error)

    def _on_chunk(self, chunk: Chunk) -> None:
        if not self._session.accepts_chunks(chunk.session):
            self._counts["chunks while not running"] += 1
            return
        if not self._chunk_order.accept(chunk.sequence):
            return
        actions = chunk.matrix()
        refusal = (
            "malformed actions"
            if actions is None
            else self._driver.push(actions, chunk.t0_ns, chunk.dt_ns, chunk.revision)
        )
        if refusal:
            self._refused_in_a_row += 1
            self._counts["chunks refused"] += 1
            self._last_refusal = refusal
        else:
            self._refused_in_a_row = 0
            self._revision = chunk.revision
            self._counts["chunks accepted"] += 1

    def _answer_stops(self, now_ns: int) -> None:
        if not self._pending:
            return
        at_rest = self._driver.at_rest()
        waiting = []
        for pending in self._pending:
            if at_rest:
                self._acknowledge(pending.identity, pending.command, "")
            elif now_ns > pending.deadline_ns:
                self._acknowledge(pending.identity, pending.command, "the robot has not come to rest within 2 s")
            else:
                waiting.append(pending)
        self._pending = waiting

    def _acknowledge(self, identity: bytes, command: Command, error: str) -> None:
        ack = Ack(command.session, command.sequence, error[:MAX_TEXT], self._session.mode.value, self._sequence)
        if command.session == self._session.session:
            self._acks[command.sequence] = ack
            while len(self._acks) > ACKS_KEPT:
                self._acks.popitem(last=False)
        self._send(identity, ack)

    def _react(self, reaction: Reaction) -> None:
        if reaction is Reaction.BRAKE:
            self._driver.brake()
        elif reaction is Reaction.FOLLOW:
            self._refused_in_a_row = 0
            self._driver.follow()
        elif reaction is Reaction.GO_HOME:
            self._driver.go_home()

    def _send(self, identity: bytes, message: Message) -> None:
        try:
            self._control.send_multipart([identity, encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError:  # the client is gone or does not read; its commands will be repeated or it is silent
            self._counts["answers dropped"] += 1

    def _publish_state(self) -> None:
        driver, session = self._driver, self._session
        t_ns, proprioception = driver.proprioception()
        status, reason = driver.outcome
        self._sequence += 1
        state = State(
            session.session or 0,
            self._sequence,
            t_ns,
            session.mode.value,
            proprioception[:ARM_JOINTS].tolist(),
            float(proprioception[ARM_JOINTS]),
            driver.remaining_ns() if session.mode is RobotMode.RUNNING else 0,
            self._revision,
            self._refused_in_a_row,
            status,
            reason[:MAX_TEXT],
            session.fault[:MAX_TEXT],
        )
        self._state.send(encode(state), zmq.NOBLOCK)

    def _publish_report(self) -> None:
        values, texts = self._driver.report()
        counts = self._counts + self._control_in.dropped + self._chunks_in.dropped
        counts += self._chunk_order.dropped + self._pulse_order.dropped
        values |= {name: float(count) for name, count in counts.items()}
        values["silences of the client"] = float(self._session.silences)
        if self._last_refusal:
            texts["last refusal"] = self._last_refusal
        self._sequence += 1
        self._state.send(encode(Report(self._session.session or 0, self._sequence, values, texts)), zmq.NOBLOCK)
