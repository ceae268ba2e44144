"""Twenty thousand damaged messages against the link's decoders, and as many against a node that serves.

MEMRT_FUZZ=1000000 pytest tests/robot_io/test_fuzz_link.py decodes a million, and throws a million at the node.
"""

import contextlib
import itertools
import threading
import time
from collections import Counter

import numpy as np
import pytest
import zmq
from arm_driver import HOME, Rig, eventually
from damage import damage, how_many
from wire_examples import CHUNK, CONTROL, STATE

from memrt.robot_io.link.endpoints import Endpoints
from memrt.robot_io.link.receiving import Receiver, other_version
from memrt.robot_io.link.streams import decode_chunk, decode_state, encode_chunk, encode_state
from memrt.robot_io.link.wire import FromNode, Report, ToNode, encode
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.types import ActionChunk, RobotMode

MESSAGES = how_many(20_000)
LARGE = encode_chunk(CHUNK)[:2] + b"\x80\x00" + encode_chunk(CHUNK)[4:64] + bytes(128 * 64)
ORIGINALS = [encode_chunk(CHUNK), encode_state(STATE), LARGE, *(encode(message) for message, _ in CONTROL.values())]
REASONS = {"malformed", "oversized", "wrong version"}


@pytest.mark.timeout(3600)
def test_damaged_messages_are_decoded_or_dropped():
    rng = np.random.default_rng(0)
    receivers = [Receiver(kinds) for kinds in (ToNode, FromNode, Report)]
    outcomes: Counter[str] = Counter()
    for index in range(MESSAGES):
        data = damage(rng, ORIGINALS[index % len(ORIGINALS)], ORIGINALS[int(rng.integers(len(ORIGINALS)))])
        for decode, again in ((decode_chunk, encode_chunk), (decode_state, encode_state)):
            decoded = decode(data)
            if isinstance(decoded, str):
                outcomes[decoded] += 1
            else:
                assert again(decoded) == data
                outcomes["whole"] += 1
        for receiver in receivers:
            message = receiver.decode(data)
            outcomes["whole" if message is not None else "dropped"] += 1
            assert message is None or receiver.decode(encode(message)) == message
        other_version(data)
    assert outcomes.total() == 5 * MESSAGES
    assert set(outcomes) <= {*REASONS, "whole", "dropped"}
    assert all(set(receiver.dropped) <= REASONS for receiver in receivers)
    assert outcomes["dropped"] == sum(receiver.dropped.total() for receiver in receivers)
    assert min(outcomes["whole"], outcomes["dropped"]) > MESSAGES / 50  # the damage is neither total nor without effect


class Storm:
    """Throws damaged messages at all three sockets of a node, from a thread, as fast as they are taken."""

    def __init__(self, endpoint: str, count: int) -> None:
        addresses = Endpoints.of(endpoint)
        self._context = zmq.Context()
        self._sockets = []
        # XSUB may send any bytes to a PUB; the others are what clients use.
        for kind, address in (
            (zmq.DEALER, addresses.control),
            (zmq.PUSH, addresses.chunks),
            (zmq.XSUB, addresses.state),
        ):
            socket = self._context.socket(kind)
            socket.connect(address)
            self._sockets.append(socket)
        self.left = count
        self.chunks = 0
        self._thread = threading.Thread(target=self._run, name="storm")
        self._thread.start()

    def _run(self) -> None:
        rng = np.random.default_rng(1)
        ready = [damage(rng, a, b) for a, b in itertools.product(ORIGINALS, ORIGINALS) for _ in range(40)] + ORIGINALS
        while self.left > 0:
            data = ready[int(rng.integers(len(ready)))]
            socket = self._sockets[self.left % 3]
            with contextlib.suppress(zmq.Again):
                # A subscription that begins with 1 stays in the node's memory until its sender goes: none of those.
                socket.send(b"\x02" + data if socket.type == zmq.XSUB else data, zmq.NOBLOCK)
                self.left -= 1
                self.chunks += socket.type == zmq.PUSH
                continue
            time.sleep(0.0002)

    def close(self) -> None:
        self.left = 0
        self._thread.join()
        self._context.destroy(linger=0)


def dropped_chunks(robot) -> float:
    return sum(count for name, count in robot.statistics.items() if name.startswith("chunks dropped"))


@pytest.mark.real_time
@pytest.mark.timeout(3600)
def test_a_node_in_a_storm_stands_still_and_stops_when_told(tmp_path):
    rig = Rig(tmp_path)
    storm = None
    try:
        robot = rig.client()
        robot.arm()
        pushed_at = rig.driver.proprioception()[1].copy()
        storm = Storm(rig.endpoint, MESSAGES)
        assert eventually(lambda: storm.left == 0, 3600)
        assert eventually(lambda: dropped_chunks(robot) == storm.chunks)  # the node has looked at each of them
        assert robot.statistics["chunks dropped: foreign session"] > 0
        assert robot.mode is RobotMode.RUNNING  # nobody else stopped it, or began a session
        assert not rig.driver.pushed
        assert rig.driver.homed == 0
        assert np.array_equal(rig.driver.proprioception()[1], pushed_at)
        storm.close()

        storm = Storm(rig.endpoint, 10**9)  # until closed
        actions = np.tile(np.append(HOME, 1.0), (16, 1))
        actions[:, 0] = np.linspace(0, 1.0, 16)
        robot.send(ActionChunk(actions, time.monotonic_ns() + 500 * NS_PER_MS, 500 * NS_PER_MS, 1))  # 8 s long
        assert eventually(lambda: rig.driver.proprioception()[1][0] > 0.02)
        robot.stop()  # answered once the arm is at rest
        assert rig.driver.at_rest()
        assert robot.mode is RobotMode.STOPPED
        stopped_at = rig.driver.proprioception()[1].copy()
        assert 0.02 < stopped_at[0] < 0.9
        assert storm.left > 0
        storm.close()
        storm = None
        assert np.array_equal(rig.driver.proprioception()[1], stopped_at)
        assert len(rig.driver.pushed) == 1
        robot.resume()
        assert robot.mode is RobotMode.RUNNING
    finally:
        if storm is not None:
            storm.close()
        rig.close()
