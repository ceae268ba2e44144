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
from pathlib import Path

import zmq

from memrt.robot_io.action_spaces import ActionSpaces
from memrt.robot_io.bounds import ArmBounds
from memrt.robot_io.computer import computer_id
from memrt.robot_io.driver import AdjustableSpeed, Driver
from memrt.robot_io.link.chunk_gate import ChunkGate
from memrt.robot_io.link.endpoints import Endpoints
from memrt.robot_io.link.key_check import KeyCheck
from memrt.robot_io.link.keys import node_keys
from memrt.robot_io.link.publisher import Figures, Publisher
from memrt.robot_io.link.receiving import InOrder, Receiver, dropped, other_version
from memrt.robot_io.link.session import NO_SESSION, NodeSession, Reaction, Watchdog, refuse_version
from memrt.robot_io.link.sockets import open_socket
from memrt.robot_io.link.wire import (
    MAX_TEXT,
    VERSION,
    Ack,
    Command,
    Configure,
    Heartbeat,
    Hello,
    Message,
    Pulse,
    ToNode,
    Welcome,
    encode,
)
from memrt.runtime.clock import NS_PER_MS, NS_PER_S

ACKS_KEPT = 64  # answers remembered for repeated commands; a client has at most two commands under way
HELD_UP_NS = 20 * NS_PER_MS  # a round of this loop takes at most 10 ms of waiting and well below 1 ms of work
DELIVERY_MS = 5
REST_DEADLINE_NS = 2 * NS_PER_S  # an FR3 at full speed needs 0.5 s to come to rest
REST_SETTLES_NS = 200 * NS_PER_MS  # under joint impedance an arm comes to where its commands ended this much later
ENDING = "the node ends"
MESSAGES_PER_ROUND = 100  # of one socket: a flood must not keep the watchdog from looking. Worth 5 ms at most


@dataclass(slots=True)
class _PendingStop:
    identity: bytes
    command: Command
    deadline_ns: int


class RobotNode:
    """Serves one driver. `serve` blocks until `shutdown` is set and the arm is at rest, which it brings about."""

    def __init__(
        self,
        driver: Driver,
        endpoint: str,
        watchdog: Watchdog | None = None,
        *,
        keys: str | Path | None = None,
        spaces: ActionSpaces | None = None,
        bounds: ArmBounds | None = None,
    ) -> None:
        """Listen at `endpoint`; `keys` is the folder with the node's keys (`keys.py`).

        Without `spaces` it takes joint positions only, without `bounds` the driver alone judges them. Raises
        MemrtError when other computers can reach the endpoint and there are no keys, zmq.ZMQError when it is taken.
        """
        self._driver = driver
        self._session = NodeSession(watchdog or Watchdog())
        self._gate = ChunkGate(driver, self._session, spaces, bounds)
        self._receiver = Receiver(ToNode)
        self._command_order = InOrder()
        self._pulse_order = InOrder()
        self._acks: OrderedDict[int, Ack] = OrderedDict()
        self._pending: list[_PendingStop] = []
        self._counts: Counter[str] = Counter()
        self.shutdown = threading.Event()
        self._rest_by_ns: int | None = None
        self._resting_ns: int | None = None
        endpoints = Endpoints.of(endpoint)
        self._keys = node_keys(endpoint, keys)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._key_check = None if self._keys is None else KeyCheck(self._context, self._keys)
        try:
            self._control = self._bind(zmq.ROUTER, endpoints.control)
            self._chunks = self._bind(zmq.PULL, endpoints.chunks)
            state = self._bind(zmq.PUB, endpoints.state)
        except zmq.ZMQError:
            self._close()
            raise
        self._publisher = Publisher(state, driver, self._session, self._gate, self._figures)

    def serve(self) -> None:
        """Messages as they come, the watchdog and the state every 10 ms. After `shutdown`: FAULT, until at rest."""
        poller = zmq.Poller()
        poller.register(self._control, zmq.POLLIN)
        poller.register(self._chunks, zmq.POLLIN)
        now_ns = time.monotonic_ns()
        try:
            while not self._ended():
                # Rounded up: no busy waiting.
                wait_ms = max(0, -(-(self._publisher.next_state_ns - time.monotonic_ns()) // NS_PER_MS))
                poller.poll(wait_ms)
                # Silence is judged as of a time before the sockets are emptied: when this process itself was held up,
                # the heartbeats that waited meanwhile count, once ZMQ's own thread has had time to bring them.
                before_ns = time.monotonic_ns()
                if before_ns - now_ns > HELD_UP_NS:
                    poller.poll(DELIVERY_MS)
                self._take_control()
                self._take_chunks()
                fault = self._driver.fault or (ENDING if self.shutdown.is_set() else "")
                self._react(self._session.check(before_ns, fault))
                now_ns = time.monotonic_ns()
                self._answer_stops(now_ns)
                self._publisher.publish(now_ns)
        finally:
            self._driver.brake()
            self._close()

    def _ended(self) -> bool:
        """Whether there is nothing left to do after `shutdown`: the arm is at rest, or will not be."""
        if not self.shutdown.is_set():
            return False
        now_ns = time.monotonic_ns()
        if self._rest_by_ns is None:
            self._rest_by_ns = now_ns + REST_DEADLINE_NS
            return False  # it is braked in this round
        if not self._driver.at_rest():
            self._resting_ns = None
            return now_ns > self._rest_by_ns
        self._resting_ns = self._resting_ns or now_ns
        return now_ns - self._resting_ns > REST_SETTLES_NS

    def _close(self) -> None:
        if self._key_check is not None:
            self._key_check.close()
        self._context.destroy(linger=0)

    def _bind(self, kind: int, address: str) -> zmq.Socket[bytes]:
        socket = open_socket(self._context, kind, address, keys=self._keys)
        socket.bind(address)
        return socket

    def _take_control(self) -> None:
        for _ in range(MESSAGES_PER_ROUND):
            try:
                identity, *frames = self._control.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            now_ns = time.monotonic_ns()
            if len(frames) != 1:
                self._receiver.dropped["malformed"] += 1
                continue
            message = self._receiver.decode(frames[0])
            if isinstance(message, Hello):
                self._on_hello(identity, message, now_ns)
            elif isinstance(message, Heartbeat):
                self._on_heartbeat(identity, message, now_ns)
            elif isinstance(message, Command | Configure):
                self._on_command(identity, message, now_ns)
            elif greeting := other_version(frames[0]):
                self._refuse(identity, greeting.session, greeting.sequence, refuse_version(greeting.version))

    def _take_chunks(self) -> None:
        for _ in range(MESSAGES_PER_ROUND):
            try:
                data = self._chunks.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._gate.take(data, time.monotonic_ns())

    def _on_hello(self, identity: bytes, hello: Hello, now_ns: int) -> None:
        new = hello.session != self._session.session
        error = self._session.hello(hello, now_ns, self._driver.fault)
        if error:
            self._counts["hellos refused"] += 1
            self._refuse(identity, hello.session, hello.sequence, error)
            return
        if new:
            self._driver.brake()  # whatever the last client left behind does not go on
            self._gate.begin_session()
            for order in (self._command_order, self._pulse_order):
                self._receiver.dropped += order.dropped
            self._command_order, self._pulse_order = InOrder(), InOrder()
            self._acks.clear()
            self._pending.clear()
        driver = self._driver
        welcome = Welcome(
            *(hello.session, hello.sequence, VERSION, computer_id()),
            *(driver.name, driver.goal, dict(driver.rings), [*self._gate.spaces]),
            driver.highest_speed if isinstance(driver, AdjustableSpeed) else 0.0,
        )
        self._send(identity, welcome)

    def _on_heartbeat(self, identity: bytes, beat: Heartbeat, now_ns: int) -> None:
        if beat.session != self._session.session:
            self._receiver.dropped["foreign session"] += 1
        elif self._pulse_order.accept(beat.sequence):
            self._react(self._session.heard(beat.session, now_ns))
            self._send(identity, Pulse(beat.session, beat.sequence, beat.t_client_ns, now_ns))

    def _on_command(self, identity: bytes, command: Command | Configure, now_ns: int) -> None:
        if command.session != self._session.session:
            self._receiver.dropped["foreign session"] += 1
            self._refuse(identity, command.session, command.sequence, NO_SESSION)
            return
        self._react(self._session.heard(command.session, now_ns))
        if any(pending.command.sequence == command.sequence for pending in self._pending):
            return  # a repeated stop: it will be answered when the robot is at rest
        if done := self._acks.get(command.sequence):
            self._send(identity, done)
            return
        # A stop may come late, and is obeyed whenever it comes; all else is carried out in the order it was given in.
        stop = isinstance(command, Command) and command.kind == "stop"
        if not stop and not self._command_order.accept(command.sequence):
            self._refuse(identity, command.session, command.sequence, "a later command came in before this one")
            return
        if isinstance(command, Configure):
            self._acknowledge(identity, command, self._configure(command))
            return
        error, reaction = self._session.command(command, now_ns, at_rest=self._driver.at_rest())
        if reaction is Reaction.FOLLOW:
            self._gate.begin_to_follow(now_ns)
        self._react(reaction)
        if stop and not error:
            self._pending.append(_PendingStop(identity, command, now_ns + REST_DEADLINE_NS))
            del self._pending[:-ACKS_KEPT]
        else:
            self._acknowledge(identity, command, error)

    def _configure(self, wanted: Configure) -> str:
        """Do it, and return ""; or why it is refused."""
        driver = self._driver
        if not isinstance(driver, AdjustableSpeed):
            return "the limits of this robot are fixed"
        if wanted.speed > driver.highest_speed:
            return f"the node was started with a speed of {driver.highest_speed:g}, which is the highest"
        refusal = self._session.refuse_configuration(at_rest=self._driver.at_rest())
        if not refusal:
            driver.set_speed(wanted.speed)
            self._gate.set_speed(wanted.speed)
        return refusal

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

    def _acknowledge(self, identity: bytes, command: Command | Configure, error: str) -> None:
        ack = self._answer(command.session, command.sequence, error)
        self._acks[command.sequence] = ack
        while len(self._acks) > ACKS_KEPT:
            self._acks.popitem(last=False)
        self._send(identity, ack)

    def _refuse(self, identity: bytes, session: int, sequence: int, error: str) -> None:
        self._send(identity, self._answer(session, sequence, error))

    def _answer(self, session: int, sequence: int, error: str) -> Ack:
        return Ack(session, sequence, error[:MAX_TEXT], self._session.mode.value, self._publisher.sequence)

    def _react(self, reaction: Reaction) -> None:
        if reaction is Reaction.BRAKE:
            self._driver.brake()
        elif reaction is Reaction.FOLLOW:
            self._driver.follow()
        elif reaction is Reaction.GO_HOME:
            self._driver.go_home()

    def _send(self, identity: bytes, message: Message) -> None:
        try:
            self._control.send_multipart([identity, encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError:  # the client is gone or does not read; its commands will be repeated or it is silent
            self._counts["answers dropped"] += 1

    def _figures(self) -> Figures:
        values, texts = self._driver.report()
        chunk_values, chunk_texts = self._gate.report()
        control = self._receiver.dropped + self._command_order.dropped + self._pulse_order.dropped
        if self._key_check is not None:
            values["clients refused for their key"] = float(self._key_check.refused)
        ours = {**self._counts, **dropped("control", control), "silences of the client": self._session.silences}
        return {**values, **chunk_values, **{name: float(n) for name, n in ours.items()}}, {**texts, **chunk_texts}
