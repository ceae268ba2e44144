"""The strict double: it refuses what a robot would refuse, and says why."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from memrt.runtime.errors import MemrtError
from memrt.sim.doubles.host_stalls import HostStalls, Stall
from memrt.sim.doubles.process import own_loopback
from memrt.sim.doubles.strict_double import StrictDoubleProcess, strict_missing

pytestmark = pytest.mark.real_time

franky = pytest.importorskip("franky", reason="franky-control is not installed (extra `franka`)")
needs_strict = pytest.mark.skipif(bool(strict_missing()), reason=strict_missing())


@needs_strict
def test_a_jump_is_refused_and_the_reason_given() -> None:
    host = own_loopback(2)
    with StrictDoubleProcess(host) as strict:
        assert strict.aborts == []
        robot = franky.Robot(host, realtime_config=franky.RealtimeConfig.Ignore)
        jump = franky.JointImpedanceTrackingMotion(stiffness=np.full(7, 600.0), max_delta_tau=5.0)
        away = np.array(robot.current_joint_state.position) + 0.2
        jump.set_reference(franky.JointReference(away))
        with pytest.raises(franky.ControlException):
            robot.move(jump, cutoff_frequency=1000.0)
        (abort,) = strict.aborts
        assert "controller_torque_discontinuity" in abort.reason
        assert abs(time.monotonic_ns() - abort.t_ns) < 10_000_000_000
        with pytest.raises(MemrtError, match="ports 1337 and 1338"):
            StrictDoubleProcess(host)


def test_stalls_are_looked_up_by_time() -> None:
    with HostStalls() as watching:
        time.sleep(0.05)
    watching.stalls = [Stall(0, 1_000_000, 9_000_000), Stall(1, 2_000_000, 30_000_000)]
    assert watching.near(31_000_000, 2_000_000) == watching.stalls[1]
    assert watching.near(31_000_000, 500_000) is None
    assert watching.stalls[1].ms == 28.0
    with contextlib.suppress(FileNotFoundError):
        watching.close()  # a second time does nothing
