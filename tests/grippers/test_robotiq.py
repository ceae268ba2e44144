"""The Robotiq driver against a Modbus RTU server on a pseudo-terminal."""

import time

import pytest

pytest.importorskip("minimalmodbus")
pytest.importorskip("pymodbus")

from robotiq_double import Robotiq2F85, RobotiqServer

from memrt.robot_io.grippers import robotiq
from memrt.robot_io.grippers.robotiq import open_robotiq
from memrt.robot_io.grippers.settings import GripperConfig
from memrt.runtime.errors import MemrtError

pytestmark = pytest.mark.real_time

SOON_S = 0.05  # how long an answer is waited for that will not come


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Here the gripper is a thread of this process: a busy computer holds its answers up as no gripper would."""
    monkeypatch.setattr(robotiq, "ANSWER_S", 5.0)


def eventually(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@pytest.fixture
def server():
    made = RobotiqServer(Robotiq2F85())
    yield made
    made.close()


def config(server: RobotiqServer, **settings) -> GripperConfig:
    return GripperConfig(kind="robotiq", path=server.path, **settings)


@pytest.fixture
def gripper(server):
    made = open_robotiq("arm", config(server, speed=0.8, force=0.2))
    yield made
    made.close()


def test_it_is_activated_and_goes_where_it_is_told(server, gripper):
    assert server.gripper.activations == 1
    for opening in (0.0, 1.0, 0.25):
        gripper.move(opening)
        assert eventually(lambda wanted=opening: abs(gripper.opening - wanted) < 0.005)
    assert [request[0] for request in server.gripper.requests] == [255, 0, 173]
    assert {request[1:] for request in server.gripper.requests} == {(204, 51)}
    assert gripper.fault == ""


def test_the_fingers_stop_at_an_object_and_that_is_no_fault(server, gripper):
    gripper.move(1.0)
    assert eventually(lambda: gripper.opening == 1.0)
    server.gripper.obstacle = 120
    gripper.move(0.0)
    assert eventually(lambda: gripper.opening == pytest.approx(110 / 227))
    gripper.move(1.0)
    assert eventually(lambda: gripper.opening == 1.0)
    assert gripper.fault == ""


def test_of_several_commands_the_newest_counts_and_none_waits(server, gripper):
    for step in range(1000):
        gripper.move(step % 2 * 0.5)
    gripper.move(0.75)
    assert len(server.gripper.requests) < 500, "1001 commands of a cycle each, had one of them been waited for"
    assert eventually(lambda: abs(gripper.opening - 0.75) < 0.005)
    assert len(server.gripper.requests) < 500


def test_an_active_gripper_is_left_as_it_is(server, gripper):
    gripper.move(0.4)
    assert eventually(lambda: abs(gripper.opening - 0.4) < 0.005)
    gripper.close()
    again = open_robotiq("arm", config(server))
    try:
        assert server.gripper.activations == 1
        assert eventually(lambda: abs(again.opening - 0.4) < 0.005)
    finally:
        again.close()


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (lambda double: setattr(double, "fault", 0x08), "too hot"),
        (lambda double: setattr(double, "fault", 0x0A), "below its minimum"),
        (lambda double: double.lose_power(), "lost its activation"),
    ],
)
def test_trouble_is_a_fault_in_words(server, gripper, trouble, words):
    trouble(server.gripper)
    assert eventually(lambda: gripper.fault)
    assert words in gripper.fault


def test_lasting_silence_is_a_fault_in_words(server, gripper):
    gripper._instrument.serial.timeout = SOON_S
    server.gripper.mute = True
    assert eventually(lambda: gripper.fault)
    assert "does not answer" in gripper.fault


def test_one_lost_answer_is_no_fault_and_the_command_is_repeated(server, gripper, monkeypatch):
    monkeypatch.setattr(robotiq, "SILENT_CYCLES", 1000)  # nobody knows how many this computer makes of one
    gripper._instrument.serial.timeout = SOON_S
    server.gripper.mute = True
    gripper.move(0.0)
    assert eventually(lambda: server.gripper.requests)
    server.gripper.mute = False
    assert eventually(lambda: gripper.opening == 0.0)
    assert gripper.fault == ""


def test_silence_at_the_start_is_refused_in_one_line(server, monkeypatch):
    monkeypatch.setattr(robotiq, "ANSWER_S", SOON_S)
    server.gripper.mute = True
    with pytest.raises(MemrtError, match="switch the gripper on") as refusal:
        open_robotiq("arm", config(server))
    assert "\n" not in str(refusal.value)


def test_a_fault_of_before_is_cleared_by_activating_anew(server):
    server.gripper.fault = 0x0E
    gripper = open_robotiq("arm", config(server))
    try:
        assert (server.gripper.activations, gripper.fault) == (1, "")
    finally:
        gripper.close()


def test_an_adapter_that_is_not_there_is_refused_with_what_is_there(tmp_path):
    with pytest.raises(MemrtError, match=r"correct `gripper\.path`"):
        open_robotiq("arm", GripperConfig(kind="robotiq", path=str(tmp_path / "ttyUSB9")))
