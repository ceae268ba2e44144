"""The exported denoise steps against a reference that is written for reading, at every flow time and token by token.

The reference sees the padded prefix with its mask, garbage where nothing is; the exported graphs are given what is
there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnxruntime")

sys.path.insert(0, str(Path(__file__).parent))

from expert_reference import ExpertReference, PrefixCache
from parity_pi05 import Listened, exported_pi05, random_call

from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.low_level_session import LowLevelSession, read_tables

TOLERANCE = 1e-4
STEPS = 10


@pytest.fixture(scope="module")
def folder() -> Path:
    return exported_pi05().folder


@pytest.fixture(scope="module")
def session() -> LowLevelSession:
    return exported_pi05().session


@pytest.fixture(scope="module")
def reference() -> ExpertReference:
    model = exported_pi05().model
    sizes = model.config.expert
    tensors = {name: value.double().numpy() for name, value in model.state_dict().items()}
    return ExpertReference(tensors, layers=sizes.depth, heads=sizes.heads, head_dim=sizes.head_dim)


def padded(feed: dict[str, np.ndarray], seed: int) -> PrefixCache:
    """The prefix that the step engine was given, with masked rows of garbage strewn in."""
    rng = np.random.default_rng(seed)
    keys, values = feed["keys"].astype(np.float64), feed["values"].astype(np.float64)
    valid = rng.permutation([True] * keys.shape[2] + [False] * 7)
    shape = (*keys.shape[:2], len(valid), keys.shape[3])
    garbage = rng.normal(size=(2, *shape)) * 30.0
    garbage[0][:, :, valid], garbage[1][:, :, valid] = keys, values
    return PrefixCache(garbage[0], garbage[1], valid)


def listened(engine: object) -> Listened:
    assert isinstance(engine, Listened)
    engine.feeds.clear()
    engine.results.clear()
    return engine


def chunk(session: LowLevelSession, present: list[bool], tokens: int, seed: int, clean: np.ndarray | None = None):
    """(actions, noise, listened engine) of one call."""
    images, ids, noise = random_call(seed, tokens)
    engine = listened(session._step if clean is None else session._step_rtc)
    views = [image for image, there in zip(images, present, strict=True) if there]
    return session.denoise(views, ids, noise, clean).actions, noise, engine


def test_every_step_of_a_chunk(session: LowLevelSession, reference: ExpertReference) -> None:
    actions, noise, engine = chunk(session, [True, False, True], 9, seed=0)
    assert len(engine.feeds) == STEPS
    cache = padded(engine.feeds[0], seed=3)
    for step, (feed, result) in enumerate(zip(engine.feeds, engine.results, strict=True)):
        times = [1.0 - step / STEPS] * len(noise)
        expected = reference.velocity(feed["x"][0].astype(np.float64), times, cache)
        np.testing.assert_allclose(
            result["velocity"][0], expected, atol=TOLERANCE, rtol=TOLERANCE, err_msg=f"step {step}"
        )
    np.testing.assert_allclose(actions, reference.actions(noise, cache, STEPS), atol=TOLERANCE, rtol=TOLERANCE)


def test_every_step_after_a_clean_beginning(session: LowLevelSession, reference: ExpertReference) -> None:
    clean = np.random.default_rng(8).normal(size=(2, 8)).astype(np.float32)
    actions, noise, engine = chunk(session, [True, True, False], 6, seed=4, clean=clean)
    assert len(engine.feeds) == STEPS
    cache = padded(engine.feeds[0], seed=5)
    for step, (feed, result) in enumerate(zip(engine.feeds, engine.results, strict=True)):
        np.testing.assert_array_equal(feed["x"][0, :2], clean)
        times = [0.0, 0.0, *[1.0 - step / STEPS] * (len(noise) - 2)]
        expected = reference.velocity(feed["x"][0].astype(np.float64), times, cache)
        np.testing.assert_allclose(
            result["velocity"][0], expected, atol=TOLERANCE, rtol=TOLERANCE, err_msg=f"step {step}"
        )
    np.testing.assert_array_equal(actions[:2], clean)
    expected = reference.actions(noise, cache, STEPS, clean)
    np.testing.assert_allclose(actions, expected, atol=TOLERANCE, rtol=TOLERANCE)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    present=st.lists(st.booleans(), min_size=3, max_size=3),
    tokens=st.integers(2, 20),
    clean=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_any_views_any_prompt_any_beginning(
    session: LowLevelSession, reference: ExpertReference, present: list[bool], tokens: int, clean: int, seed: int
) -> None:
    beginning = np.random.default_rng(seed).normal(size=(clean, 8)).astype(np.float32) if clean else None
    actions, noise, engine = chunk(session, present, tokens, seed, beginning)
    expected = reference.actions(noise, padded(engine.feeds[0], seed), STEPS, beginning)
    np.testing.assert_allclose(actions, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_one_time_for_all_tokens_is_the_plain_step(session: LowLevelSession) -> None:
    _, _, engine = chunk(session, [True, True, True], 5, seed=7)
    for feed, result in zip(engine.feeds, engine.results, strict=True):
        rows = np.stack((feed["modulation"], np.full_like(feed["modulation"], 9.0)))
        row = np.zeros(feed["x"].shape[1], np.int64)
        again = session._step_rtc.run({**feed, "modulation": rows, "row": row})  # type: ignore[union-attr]
        np.testing.assert_allclose(again["velocity"], result["velocity"], atol=1e-6, rtol=1e-6)


def test_an_empty_beginning_is_none(session: LowLevelSession) -> None:
    images, ids, noise = random_call(1, 5)
    plain = session.denoise(list(images), ids, noise).actions
    again = session.denoise(list(images), ids, noise, np.empty((0, 8), np.float32)).actions
    np.testing.assert_array_equal(plain, again)


@pytest.mark.parametrize("shape", [(6, 8), (2, 7), (2,)])
def test_a_beginning_that_does_not_fit_is_refused(session: LowLevelSession, shape: tuple[int, ...]) -> None:
    images, ids, noise = random_call(1, 5)
    with pytest.raises(MemrtError, match="clean beginning"):
        session.denoise(list(images), ids, noise, np.zeros(shape, np.float32))


def test_a_bundle_without_the_engine_refuses_a_beginning(session: LowLevelSession, folder: Path) -> None:
    embedding, modulation = read_tables(folder.joinpath)
    engines = {"vision": session._vision, "prefix": session._prefix, "step": session._step}
    plain = LowLevelSession(session.model, embedding, modulation[:STEPS], **engines)
    images, ids, noise = random_call(1, 5)
    assert plain.denoise(list(images), ids, noise).actions.shape == (6, 8)
    with pytest.raises(MemrtError, match=r"step_rtc.*Fix: export with step_rtc"):
        plain.denoise(list(images), ids, noise, np.zeros((2, 8), np.float32))


def test_the_engine_without_its_row_of_clean_actions_is_refused(session: LowLevelSession, folder: Path) -> None:
    embedding, modulation = read_tables(folder.joinpath)
    engines = {name: getattr(session, f"_{name}") for name in ("vision", "prefix", "step", "step_rtc")}
    with pytest.raises(MemrtError, match=r"modulation\.npy"):
        LowLevelSession(session.model, embedding, modulation[:STEPS], **engines)
