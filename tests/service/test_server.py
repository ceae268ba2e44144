"""The service with its real threads: it starts disarmed, arms on a word and on nothing else, and says what is wrong."""

import time

import pytest
from manager import Manager, eventually
from swinging_parts import Running, SwingingParts

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.runtime.service import health, server
from memrt.runtime.service.notify import Notifier
from memrt.runtime.service.server import PolicyFailedError
from memrt.runtime.types import RobotMode


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(server, "RETRY_S", 0.05)
    monkeypatch.setattr(health, "FRESH_WITHIN_S", 0.3)


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path)
    yield manager
    manager.close()


def test_it_comes_up_disarmed_and_healthy_and_tells_systemd(manager):
    with Running(SwingingParts(), Notifier(manager.address, 2.0)) as running:
        assert running.reaches("disarmed")
        status = running.status()
        assert status["health"]["healthy"]
        asked = [check["what"] for check in status["health"]["checks"]]
        assert asked == ["engine swing", "cameras", "low level: observation to chunk"]
        (robot,) = running.parts.sessions
        assert (robot.mode, robot.sent) == (RobotMode.DISARMED, [])
        said = manager.said()
        assert said.index("STATUS=loading") < said.index("READY=1") < said.index("STATUS=disarmed")
        assert eventually(lambda: manager.said().count("WATCHDOG=1") > 2)
    assert running.error is None
    assert manager.said()[-1] == "STOPPING=1"


def test_arming_moves_the_robot_a_stop_holds_it_and_disarming_begins_another_session():
    with Running(SwingingParts()) as running:
        assert running.reaches("disarmed")
        running.ask("arm")
        robot = running.parts.sessions[-1]
        assert eventually(lambda: len(robot.sent) > 2)
        assert running.status()["phase"] == "running"
        assert running.status()["goal"] == "swing"
        running.ask("stop")
        assert robot.mode is RobotMode.STOPPED
        assert (running.status()["phase"], running.status()["reason"]) == ("held", "stopped by the operator")
        sent = len(robot.sent)
        running.ask("resume")
        assert eventually(lambda: len(robot.sent) > sent + 2)
        running.ask("disarm")
        assert robot.mode is RobotMode.STOPPED
        assert running.status()["phase"] != "running"
        assert running.reaches("disarmed")
        assert running.parts.sessions[-1] is not robot
        assert running.parts.sessions[-1].mode is RobotMode.DISARMED
        last = running.status()["last_run"]
        assert (last["goal"], last["outcome"]) == ("swing", "stopped")
        assert running.parts.recordings[0].record.status == "stopped"
        running.ask("arm", "swing again")
        assert running.status()["goal"] == "swing again"


def test_what_is_asked_out_of_turn_is_refused():
    with Running(SwingingParts()) as running:
        assert running.reaches("disarmed")
        for verb in ("stop", "resume", "home", "goal"):
            with pytest.raises(MemrtError, match="expected a run, found disarmed"):
                running.ask(verb)
        running.ask("disarm")  # it is
        running.ask("arm")
        with pytest.raises(MemrtError, match="found running"):
            running.ask("arm")
        with pytest.raises(MemrtError, match="give a sentence"):
            running.ask("goal", " ")
        running.ask("goal", "swing slowly")
        assert running.status()["goal"] == "swing slowly"


def test_without_a_goal_nothing_is_armed():
    parts = SwingingParts()
    parts.goal = ""
    with Running(parts) as running:
        assert running.reaches("disarmed")
        with pytest.raises(MemrtError, match="memrt service arm --goal"):
            running.ask("arm")
        assert running.reaches("disarmed")
        assert all(robot.sent == [] and robot.mode is RobotMode.DISARMED for robot in parts.sessions)


def test_a_robot_that_refuses_to_arm_is_the_operators_to_read_and_not_the_end(monkeypatch):
    with Running(SwingingParts()) as running:
        assert running.reaches("disarmed")

        def refuse():
            raise MemrtError("robot command `arm`", expected="a known clock", found="none", fix="wait")

        running.parts.sessions[-1].arm = refuse
        with pytest.raises(MemrtError, match="a known clock"):
            running.ask("arm")
        assert eventually(lambda: len(running.parts.sessions) > 1)
        assert running.reaches("disarmed")
        running.ask("arm")


def test_a_robot_that_is_not_there_is_waited_for(manager):
    parts = SwingingParts()
    parts.away = "nothing"
    with Running(parts, Notifier(manager.address, 2.0)) as running:
        assert eventually(lambda: "found nothing" in running.status()["reason"])
        assert running.status()["phase"] == "waiting"
        assert running.status()["health"] is None
        assert "READY=1" in manager.said()  # the bundle is well; a robot that is switched off fails no unit
        with pytest.raises(MemrtError, match="found waiting"):
            running.ask("arm")
        parts.away = ""
        assert running.reaches("disarmed")
    assert running.error is None


def test_a_camera_without_pictures_keeps_it_from_arming_until_they_come():
    parts = SwingingParts(camera_stale_ns=NS_PER_S // 10, camera_lost_ns=20 * NS_PER_S)
    parts.camera_works = False
    with Running(parts) as running:
        assert running.reaches("unhealthy")
        assert "front" in running.status()["reason"]
        assert running.status()["health"]["healthy"] is False
        with pytest.raises(MemrtError, match="unhealthy: cameras"):
            running.ask("arm")
        parts.camera_works = True
        assert running.reaches("disarmed")


def test_a_fault_ends_the_run_and_nothing_goes_on_by_itself():
    with Running(SwingingParts()) as running:
        assert running.reaches("disarmed")
        running.ask("arm")
        robot = running.parts.sessions[-1]
        robot.mode, robot.fault_reason = RobotMode.FAULT, "reflex"
        assert eventually(lambda: len(running.parts.sessions) > 1)
        assert running.reaches("disarmed")
        assert running.status()["last_run"]["reason"] == "reflex"
        sent = len(robot.sent)
        time.sleep(0.3)
        assert len(robot.sent) == sent
        assert running.parts.sessions[-1].sent == []


def test_a_fault_while_it_stands_by_is_said_and_another_session_is_tried():
    with Running(SwingingParts()) as running:
        assert running.reaches("disarmed")
        robot = running.parts.sessions[-1]
        robot.mode, robot.fault_reason = RobotMode.FAULT, "the brake is open"
        assert eventually(lambda: any("the brake is open" in line for line in running.lines))
        assert running.reaches("disarmed")


def test_a_policy_that_hangs_starves_the_watchdog(manager):
    parts = SwingingParts()
    with Running(parts, Notifier(manager.address, 1.0), hang_s=1.0) as running:
        assert running.reaches("disarmed")
        running.ask("arm")
        act = parts.low_level.act
        parts.low_level.act = lambda *a, **more: (time.sleep(3), act(*a, **more))[1]
        assert eventually(lambda: "WATCHDOG=trigger" in manager.said())
        said = manager.said()
        assert any(line.startswith("STATUS=stuck: low level for ") for line in said)
        assert said.count("WATCHDOG=trigger") == 1
        assert "WATCHDOG=1" not in said[said.index("WATCHDOG=trigger") :]


def test_a_policy_that_raises_ends_the_service_with_the_arm_at_rest():
    parts = SwingingParts()
    with Running(parts) as running:
        assert running.reaches("disarmed")
        running.ask("arm")
        robot = parts.sessions[-1]

        def broken(*_, **__):
            raise MemrtError("engine", expected="numbers", found="none", fix="export again")

        parts.low_level.act = broken
        assert running.ended()
    assert isinstance(running.error, PolicyFailedError)
    assert "export again" in str(running.error)
    assert robot.mode is RobotMode.STOPPED


def test_a_bundle_that_must_not_run_is_refused_before_it_is_ready(manager):
    parts = SwingingParts()
    parts.refused = MemrtError("ll/step", expected="its golden outputs", found="others", fix="do not arm")
    with Running(parts, Notifier(manager.address, 2.0)) as running:
        assert running.ended()
    assert running.error is parts.refused
    assert "READY=1" not in manager.said()
    assert parts.sessions == []


def test_the_end_of_the_service_is_the_end_of_the_run():
    with Running(SwingingParts()) as running:
        assert running.reaches("disarmed")
        running.ask("arm")
        robot = running.parts.sessions[-1]
        assert eventually(lambda: robot.sent)
    assert robot.mode is RobotMode.STOPPED
    assert running.parts.closed == len(running.parts.sessions) == 1
    assert running.error is None
