"""Runs of the kinematic arm with a recorder attached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kinematic import DT_NS, KinematicRobot, SwingHighLevel, SwingLowLevel

from memrt.runtime.clock import VirtualClock
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.recording.recorder import McapRecorder

SETTINGS = LoopSettings(dt_ns=DT_NS, horizon=16, execute=8, every_steps=16, cap_steps=200, cameras=("front",), seed=3)


def record_lockstep(path: Path, low_level=None, high_level=None, *, frames="all", **settings) -> RunRecord:
    """A run of two swings."""
    with McapRecorder(path, {"goal": "swing"}, frames=frames) as recorder:
        record = run_observed(recorder, low_level, high_level, **settings)
        recorder.close({"status": record.status})
    return record


def run_observed(recorder: McapRecorder, low_level=None, high_level=None, **settings) -> RunRecord:
    robot = KinematicRobot(VirtualClock(), 2, refusals_raise=True)
    policies = high_level or SwingHighLevel(), low_level or SwingLowLevel()
    return run_lockstep(robot, *policies, "swing", replace(SETTINGS, **settings), observer=recorder)
