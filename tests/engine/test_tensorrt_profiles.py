"""Which optimisation profile serves a call, and how profiles are laid out over lengths."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.engine.tensorrt_profiles import Profile, ShapeRange, choose_profile, length_profiles
from memrt.runtime.errors import MemrtError

LENGTHS = st.lists(st.integers(1, 2000), min_size=1, max_size=6, unique=True).map(sorted)


def spans(*triples: tuple[int, int, int], width: int = 8) -> list[Profile]:
    return [
        Profile(shapes={"x": ShapeRange(minimum=(a, width), optimum=(b, width), maximum=(c, width))})
        for a, b, c in triples
    ]


@given(LENGTHS, st.data())
def test_every_length_up_to_the_longest_has_a_profile_and_gets_the_tightest(lengths: list[int], data) -> None:
    profiles = length_profiles({"x": ("tokens", 8), "mask": (1, "tokens"), "scale": (3,)}, lengths)
    length = data.draw(st.integers(1, lengths[-1]))
    shapes = {"x": (length, 8), "mask": (1, length), "scale": (3,)}
    chosen = profiles[choose_profile("decoder", profiles, shapes)]
    assert chosen.holds(shapes)
    assert all(chosen.volume <= other.volume for other in profiles if other.holds(shapes))


@given(LENGTHS)
def test_kernels_are_tuned_for_the_end_of_each_bracket(lengths: list[int]) -> None:
    profiles = length_profiles({"x": ("tokens", 8)}, lengths)
    assert [p.shapes["x"].optimum[0] for p in profiles] == lengths
    if len(profiles) > 1:  # a profile of fixed shapes beside others doubles the weights of an engine
        assert all(p.shapes["x"].minimum != p.shapes["x"].maximum for p in profiles)


@given(LENGTHS, st.data())
def test_a_second_dimension_is_free_up_to_its_bound(lengths: list[int], data) -> None:
    profiles = length_profiles({"x": ("tokens", 8), "asked": ("answers",)}, lengths, few=("answers", 32))
    length = data.draw(st.integers(1, lengths[-1]))
    answers = data.draw(st.integers(1, min(length, 32)))
    choose_profile("decoder", profiles, {"x": (length, 8), "asked": (answers,)})
    assert all(profile.shapes["asked"].optimum == (1,) for profile in profiles)
    assert max(profile.shapes["asked"].maximum[0] for profile in profiles) <= 32


def test_one_token_goes_to_the_decode_profile_although_prefill_would_hold_it() -> None:
    profiles = spans((1, 128, 128), (1, 1, 2), (1, 512, 512))
    assert choose_profile("decoder", profiles, {"x": (1, 8)}) == 1
    assert choose_profile("decoder", profiles, {"x": (3, 8)}) == 0
    assert choose_profile("decoder", profiles, {"x": (129, 8)}) == 2


def test_an_engine_without_dynamic_inputs_has_one_empty_profile() -> None:
    assert choose_profile("vision", [Profile(shapes={})], {"image": (224, 224, 3)}) == 0


@pytest.mark.parametrize("shape", [(0, 8), (513, 8), (4, 9), (4,)])
def test_a_shape_no_profile_holds_is_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(MemrtError, match=r"engine decoder .*`x` within \[1, 8\] to \[2, 8\] or"):
        choose_profile("decoder", spans((1, 1, 2), (2, 512, 512)), {"x": shape})


def test_inputs_that_fit_only_different_profiles_are_refused() -> None:
    low, high = (ShapeRange(minimum=(a,), optimum=(b,), maximum=(b,)) for a, b in ((1, 4), (5, 9)))
    profiles = [Profile(shapes={"x": low, "y": low}), Profile(shapes={"x": high, "y": high})]
    with pytest.raises(MemrtError, match="one profile that holds all inputs"):
        choose_profile("step", profiles, {"x": (2,), "y": (7,)})


@pytest.mark.parametrize(
    ("dims", "lengths", "shortest"),
    [
        ({"x": (4, 8)}, [1], 1),
        ({"x": ("a", "b")}, [1], 1),
        ({"x": ("a", 8)}, [], 1),
        ({"x": ("a", 8)}, [8, 1], 1),
        ({"x": ("a", 8)}, [1, 8], 2),
    ],
)
def test_lengths_that_make_no_sense_are_refused(dims, lengths: list[int], shortest: int) -> None:
    with pytest.raises(MemrtError, match="ascending"):
        length_profiles(dims, lengths, shortest=shortest)


def test_ranges_must_be_ordered() -> None:
    with pytest.raises(msgspec.ValidationError, match="minimum <= optimum"):
        msgspec.convert({"minimum": [2], "optimum": [1], "maximum": [3]}, ShapeRange)
