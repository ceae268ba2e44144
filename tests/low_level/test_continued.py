"""The exported policy with real-time chunking: what it continues, and how near the new chunk comes to the old one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from memrt.export.pi05_graphs import export_pi05
from memrt.runtime.config import ChunkingConfig, LowLevelConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.low_level import LowLevelPolicy
from memrt.runtime.types import ActionChunk, Observation, PlayingChunk, Subgoal
from memrt.train.pi05.policy import TorchLowLevel

DT = 50_000_000
EXECUTED = 2
SUBGOAL = Subgoal("press to stop", 1, 0)


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rtc")
    export_pi05(checkpoint, folder, step_rtc=True)
    return folder


@pytest.fixture(scope="module")
def policies(settings: LowLevelConfig, folder: Path) -> dict[str, LowLevelPolicy]:
    """The same weights with every kind of chunking."""
    kinds = {kind: ChunkingConfig(kind=kind) for kind in ("none", "prefix", "guided")}
    return {
        kind: LowLevelPolicy.from_folder(msgspec.structs.replace(settings, execute=EXECUTED, chunking=chunking), folder)
        for kind, chunking in kinds.items()
    }


def later(observation: Observation) -> Observation:
    """The arm has moved while two actions were executed."""
    moved = observation.proprioception + np.linspace(0.02, 0.1, 8)
    return replace(observation, t_ns=observation.t_ns + EXECUTED * DT, proprioception=moved)


def following(chunk: ActionChunk, delay: int) -> PlayingChunk:
    times_ns = chunk.t0_ns + np.arange(len(chunk.actions)) * chunk.dt_ns
    return PlayingChunk(times_ns, chunk.actions, chunk.dt_ns, delay)


def first_chunk(policy: LowLevelPolicy, observation: Observation) -> ActionChunk:
    return policy.act(observation, SUBGOAL, "", policy.noise(0, 0)).chunk


def distance(policy: LowLevelPolicy, observation: Observation, delay: int) -> np.ndarray:
    """Joint distance of a second chunk, of other noise, from what is left of the first, per action."""
    old = first_chunk(policy, observation)
    new = policy.act(later(observation), SUBGOAL, "", policy.noise(0, 1), playing=following(old, delay)).chunk
    return np.abs(new.actions[:-EXECUTED, :7] - old.actions[EXECUTED:, :7]).max(1)


def test_a_clean_beginning_is_the_old_chunks_absolute_targets(
    policies: dict[str, LowLevelPolicy], observation: Observation
) -> None:
    for delay in (1, 2, 3):
        found = distance(policies["prefix"], observation, delay)
        assert found[:delay].max() < 1e-6
        assert found[delay] > 1e-3


def test_guidance_brings_the_new_chunk_nearer_to_the_old_one(
    policies: dict[str, LowLevelPolicy], observation: Observation
) -> None:
    free, guided = (distance(policies[kind], observation, 2) for kind in ("none", "guided"))
    assert guided[:2].max() < 0.5 * free[:2].max()


@pytest.mark.parametrize("kind", ["none", "prefix", "guided"])
def test_the_same_noise_and_the_same_playing_chunk_give_the_same_chunk(
    policies: dict[str, LowLevelPolicy], observation: Observation, kind: str
) -> None:
    policy = policies[kind]
    old = first_chunk(policy, observation)
    calls = [
        policy.act(later(observation), SUBGOAL, "", policy.noise(0, 1), playing=following(old, delay)).chunk.actions
        for delay in (2, 1, 2)
    ]
    np.testing.assert_array_equal(calls[0], calls[2])
    assert np.array_equal(calls[0], calls[1]) == (kind == "none")


def test_without_chunking_or_without_anything_left_the_chunk_is_the_plain_one(
    policies: dict[str, LowLevelPolicy], observation: Observation
) -> None:
    plain = first_chunk(policies["none"], observation)
    long_past = replace(plain, t0_ns=plain.t0_ns - 6 * DT)
    for kind, playing in [
        ("none", following(plain, 2)),
        ("prefix", following(plain, 0)),
        ("prefix", following(long_past, 2)),
        ("guided", following(long_past, 2)),
        ("guided", None),
    ]:
        policy = policies[kind]
        again = policy.act(observation, SUBGOAL, "", policy.noise(0, 0), playing=playing).chunk
        np.testing.assert_array_equal(again.actions, plain.actions)


def test_a_delay_longer_than_the_chunk_leaves_one_action_to_denoise(
    policies: dict[str, LowLevelPolicy], observation: Observation
) -> None:
    clean, _ = policies["prefix"].interface.continued(
        following(first_chunk(policies["prefix"], observation), 99), observation
    )
    assert clean is not None
    assert clean.shape == (5, 8)
    assert np.isfinite(distance(policies["prefix"], observation, 99)).all()


def test_prefix_needs_the_engine_for_it(settings: LowLevelConfig, checkpoint: Path, tmp_path: Path) -> None:
    export_pi05(checkpoint, tmp_path)
    wanted = msgspec.structs.replace(settings, chunking=ChunkingConfig(kind="prefix"))
    with pytest.raises(MemrtError, match=r"chunking.kind: prefix.*expected a bundle with the engine step_rtc.*--rtc"):
        LowLevelPolicy.from_folder(wanted, tmp_path)


def test_pytorch_says_that_it_does_not_continue_chunks(
    settings: LowLevelConfig, checkpoint: Path, policies: dict[str, LowLevelPolicy], observation: Observation
) -> None:
    in_torch = TorchLowLevel(checkpoint, msgspec.structs.replace(settings, chunking=ChunkingConfig(kind="guided")))
    noise = in_torch.noise(0, 0)
    chunk = in_torch.act(observation, SUBGOAL, "", noise).chunk
    with pytest.raises(MemrtError, match="bundles have real-time chunking"):
        in_torch.act(later(observation), SUBGOAL, "", noise, playing=following(chunk, 1))
