"""Every kind of breach, planted into a calm log at one millisecond of one joint, is found there and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from memrt.sim.doubles import limit_oracle
from memrt.sim.doubles.command_log import (
    CARTESIAN_POSITION,
    EXTERNAL_CONTROLLER,
    JOINT_IMPEDANCE,
    JOINT_POSITION,
    JOINT_VELOCITY,
    NO_GENERATOR,
    CommandLog,
    CommandRecorder,
)
from memrt.sim.doubles.limit_oracle import judge, main

HOME = np.array([0.0, -0.06, 0.0, -2.51, 0.0, 2.45, 0.79])
TORQUE = (EXTERNAL_CONTROLLER, NO_GENERATOR)
POSITION = (JOINT_IMPEDANCE, JOINT_POSITION)
SPEED = (JOINT_IMPEDANCE, JOINT_VELOCITY)
MS = 600
AT, JOINT = 300, 4  # where a breach is planted; joints count from 0 here, from 1 in a verdict


def calm(low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
    """One joint's way from `low` to `high` within 600 ms, minimum jerk: at most 5.2 rad/s², 167 rad/s³ per radian."""
    share = np.arange(MS) / (MS - 1)
    return low + (high - low) * share**3 * (10 - 15 * share + 6 * share**2)


def signal(joint: int = JOINT, low: float = 0.0, high: float = 0.3) -> NDArray[np.float64]:
    """Seven joints at rest but one, float64 [600, 7]; offsets, not angles."""
    values = np.zeros((MS, 7))
    values[:, joint] = calm(low, high)
    return values


def record(
    modes: tuple[int, int],
    commanded: NDArray[np.float64],
    *,
    measured: NDArray[np.float64] | None = None,
    measured_speed: NDArray[np.float64] | None = None,
    ids: NDArray[np.int64] | None = None,
    minutes: float = 0.1,
    cycle_ns: int = 1_000_000,
) -> CommandLog:
    recorder = CommandRecorder(minutes)
    nothing = np.zeros(7)
    for k, values in enumerate(commanded):
        q_c = values if modes[1] == JOINT_POSITION else nothing
        dq_c = values if modes[1] == JOINT_VELOCITY else nothing
        tau = values if modes[0] == EXTERNAL_CONTROLLER else nothing
        identity = int(ids[k]) if ids is not None else k + 1
        recorder.command(k * cycle_ns, identity, 1, modes, False, (*q_c, *dq_c, *tau))
        q = HOME if measured is None else measured[k]
        recorder.state(k * cycle_ns, tuple(q), tuple(nothing if measured_speed is None else measured_speed[k]))
    recorder.command(len(commanded), len(commanded) + 1, 1, modes, True, (0.0,) * 21)  # the client says it is done
    return recorder.snapshot()


def only(log: CommandLog, kind: str) -> limit_oracle.Breach:
    verdict = judge(log)
    assert {name for name, count in verdict.breaches.items() if count} == {kind}
    assert verdict.total == verdict.breaches[kind] >= 1
    return verdict.examples[0]


@pytest.mark.parametrize(
    ("modes", "values", "judged"),
    [
        (TORQUE, signal(high=5.0), {"torque", "torque rate"}),
        (POSITION, HOME + signal(), {"position", "speed", "acceleration", "jerk"}),
        (SPEED, signal(high=1.0), {"speed", "acceleration", "jerk"}),
    ],
)
def test_a_calm_motion_breaches_nothing(modes: tuple[int, int], values: NDArray[np.float64], judged: set[str]) -> None:
    verdict = judge(record(modes, values))
    assert verdict.total == 0
    assert verdict.examples == []
    assert (verdict.examined_ms, verdict.measured_ms, verdict.lost_cycles, verdict.unexamined_ms) == (MS, MS, 0, 0)
    assert set(verdict.breaches) == judged | {"measured position", "measured speed"}


@pytest.mark.parametrize(("joint", "limit"), [(0, 87.0), (6, 12.0)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_torque(joint: int, limit: float, sign: float) -> None:
    values = np.clip(np.arange(MS) * 0.5, 0.0, limit + 0.1)[:, None] * np.eye(7)[joint] * sign
    breach = only(record(TORQUE, values), "torque")
    assert breach.joint == joint + 1
    assert breach.value == pytest.approx(sign * (limit + 0.1))
    assert breach.limit == sign * limit


def test_torque_rate_and_the_limit_itself_is_allowed() -> None:
    values = np.clip(np.arange(MS) * 1.0, 0.0, 10.0)[:, None] * np.eye(7)[JOINT]
    assert judge(record(TORQUE, values)).total == 0
    values[AT:, JOINT] += 1.01
    breach = only(record(TORQUE, values), "torque rate")
    assert (breach.row, breach.joint, breach.limit) == (AT, JOINT + 1, 1000.0)
    assert breach.value == pytest.approx(1010.0)


def test_the_first_torque_of_a_motion_is_a_step_from_none() -> None:
    assert only(record(TORQUE, np.full((MS, 7), 1.5)), "torque rate").row == 0


def test_position() -> None:
    values = np.tile(HOME, (MS, 1))
    values[:, 0] = 2.745  # at rest there: near the end of the range every movement is too fast as well
    breach = only(record(POSITION, values), "position")
    assert (breach.row, breach.joint, breach.value, breach.limit) == (0, 1, 2.745, 2.7437)


def test_speed_of_a_position_command() -> None:
    share = np.arange(MS) * 1e-3
    speed = np.minimum(8.0 * share, 2.7)  # up to 2.7 rad/s at 8 rad/s², rounded off so that the jerk is small
    speed = np.convolve(np.pad(speed, (20, 20), "edge"), np.full(41, 1 / 41), "valid")
    speed -= speed[0]
    values = np.zeros((MS, 7)) + HOME
    values[:, 0] = -0.8 + np.cumsum(speed) * 1e-3
    breach = only(record(POSITION, values), "speed")
    assert (breach.joint, breach.limit) == (1, 2.62)


def test_speed_near_the_end_of_the_range() -> None:
    start = np.array([2.0, -0.06, 0.0, -2.51, 0.0, 2.45, 0.79])
    share = np.arange(MS) * 1e-3
    speed = np.minimum(4.0 * share, 1.8)
    speed = np.convolve(np.pad(speed, (20, 20), "edge"), np.full(41, 1 / 41), "valid") - 0.04
    values = np.zeros((MS, 7)) + start
    values[:, 0] = 2.0 + np.cumsum(np.maximum(speed, 0.0)) * 1e-3
    breach = only(record(POSITION, values), "speed")
    assert breach.limit < 1.8  # where the joint is; 2.62 in the middle of its range
    assert breach.value > breach.limit


def test_acceleration_of_a_position_command() -> None:
    share = np.arange(MS) * 1e-3
    wave = 0.5 * (1 - np.cos(2 * np.pi * share / 0.3)) * np.sign(np.sin(2 * np.pi * share / 0.6))
    values = HOME + np.cumsum(np.cumsum(10.5 * wave))[:, None] * 1e-6 * np.eye(7)[JOINT]
    assert only(record(POSITION, values), "acceleration").joint == JOINT + 1


def test_jerk_of_a_position_command() -> None:
    acceleration = np.zeros(MS)
    acceleration[AT : AT + 100], acceleration[AT + 100 : AT + 200] = 5.5, -5.5
    acceleration[AT + 100] = 0.0  # 5.5 down and 5.5 further down, not 11 at once: each is one breach
    values = HOME + np.cumsum(np.cumsum(acceleration))[:, None] * 1e-6 * np.eye(7)[JOINT]
    breach = only(record(POSITION, values), "jerk")
    assert (breach.row, breach.limit) == (AT, 5000.0)
    assert breach.value == pytest.approx(5500.0)


def test_a_step_in_position_breaks_every_derivative() -> None:
    values = HOME + signal()
    values[AT:, JOINT] += 0.1
    verdict = judge(record(POSITION, values))
    assert {kind for kind, count in verdict.breaches.items() if count} == {"speed", "acceleration", "jerk"}


def test_speed_acceleration_and_jerk_of_a_speed_command() -> None:
    assert only(record(SPEED, signal(joint=0, high=2.7)), "speed").limit == 2.62
    values = signal(high=0.5)
    values[AT:, JOINT] += 0.006  # 6 rad/s² for one cycle, and back
    breach = only(record(SPEED, values), "jerk")
    assert breach.row == AT
    faster = np.cumsum(np.minimum(np.arange(400) * 0.5, 10.2)) * 1e-3
    assert only(record(SPEED, faster[:, None] * np.eye(7)[JOINT]), "acceleration").limit == 10.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_a_breach(value: float) -> None:
    values = signal(high=5.0)
    values[AT, JOINT] = value
    verdict = judge(record(TORQUE, values))
    assert verdict.breaches["torque"] == 1
    assert verdict.breaches["torque rate"] == 2


def test_measured_position_and_speed_count_in_every_mode() -> None:
    measured = np.tile(HOME, (MS, 1))
    measured[AT, 3] = -0.15
    breach = only(record(TORQUE, signal(high=1.0), measured=measured), "measured position")
    assert (breach.row, breach.joint, breach.limit) == (AT, 4, -0.1518)
    speed = np.zeros((MS, 7))
    speed[AT, 5] = -4.2
    breach = only(record(TORQUE, signal(high=1.0), measured_speed=speed), "measured speed")
    assert (breach.joint, breach.limit) == (6, -4.18)


@pytest.mark.parametrize(
    ("cycle_ns", "speed", "breaches"),
    [(1_000_000, 2.7, 1), (900_000, 2.7, 1), (1_500_000, 3.9, 0), (1_500_000, 4.0, 1)],
)
def test_a_slow_double_moves_no_faster_than_real_time_asks(cycle_ns: int, speed: float, breaches: int) -> None:
    speeds = np.zeros((MS, 7))
    speeds[AT, 0] = speed  # limit 2.62
    verdict = judge(record(TORQUE, signal(high=1.0), measured_speed=speeds, cycle_ns=cycle_ns))
    assert verdict.breaches["measured speed"] == breaches


@pytest.mark.parametrize("modes", [POSITION, SPEED])
def test_a_cycle_without_a_command_is_filled_as_the_robot_fills_it(modes: tuple[int, int]) -> None:
    values = (HOME if modes == POSITION else 0.0) + signal(high=0.3)
    kept = np.arange(MS) != AT
    verdict = judge(record(modes, values[kept], ids=1 + np.flatnonzero(kept)))
    assert (verdict.lost_cycles, verdict.total) == (1, 0)
    kept = (np.arange(MS) < AT) | (np.arange(MS) >= AT + 40)  # longer than a robot goes on by itself
    assert judge(record(modes, values[kept], ids=1 + np.flatnonzero(kept))).breaches["jerk"] > 0


def test_of_two_answers_to_one_state_the_later_counts() -> None:
    values, ids = signal(high=5.0), np.arange(1, MS + 1)
    values, ids = np.insert(values, AT, 500.0, axis=0), np.insert(ids, AT, ids[AT])
    verdict = judge(record(TORQUE, values, ids=ids))
    assert (verdict.total, verdict.examined_ms) == (0, MS)


def test_what_cannot_be_judged_is_said() -> None:
    verdict = judge(record((JOINT_IMPEDANCE, CARTESIAN_POSITION), signal()))
    assert (verdict.examined_ms, verdict.unexamined_ms) == (0, MS)
    full = record(TORQUE, signal(high=5.0), minutes=0.005)
    assert judge(full).unexamined_ms == full.unrecorded == 2 * (MS - 300) + 1
    assert judge(CommandRecorder(0.01).snapshot()).examined_ms == 0


def test_a_motion_of_which_only_the_end_arrived_is_no_motion() -> None:
    recorder = CommandRecorder(0.01)
    recorder.command(0, 1, 1, TORQUE, True, (9.0,) * 21)
    assert judge(recorder.snapshot()).examined_ms == 0


def test_all_are_counted_and_the_first_are_told() -> None:
    verdict = judge(record(TORQUE, np.tile(np.arange(MS) % 2 * 2.0, (7, 1)).T))
    assert verdict.breaches["torque rate"] == 7 * (MS - 1)
    assert len(verdict.examples) == limit_oracle.BREACHES_TOLD


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.npz"
    record(TORQUE, signal(high=5.0)).save(path)
    assert main([str(path)]) == 0
    assert capsys.readouterr().out.endswith("0 breaches\n")
    record(TORQUE, np.full((MS, 7), 1.5)).save(path)
    assert main([str(path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["total"] == 7
    assert told["examples"][0]["joint"] == 1
    assert main([str(path)]) == 1
    assert "row 0, t 0 ns, joint 1: torque rate 1500, limit 1000" in capsys.readouterr().out
    CommandRecorder(0.01).snapshot().save(path)
    assert main([str(path)]) == 1  # nothing was commanded: nothing was shown


def test_no_log_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.npz")]) == 2
    np.savez(tmp_path / "other.npz", q=np.zeros(3))
    assert main([str(tmp_path / "other.npz")]) == 2
    np.savez(tmp_path / "old.npz", commands=np.zeros(3), states=np.zeros(3), unrecorded=0)
    assert main([str(tmp_path / "old.npz")]) == 2
    assert "another version" in capsys.readouterr().err
