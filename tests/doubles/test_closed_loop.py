"""`memrt run` over libfranka's own protocol, as `make robot-test` does at length: both doubles, seconds each.

On a computer that does not keep up, the link rightly stops the arm, or the double runs in slow motion: a test that
fails so is skipped, with the reason.
"""

from __future__ import annotations

from typing import Any

import pytest

from memrt.sim.doubles.robot_test import permissive_part, strict_part
from memrt.sim.doubles.strict_double import strict_missing

pytest.importorskip("franky", reason="franky-control is not installed (extra `franka`)")
pytest.importorskip("franky_sim", reason="franky-sim is not installed (extra `dev`)")
pytestmark = pytest.mark.real_time
ONE_ROUND = 1_000_012
TOO_SLOW = ("the link was silent", "is lost: no new picture", "late")  # how a run says that it was not given the time


def needs_time(reason: str) -> None:
    if any(words in reason for words in TOO_SLOW):
        pytest.skip(f"this computer did not keep up: {reason}")


def test_the_expert_picks_and_places_over_the_protocol_with_the_cameras_in_the_loop() -> None:
    result = permissive_part("expert", "expert", ONE_ROUND, 60.0)
    if not result["passed"] and not result["kept_pace"]:
        behind = result["double_slipped_moving_ms"]
        pytest.skip(f"the double fell {behind} ms behind on this computer: a robot in slow motion shows nothing")
    assert result["breaches"] == 0, result["examples"]
    assert result["commanded_ms"] > 0
    if result["outcome"] != "success":
        needs_time(result["run"]["outcome"] + ": " + result["reason"])
    assert (result["outcome"], result["reason"]) == ("success", "placed 1 times, then pressed the button")
    assert result["passed"]


@pytest.mark.skipif(bool(strict_missing()), reason=strict_missing())
def test_chunks_at_50_hz_are_followed_without_an_abort() -> None:
    result: dict[str, Any] = strict_part(5.0, seed=0)
    last = result["stretches"][-1]
    if not last["passed"]:
        reasons = [abort["reason"] for abort in last["aborts"]] or [last["reason"]]
        if last["stalled"]:
            pytest.skip(f"this computer stood still for {last['longest_host_stall_ms']} ms: {'; '.join(reasons)}")
        needs_time(last["reason"])
    assert last["passed"], last["reason"]
    assert last["run"]["counts"]["chunks"] > 5
