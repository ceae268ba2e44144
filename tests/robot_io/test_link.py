"""Client and node over real sockets: commands are acknowledged, chunks arrive, bad messages change nothing."""

import time

import msgspec
import numpy as np
import pytest
import zmq
from arm_driver import HOME, ArmDriver, Rig, eventually

from memrt.robot_io.link import client
from memrt.robot_io.link.endpoints import Endpoints
from memrt.robot_io.link.session import Watchdog
from memrt.robot_io.link.streams import Chunk, decode_state, encode_chunk, is_stream
from memrt.robot_io.link.wire import VERSION, Ack, Command, Configure, Hello, Report, Welcome, encode
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ActionChunk, ActionSpace, RobotMode

pytestmark = pytest.mark.real_time

DT_NS = 50 * NS_PER_MS


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    yield made
    made.close()


def chunk(first_joint: float, revision: int = 1, dt_ns: int = DT_NS) -> ActionChunk:
    actions = np.tile(np.append(HOME, 1.0), (16, 1))
    actions[:, 0] = np.linspace(0, first_joint, 16)
    return ActionChunk(actions, time.monotonic_ns() + 2 * DT_NS, dt_ns, revision)


def test_a_session_from_arming_to_a_stop_that_is_at_rest(rig):
    robot = rig.client()
    assert (robot.mode, robot.goal) == (RobotMode.DISARMED, "hold still")
    robot.arm()
    assert robot.mode is RobotMode.RUNNING
    robot.send(chunk(2.0, dt_ns=10 * DT_NS))  # takes 8 s
    assert eventually(lambda: rig.driver.proprioception()[1][0] > 0.1)
    robot.stop()
    assert robot.mode is RobotMode.STOPPED
    assert rig.driver.at_rest()
    stopped_at = rig.driver.proprioception()[1][0]
    assert 0.1 < stopped_at < 2.0
    robot.send(chunk(-0.3))
    assert eventually(lambda: robot.statistics.get("chunks while not running") == 1)
    assert rig.driver.proprioception()[1][0] == stopped_at
    robot.resume()
    assert robot.mode is RobotMode.RUNNING


def test_a_chunk_arrives_as_it_was_sent(rig):
    robot = rig.client()
    robot.arm()
    sent = chunk(0.2, revision=9)
    robot.send(sent)
    assert eventually(lambda: rig.driver.pushed)
    actions, t0_ns, dt_ns, revision = rig.driver.pushed[0]
    assert np.array_equal(actions, sent.actions)
    assert (t0_ns, dt_ns, revision) == (sent.t0_ns, sent.dt_ns, 9)


def test_an_observation_pairs_the_frame_with_the_proprioception_of_its_time(rig):
    robot = rig.client()
    robot.arm()
    robot.send(chunk(0.4))
    assert eventually(lambda: rig.driver.proprioception()[1][0] > 0.1)
    rig.driver.take_picture(3)
    taken_at = rig.driver.proprioception()[1][0]
    assert eventually(lambda: robot.observe().frames["front"].index == 3)
    time.sleep(0.1)  # the arm goes on; the observation stays with its frame
    observation = robot.observe()
    assert observation.t_ns == observation.frames["front"].t_ns
    assert (observation.frames["front"].image == 3).all()
    assert observation.proprioception[0] == pytest.approx(taken_at, abs=0.05)


def test_the_limits_refuse_a_chunk_and_the_client_learns_it(rig):
    robot = rig.client()
    robot.arm()
    wild = chunk(0.0)
    wild.actions[:, 3] = 10.0
    for count in (1, 2):
        robot.send(wild)
        assert eventually(lambda count=count: robot.refused_in_a_row == count)
    robot.send(chunk(0.1))
    assert eventually(lambda: robot.refused_in_a_row == 0)


def test_home_needs_a_stopped_robot(rig):
    robot = rig.client()
    robot.arm()
    with pytest.raises(MemrtError, match="stop the robot first"):
        robot.home()
    robot.stop()
    robot.home()
    assert rig.driver.homed == 1


def test_the_limits_of_speed_are_configured_while_the_arm_stands(rig):
    robot = rig.client()
    robot.configure(speed=0.1)
    robot.configure(speed=1.0)  # the node allows 0.8
    assert rig.driver.speeds == [0.1, 0.8]
    robot.configure(speed=0.1)
    robot.arm()
    with pytest.raises(MemrtError, match="stop the robot first"):
        robot.configure(speed=0.5)
    robot.send(chunk(2.0))  # 2 rad in 0.8 s
    assert eventually(lambda: rig.driver.proprioception()[1][0] > 0.1)
    speeds = [abs(rig.driver.control.command()[1][0]) for _ in range(50) if not time.sleep(0.002)]
    assert 0 < max(speeds) <= 0.262  # a tenth of an FR3's 2.62 rad/s
    robot.stop()
    robot.configure(speed=0.5)
    assert rig.driver.speeds[-1] == 0.5


def test_a_robot_without_adjustable_limits_keeps_them(rig, raw, monkeypatch):
    monkeypatch.delattr(ArmDriver, "set_speed")
    welcome = raw.ask(encode(Hello(5, 1, VERSION, "here")))
    assert welcome.speed == 0
    assert "fixed" in raw.ask(encode(Configure(5, 2, 0.5))).error


def test_a_second_client_is_refused_while_the_first_lives(rig):
    rig.client()
    with pytest.raises(MemrtError, match="another client"):
        rig.client()


def test_a_client_on_another_computer_times_its_chunks_by_the_heartbeats(rig, monkeypatch):
    monkeypatch.setattr(client, "computer_id", lambda: "another")
    robot = rig.client()
    robot.arm()
    assert robot.observe().frames == {}  # shared memory does not reach that far
    estimate = robot._clock()
    assert abs(estimate.offset_ns) <= estimate.uncertainty_ns  # in truth it is one clock
    sent = chunk(0.2)
    robot.send(sent)
    assert eventually(lambda: rig.driver.pushed)
    assert abs(rig.driver.pushed[0][1] - sent.t0_ns) <= 2 * 5 * NS_PER_MS
    assert robot.statistics["clock uncertainty [ms]"] <= 5


@pytest.mark.parametrize("align_to", [None, "front"])
def test_cameras_of_ones_own_computer_go_with_an_arm_elsewhere(rig, monkeypatch, align_to):
    monkeypatch.setattr(client, "computer_id", lambda: "another")
    robot = rig.client(rings=rig.driver.rings, align_to=align_to)
    robot.arm()
    robot.send(chunk(0.4))
    assert eventually(lambda: rig.driver.proprioception()[1][0] > 0.1)
    rig.driver.take_picture(3)
    taken_at = rig.driver.proprioception()[1][0]
    assert eventually(lambda: robot.observe().frames["front"].index == 3)
    time.sleep(0.1)
    observation = robot.observe()
    assert observation.t_ns == observation.frames["front"].t_ns  # the local clock's
    assert observation.proprioception[0] == pytest.approx(taken_at, abs=0.05)
    assert observation.history is not None


def test_a_camera_whose_frames_do_not_come_that_far_is_named(rig, monkeypatch):
    monkeypatch.setattr(client, "computer_id", lambda: "another")
    with pytest.raises(MemrtError, match="none has frames on this computer"):
        rig.client(align_to="front")


def test_nobody_there_is_one_clear_refusal(tmp_path):
    from memrt.robot_io.link.client import LinkRobot

    with pytest.raises(MemrtError, match="no answer from the robot"):
        LinkRobot(f"ipc://{tmp_path}/nobody", connect_ms=200)


def test_a_fault_of_the_driver_stops_everything_and_is_named(rig):
    robot = rig.client()
    robot.arm()
    rig.driver.fault = "joint 3 reflex"
    assert eventually(lambda: robot.mode is RobotMode.FAULT)
    assert robot.fault_reason == "joint 3 reflex"
    for refused in (robot.resume, robot.arm):
        with pytest.raises(MemrtError, match="joint 3 reflex"):
            refused()


class Raw:
    """A client that writes its own bytes."""

    def __init__(self, endpoint: str) -> None:
        addresses = Endpoints.of(endpoint)
        self.context = zmq.Context()
        self.control, self.chunks = self.context.socket(zmq.DEALER), self.context.socket(zmq.PUSH)
        self.control.connect(addresses.control)
        self.chunks.connect(addresses.chunks)

    def ask(self, data: bytes):
        self.control.send(data)
        assert self.control.poll(20_000)
        return msgspec.msgpack.decode(self.control.recv(), type=Ack | Welcome)

    def close(self) -> None:
        self.context.destroy(linger=0)


@pytest.fixture
def raw(rig):
    made = Raw(rig.endpoint)
    yield made
    made.close()


def test_a_repeated_command_is_answered_again_and_done_once(rig, raw):
    assert isinstance(raw.ask(encode(Hello(5, 1, VERSION, "here"))), Welcome)
    first = raw.ask(encode(Command(5, 2, "home", 0)))
    again = raw.ask(encode(Command(5, 2, "home", 0)))
    assert first == again
    assert rig.driver.homed == 1


def raw_chunk(**changes) -> bytes:
    """A chunk that holds still a second from now, sent by session 5."""
    now_ns = time.monotonic_ns()
    fields = {
        **{"session": 5, "sequence": 1, "sent_ns": now_ns, "deadline_ns": now_ns + 2 * NS_PER_S, "revision": 1},
        **{"t0_ns": now_ns + NS_PER_S, "dt_ns": DT_NS, "space": ActionSpace.JOINT_POSITION},
        "actions": np.append(HOME, 1.0)[None],
    }
    return encode_chunk(Chunk(**fields | changes))


def test_bad_messages_change_nothing_and_are_counted(rig, raw):
    assert isinstance(raw.ask(encode(Hello(5, 1, VERSION, "here"))), Welcome)
    before_ns = time.monotonic_ns()
    assert raw.ask(encode(Command(5, 2, "arm", 0))).error == ""
    junk = (b"", b"\xff\xfe", b"\x00" * 70_000, msgspec.msgpack.encode(["command", 5, 9, "arm"]), b"\x01\x09")
    for data in junk:
        raw.control.send(data)
        raw.chunks.send(data)
    raw.control.send_multipart([b"two", b"frames"])
    raw.control.send(msgspec.msgpack.encode(["heartbeat", 6, 1, 0]))
    assert "say hello first" in raw.ask(encode(Command(6, 1, "stop", 1))).error
    raw.chunks.send(raw_chunk(sequence=3))
    raw.chunks.send(raw_chunk(sequence=3))
    raw.chunks.send(raw_chunk(sequence=2))
    raw.chunks.send(raw_chunk(session=6, sequence=4))
    raw.chunks.send(raw_chunk(sequence=4, sent_ns=before_ns - NS_PER_S))
    raw.chunks.send(raw_chunk(sequence=5, deadline_ns=time.monotonic_ns() - 1))
    raw.chunks.send(raw_chunk(sequence=6, space=ActionSpace.CARTESIAN_POSE))
    raw.chunks.send(raw_chunk(sequence=7, actions=np.full((1, 8), np.nan)))
    assert eventually(lambda: rig.node._figures()[0].get("chunks refused") == 2)
    assert [sent[3] for sent in rig.driver.pushed] == [1, 1]
    assert np.isnan(rig.driver.pushed[1][0]).all()  # the driver refuses those
    figures = rig.node._figures()[0]
    assert {name: count for name, count in figures.items() if "dropped" in name} == {
        "control dropped: malformed": 5,
        "control dropped: oversized": 1,
        "control dropped: foreign session": 2,
        "chunks dropped: malformed": 3,
        "chunks dropped: oversized": 1,
        "chunks dropped: wrong version": 1,
        "chunks dropped: duplicate": 1,
        "chunks dropped: old": 1,
        "chunks dropped: foreign session": 1,
        "chunks dropped: sent before arming": 1,
        "chunks dropped: past deadline": 1,
    }
    assert rig.node._gate.refused_in_a_row == 3  # so that the client knows: too late, a space too many, no numbers
    assert raw.ask(encode(Command(5, 3, "arm", 0))).mode == "running"


def test_a_command_that_was_overtaken_is_refused_but_a_stop_never_is(rig, raw):
    raw.ask(encode(Hello(5, 1, VERSION, "here")))
    assert raw.ask(encode(Command(5, 9, "arm", 0))).mode == "running"
    assert raw.ask(encode(Command(5, 8, "stop", 1))).mode == "stopped"
    assert "a later command" in raw.ask(encode(Command(5, 7, "resume", 1))).error
    assert rig.driver.control.stopped


def test_another_version_is_refused_in_words(raw):
    answer = raw.ask(encode(Hello(5, 1, VERSION + 1, "here")))
    assert isinstance(answer, Ack)
    assert f"version {VERSION}" in answer.error
    later = msgspec.msgpack.encode(["hello", 5, 1, VERSION + 1, {"of": "another shape"}])
    assert raw.ask(later).error == answer.error


def test_silence_brakes_the_arm_and_then_ends_the_session(tmp_path):
    rig = Rig(tmp_path, Watchdog(50 * NS_PER_MS, 200 * NS_PER_MS))
    raw, listener = Raw(rig.endpoint), zmq.Context()
    try:
        state = listener.socket(zmq.SUB)
        state.connect(Endpoints.of(rig.endpoint).state)
        state.subscribe(b"")
        raw.ask(encode(Hello(5, 1, VERSION, "here")))
        raw.ask(encode(Command(5, 2, "arm", 0)))  # and then not one heartbeat
        modes = []
        while "fault" not in modes:
            assert state.poll(20_000)
            data = state.recv()
            if is_stream(data):
                modes.append(decode_state(data).mode.value)
            else:
                fault = msgspec.msgpack.decode(data, type=Report).fault
        assert "silent for" in fault  # said before the state that it explains
        assert rig.driver.control.stopped
        assert "has ended" in raw.ask(encode(Command(5, 3, "resume", 0))).error
    finally:
        listener.destroy(linger=0)
        raw.close()
        rig.close()
