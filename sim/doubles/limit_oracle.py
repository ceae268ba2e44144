"""`python -m memrt.sim.doubles.limit_oracle LOG.npz`: counts breaches of an FR3's limits in what was commanded.

Small and on its own: it shares no code and no constant with what produces the commands. Position commands are judged by
range, speed, acceleration and jerk, torques by size and rate, and in every mode the measured joints by range and speed.
Derivatives are backward differences at 1 ms, as the robot takes them, and a cycle without a command is filled as the
robot fills it: with constant acceleration, or by holding the last torque. A double that cannot keep up moves further in
each of its own milliseconds than a robot would: measured speeds are taken per millisecond of real time, by which the
motion was asked for.

Sources: limits of the FR3, https://frankarobotics.github.io/docs/robot_specifications.html; speed near the end of a
joint's range, libfranka's `rate_limiting.h` (computeUpperLimitsJointVelocity); cycles without a command,
libfranka's documentation, "Packet Handling".
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.sim.doubles.command_log import (
    CARTESIAN_POSITION,
    CARTESIAN_VELOCITY,
    EXTERNAL_CONTROLLER,
    JOINT_POSITION,
    JOINT_VELOCITY,
    CommandLog,
)

DT = 1e-3  # [s], one control cycle
POSITION_MIN = np.array([-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159])  # [rad]
POSITION_MAX = np.array([2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159])
SPEED_MAX = np.array([2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26])  # [rad/s]
SPEED_OFFSET = np.array([0.30, 0.20, 0.20, 0.30, 0.35, 0.35, 0.35])  # [rad/s]
DECELERATION = np.array([6.0, 2.585, 3.5, 4.0, 17.0, 5.5, 17.0])  # [rad/s²], for the speed near the end of the range
ENVELOPE_MIN = np.array([-2.7501, -1.7918, -2.9065, -3.0481, -2.8101, 0.54092, -3.0196])  # [rad], its ends
ENVELOPE_MAX = np.array([2.7501, 1.7918, 2.9065, -0.1458, 2.8101, 4.5205, 3.0196])
ACCELERATION_MAX = np.full(7, 10.0)  # [rad/s²]
JERK_MAX = np.full(7, 5000.0)  # [rad/s³]
TORQUE_MAX = np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0])  # [N m]
TORQUE_RATE_MAX = np.full(7, 1000.0)  # [N m/s]
ROUNDING = 1e-6  # relative: what differencing doubles three times at 1 ms leaves of the last bits
PACE_CYCLES = 100  # over which a double's pace is taken: longer than a hiccup, shorter than a motion
LONGEST_GAP = 20  # cycles; after as many without a command the robot has stopped by itself
BREACHES_TOLD = 20  # of each kind; all are counted


@dataclass(frozen=True, slots=True)
class Breach:
    """One value beyond its limit: in which row of the log (`commands`, or `states` for measured ones), of which joint.

    `joint` counts from 1 as the manufacturer does; `t_ns` is the time in the log.
    """

    kind: str
    row: int
    t_ns: int
    joint: int
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """`breaches` counts by kind; `examples` holds the first of each. `examined_ms` cycles were commanded and judged.

    `lost_cycles` went by without a command within a motion. `unexamined_ms` cannot be judged: Cartesian commands, and
    what came after the log was full.
    """

    examined_ms: int
    measured_ms: int
    unexamined_ms: int
    lost_cycles: int
    breaches: dict[str, int]
    examples: list[Breach]

    @property
    def total(self) -> int:
        """All breaches."""
        return sum(self.breaches.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"total": self.total, **asdict(self)}


def judge(log: CommandLog) -> Verdict:
    """Judge every commanded cycle and every measured state."""
    court = _Court()
    states = log.states
    court.outside("measured position", states["q"], POSITION_MIN, POSITION_MAX, states["t_ns"])
    speeds = states["dq"] * _pace(states["t_ns"])[:, None]
    court.outside("measured speed", speeds, -SPEED_MAX, SPEED_MAX, states["t_ns"])
    examined = unexamined = lost = 0
    for motion in np.unique(log.commands["motion"]):
        rows = np.flatnonzero((log.commands["motion"] == motion) & (log.commands["finished"] == 0))
        ids = log.commands["message_id"][rows].astype(np.int64)
        rows = rows[np.diff(ids, append=np.iinfo(np.int64).max) > 0]  # of two answers to one state the later counts
        commands = log.commands[rows]
        if not len(commands):
            continue
        gaps = np.diff(commands["message_id"].astype(np.int64), prepend=int(commands["message_id"][0]) - 1)
        lost += int((gaps - 1).sum())
        controller, generator = int(commands["controller"][0]), int(commands["generator"][0])
        if generator in (CARTESIAN_POSITION, CARTESIAN_VELOCITY):
            unexamined += len(commands)
            continue
        examined += len(commands)
        at = (rows, commands["t_ns"])
        if controller == EXTERNAL_CONTROLLER:
            _judge_torques(court, commands["tau_J_d"], *at)
        if generator == JOINT_POSITION:
            _judge_positions(court, commands["q_c"], gaps, *at)
        elif generator == JOINT_VELOCITY:
            _judge_speeds(court, commands["dq_c"], gaps, *at)
    return Verdict(examined, len(states), unexamined + log.unrecorded, lost, court.counts, court.examples)


def _pace(t_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """The robot's own time per real time, at most 1: float64 [n] for n states, one per millisecond of its own."""
    index = np.arange(len(t_ns))
    first = np.maximum(index - PACE_CYCLES, 0)
    passed_ns = t_ns - t_ns[first]
    own_ns = (index - first) * round(DT * 1e9)
    pace = np.divide(own_ns, passed_ns, out=np.ones(len(t_ns)), where=passed_ns > own_ns)
    pace[:PACE_CYCLES] = 1.0  # too short a stretch to tell
    return pace


class _Court:
    """Collects the breaches."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: list[Breach] = []

    def outside(
        self,
        kind: str,
        values: NDArray[np.float64],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        t_ns: NDArray[np.int64],
        rows: NDArray[np.intp] | None = None,
    ) -> None:
        """Count what is not within [low, high]; NaN is not. All [n, 7] or broadcast to it."""
        low, high = np.broadcast_to(low, values.shape), np.broadcast_to(high, values.shape)
        slack = ROUNDING * np.maximum(np.abs(low), np.abs(high))
        found = np.argwhere(~((values >= low - slack) & (values <= high + slack)))
        self.counts[kind] = self.counts.get(kind, 0) + len(found)
        told = sum(breach.kind == kind for breach in self.examples)
        for row, joint in found[: BREACHES_TOLD - told]:
            value, above = float(values[row, joint]), values[row, joint] > high[row, joint]
            limit = float((high if above else low)[row, joint])
            index = int(row if rows is None else rows[row])
            self.examples.append(Breach(kind, index, int(t_ns[row]), int(joint) + 1, value, limit))


def _judge_torques(
    court: _Court, torques: NDArray[np.float64], rows: NDArray[np.intp], t_ns: NDArray[np.int64]
) -> None:
    """A motion begins with no torque beyond gravity's, which the robot itself compensates."""
    court.outside("torque", torques, -TORQUE_MAX, TORQUE_MAX, t_ns, rows)
    rates = np.diff(torques, axis=0, prepend=np.zeros((1, 7))) / DT
    court.outside("torque rate", rates, -TORQUE_RATE_MAX, TORQUE_RATE_MAX, t_ns, rows)


def _judge_positions(
    court: _Court,
    positions: NDArray[np.float64],
    gaps: NDArray[np.int64],
    rows: NDArray[np.intp],
    t_ns: NDArray[np.int64],
) -> None:
    """A motion begins at rest at its first command."""
    court.outside("position", positions, POSITION_MIN, POSITION_MAX, t_ns, rows)
    before, speed, acceleration = positions[0], np.zeros(7), np.zeros(7)
    speeds, accelerations, jerks = (np.empty_like(positions) for _ in range(3))
    for k, position in enumerate(positions):
        for _ in range(min(int(gaps[k]) - 1, LONGEST_GAP)):
            speed = speed + acceleration * DT
            before = before + speed * DT
        speeds[k] = (position - before) / DT
        accelerations[k] = (speeds[k] - speed) / DT
        jerks[k] = (accelerations[k] - acceleration) / DT
        before, speed, acceleration = position, speeds[k], accelerations[k]
    _judge_speed_envelope(court, positions, speeds, rows, t_ns)
    court.outside("acceleration", accelerations, -ACCELERATION_MAX, ACCELERATION_MAX, t_ns, rows)
    court.outside("jerk", jerks, -JERK_MAX, JERK_MAX, t_ns, rows)


def _judge_speeds(
    court: _Court,
    speeds: NDArray[np.float64],
    gaps: NDArray[np.int64],
    rows: NDArray[np.intp],
    t_ns: NDArray[np.int64],
) -> None:
    """A motion begins at rest."""
    court.outside("speed", speeds, -SPEED_MAX, SPEED_MAX, t_ns, rows)
    before, acceleration = np.zeros(7), np.zeros(7)
    accelerations, jerks = np.empty_like(speeds), np.empty_like(speeds)
    for k, speed in enumerate(speeds):
        before = before + acceleration * DT * min(int(gaps[k]) - 1, LONGEST_GAP)
        accelerations[k] = (speed - before) / DT
        jerks[k] = (accelerations[k] - acceleration) / DT
        before, acceleration = speed, accelerations[k]
    court.outside("acceleration", accelerations, -ACCELERATION_MAX, ACCELERATION_MAX, t_ns, rows)
    court.outside("jerk", jerks, -JERK_MAX, JERK_MAX, t_ns, rows)


def _judge_speed_envelope(
    court: _Court,
    positions: NDArray[np.float64],
    speeds: NDArray[np.float64],
    rows: NDArray[np.intp],
    t_ns: NDArray[np.int64],
) -> None:
    """The closer a joint is to the end of its range, the slower it may move towards it."""
    upper = np.sqrt(2 * DECELERATION * np.maximum(ENVELOPE_MAX - positions, 0.0)) - SPEED_OFFSET
    lower = SPEED_OFFSET - np.sqrt(2 * DECELERATION * np.maximum(positions - ENVELOPE_MIN, 0.0))
    court.outside("speed", speeds, np.clip(lower, -SPEED_MAX, 0.0), np.clip(upper, 0.0, SPEED_MAX), t_ns, rows)


def report(verdict: Verdict) -> str:
    """For people: a line per kind, then the examples."""
    lines = [
        f"{verdict.examined_ms} commanded milliseconds examined, {verdict.lost_cycles} cycles without a command, "
        f"{verdict.unexamined_ms} not examined; {verdict.measured_ms} measured states"
    ]
    lines += [f"{count:>8}  {kind}" for kind, count in sorted(verdict.breaches.items())]
    lines += [
        f"  row {b.row}, t {b.t_ns} ns, joint {b.joint}: {b.kind} {b.value:.6g}, limit {b.limit:.6g}"
        for b in verdict.examples
    ]
    return "\n".join([*lines, f"{verdict.total} breaches"])


def main(arguments: list[str] | None = None) -> int:
    """Print the verdict. Exit status: 0 without a breach, 1 with one, or when nothing was examined; 2 for no log."""
    parser = argparse.ArgumentParser(prog="python -m memrt.sim.doubles.limit_oracle", description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--json", dest="as_json", action="store_true", help="one JSON object and nothing else")
    options = parser.parse_args(arguments)
    try:
        verdict = judge(CommandLog.load(options.log))
    except (OSError, ValueError) as error:
        print(f"{options.log}: {error}", file=sys.stderr)
        return 2
    print(json.dumps(verdict.to_dict()) if options.as_json else report(verdict))
    return int(verdict.total > 0 or verdict.examined_ms == 0)


if __name__ == "__main__":
    sys.exit(main())
