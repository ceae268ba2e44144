"""Which chunks are taken, which are refused and why, and what a refusal leaves behind."""

from __future__ import annotations

import numpy as np
import pytest

from memrt.runtime._core import Seam, SeamLimits

MS = 1_000_000
LIMITS = SeamLimits.fr3()
HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])


def still(horizon: int = 16, offset: float = 0.0) -> np.ndarray:
    return np.column_stack([np.tile(HOME + offset, (horizon, 1)), np.ones(horizon)])


def with_value(value: float, row: int = 3, column: int = 2) -> np.ndarray:
    actions = still()
    actions[row, column] = value
    return actions


@pytest.fixture
def seam() -> Seam:
    seam = Seam(LIMITS)
    seam.reset(HOME, 1.0, 0)
    for t in range(0, 1000, 10):
        seam.step(t * MS)
    return seam


@pytest.mark.parametrize(
    ("actions", "t0_ms", "dt_ms", "reason"),
    [
        (with_value(np.nan), 1000, 50, "non-finite"),
        (with_value(np.inf, column=7), 1000, 50, "non-finite"),
        (with_value(LIMITS.q_max[2] + 0.21), 1000, 50, "outside joint limits"),
        (with_value(LIMITS.q_min[2] - 0.21), 1000, 50, "outside joint limits"),
        (still(), 100, 50, "too late"),
        (still(), 11_000, 50, "too far ahead"),
        (still(0), 1000, 50, "empty"),
        (still(129), 1000, 5, "more than 128 actions"),
        (still(), 1000, 0, "time step outside 1 ms to 1 s"),
        (still(), 1000, 1001, "time step outside 1 ms to 1 s"),
    ],
)
def test_refusals_name_the_reason_and_change_nothing(
    seam: Seam, actions: np.ndarray, t0_ms: int, dt_ms: int, reason: str
) -> None:
    assert seam.push(still(offset=0.1), 1000 * MS, 50 * MS) == ""
    remaining = seam.remaining_s(990 * MS)
    assert seam.push(actions, t0_ms * MS, dt_ms * MS) == reason
    assert seam.remaining_s(990 * MS) == remaining
    assert seam.counters()["refused"] == 1
    for t in range(1000, 3000, 10):
        q, _, _ = seam.step(t * MS)
    np.testing.assert_allclose(q, HOME + 0.1, atol=1e-6)


def test_a_chunk_before_reset_is_refused() -> None:
    assert Seam(LIMITS).push(still(), 0, 50 * MS) == "not reset"


def test_targets_a_little_outside_are_clamped_and_counted(seam: Seam) -> None:
    actions = still(40)
    actions[:, 2] = LIMITS.q_max[2] + 0.19
    assert seam.push(actions, 1000 * MS, 100 * MS) == ""
    for t in range(1000, 6000, 10):
        q, _, _ = seam.step(t * MS)
    assert LIMITS.q_max[2] - 1e-3 < q[2] <= LIMITS.q_max[2]
    assert seam.counters()["clamped"] == 40


def test_a_late_chunk_loses_the_actions_whose_time_has_passed(seam: Seam) -> None:
    actions = still(offset=0.1)
    actions[:, 7] = np.linspace(0.0, 0.75, 16)
    assert seam.push(actions, 790 * MS, 50 * MS) == ""  # now is 990: actions 0 to 4 are late
    assert seam.counters()["late_actions"] == 5
    assert seam.step(990 * MS)[2] == pytest.approx(actions[4, 7])
    assert seam.step(1040 * MS)[2] == pytest.approx(actions[5, 7])


def test_the_newest_chunk_wins_from_its_start_on(seam: Seam) -> None:
    assert seam.push(still(40, offset=0.2), 1000 * MS, 50 * MS) == ""
    assert seam.push(still(20, offset=-0.1), 2000 * MS, 50 * MS) == ""
    assert seam.remaining_s(990 * MS) == pytest.approx(1.96)
    positions = {t: seam.step(t * MS)[0] for t in range(1000, 3500, 10)}
    np.testing.assert_allclose(positions[1800], HOME + 0.2, atol=2e-3)
    np.testing.assert_allclose(positions[3490], HOME - 0.1, atol=1e-6)


def test_waypoints_stay_bounded_however_far_chunks_are_stacked() -> None:
    seam = Seam(LIMITS)
    seam.reset(HOME, 1.0, 0)
    reasons = [seam.push(still(100), (10 + 100 * i) * MS, MS) for i in range(4)]
    assert reasons == ["", "", "too many waypoints", "too many waypoints"]


def test_many_chunks_forget_the_past() -> None:
    seam = Seam(LIMITS)
    seam.reset(HOME, 1.0, 0)
    for i in range(500):
        assert seam.push(still(128), (10 * i + 10) * MS, 5 * MS) == ""
        seam.step(10 * i * MS)
    assert seam.counters()["accepted"] == 500


@pytest.mark.parametrize(
    "settings",
    [{"speed": 0.0}, {"speed": 1.1}, {"speed": np.nan}, {"replan_s": 0.0}, {"preview_s": 0.001}, {"preview_s": 2.0}],
)
def test_settings_out_of_range_are_named(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Seam(LIMITS, **settings)


def test_limits_must_leave_room_to_move() -> None:
    ones = np.ones(7)
    with pytest.raises(ValueError, match="below q_max"):
        SeamLimits(ones, ones, ones, ones, ones)
    with pytest.raises(ValueError, match="above zero"):
        SeamLimits(-ones, ones, ones, 0 * ones, ones)
    with pytest.raises(ValueError, match="finite"):
        SeamLimits(-ones, ones * np.inf, ones, ones, ones)
    with pytest.raises(ValueError, match="7 joints"):
        SeamLimits(-np.ones(6), ones, ones, ones, ones)


def test_wrong_shapes_and_non_finite_starts_are_refused() -> None:
    seam = Seam(LIMITS)
    with pytest.raises(ValueError, match="finite"):
        seam.reset(HOME * np.nan, 1.0, 0)
    seam.reset(HOME, 1.0, 0)
    with pytest.raises(ValueError, match=r"\[horizon, 8\]"):
        seam.push(np.zeros((16, 7)), 0, 50 * MS)
