"""Why the robot must be held: what the supervisor asks at every look, the first answer counts."""

from __future__ import annotations

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.loop.camera_watch import OldestPicture
from memrt.runtime.loop.gates import camera_state
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.loop.shared import Shared
from memrt.runtime.types import RobotMode


def reason_to_hold(
    now_ns: int,
    settings: LoopSettings,
    shared: Shared,
    *,
    mode: RobotMode,
    oldest: OldestPicture,
    refused_in_a_row: int,
    subgoals_expire: bool,
) -> str:
    """The reason, or "". `oldest` is the least recent picture that the policies need; a goal does not expire."""
    if mode is not RobotMode.RUNNING:
        return f"the robot went to {mode.value} by itself"
    if asked := shared.take_hold_request():
        return asked
    if camera_state(now_ns, oldest.t_ns, settings) == "lost":
        return oldest.trouble(now_ns)
    if silent := _silent_policy(now_ns, settings, shared, subgoals_expire):
        return silent
    if refused_in_a_row >= settings.rejected_before_hold:
        return f"the robot refused {refused_in_a_row} chunks in a row"
    return ""


def _silent_policy(now_ns: int, settings: LoopSettings, shared: Shared, subgoals_expire: bool) -> str:
    with shared.lock:
        expired = subgoals_expire and shared.board.expired(now_ns, settings.subgoal_time_to_live_ns)
        why = f": {shared.record.missed}" if shared.record.missed else ""
        asked_ns = shared.low_level_since_ns
    if expired:
        return f"the high level has not answered for {settings.subgoal_time_to_live_ns / NS_PER_S:g} s{why}"
    if asked_ns is not None and now_ns - asked_ns > settings.low_level_hung_ns:
        return f"the low level has not answered for {settings.low_level_hung_ns / NS_PER_S:g} s"
    return ""
