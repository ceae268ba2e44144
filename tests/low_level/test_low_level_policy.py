"""The exported policy against the PyTorch one: same observation, same noise, same chunk."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch

from memrt.export.pi05_graphs import export_pi05
from memrt.export.reproducible import canonicalise
from memrt.export.target import load_target
from memrt.runtime.config import LowLevelConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.low_level import LowLevelPolicy
from memrt.runtime.policy.low_level_session import LowLevelSession, read_tables
from memrt.runtime.policy.preprocess import NormStats
from memrt.runtime.types import Observation, Subgoal
from memrt.train.pi05.model import Pi05
from memrt.train.pi05.policy import TorchLowLevel
from memrt.train.pi05.sampling import flow_times, sample_actions

SUBGOAL = Subgoal("pick up the red cube <120, 88> for the first time", 4, 0)


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ll")
    export_pi05(checkpoint, folder)
    return folder


@pytest.fixture
def policy(settings: LowLevelConfig, exported: Path) -> LowLevelPolicy:
    return LowLevelPolicy.from_folder(settings, exported)


@pytest.fixture
def in_torch(settings: LowLevelConfig, checkpoint: Path) -> TorchLowLevel:
    return TorchLowLevel(checkpoint, settings)


def test_the_exported_policy_gives_the_same_chunk(
    policy: LowLevelPolicy, in_torch: TorchLowLevel, observation: Observation
) -> None:
    for call in range(3):
        noise = policy.noise(7, call)
        ours = policy.act(observation, SUBGOAL, "goal", noise)
        theirs = in_torch.act(observation, SUBGOAL, "goal", noise)
        np.testing.assert_allclose(ours.chunk.actions, theirs.chunk.actions, atol=1e-4)
    assert np.abs(policy.act(observation, SUBGOAL, "goal", policy.noise(8, 0)).chunk.actions - ours.chunk.actions).max()


def test_repeating_a_call_repeats_the_chunk_whatever_came_between(
    policy: LowLevelPolicy, observation: Observation
) -> None:
    noise = policy.noise(0, 0)
    first = policy.act(observation, SUBGOAL, "", noise)
    kept = first.chunk.actions.copy()
    policy.act(observation, replace(SUBGOAL, text="press to stop"), "", policy.noise(0, 1))
    again = policy.act(observation, SUBGOAL, "", noise)
    np.testing.assert_array_equal(first.chunk.actions, kept)
    np.testing.assert_array_equal(again.chunk.actions, kept)


def test_chunks_are_timed_from_their_observation(policy: LowLevelPolicy, observation: Observation) -> None:
    result = policy.act(observation, SUBGOAL, "", policy.noise(0, 0))
    assert result.chunk.dt_ns == 50_000_000
    assert result.chunk.t0_ns == observation.t_ns + 50_000_000
    assert result.chunk.subgoal_revision == SUBGOAL.revision
    assert result.chunk.actions.shape == (6, 8)
    assert result.chunk.actions.dtype == np.float64
    assert min(result.vision_ns, result.prefix_ns, result.step_ns) > 0


def test_actions_are_unnormalised_joint_deltas_and_a_bounded_gripper(
    policy: LowLevelPolicy, observation: Observation, checkpoint: Path
) -> None:
    stats = NormStats.load(checkpoint / "assets" / "reference" / "norm_stats.json")
    normalised = np.linspace(-3.0, 3.0, 48, dtype=np.float32).reshape(6, 8)
    actions = policy.interface.chunk(normalised, observation, 0).actions
    for joint in range(7):
        low, high = stats.actions.q01[joint], stats.actions.q99[joint]
        expected = (normalised[:, joint] + 1) / 2 * (high - low + 1e-6) + low + observation.proprioception[joint]
        np.testing.assert_allclose(actions[:, joint], expected, atol=1e-6)
    assert actions[:, 7].min() == 0.0
    assert actions[:, 7].max() == 1.0


def test_the_subgoal_and_the_state_reach_the_network(policy: LowLevelPolicy, observation: Observation) -> None:
    noise = policy.noise(0, 0)
    base = policy.session.denoise(*_inputs(policy, observation, SUBGOAL.text), noise).actions
    other = policy.session.denoise(*_inputs(policy, observation, SUBGOAL.text.replace("120", "20")), noise).actions
    moved = replace(observation, proprioception=observation.proprioception + 0.3)
    elsewhere = policy.session.denoise(*_inputs(policy, moved, SUBGOAL.text), noise).actions
    assert np.abs(base - other).max() > 1e-3
    assert np.abs(base - elsewhere).max() > 1e-3


@torch.no_grad()
def test_dropping_a_view_and_padding_equals_masking_them(
    policy: LowLevelPolicy, in_torch: TorchLowLevel, observation: Observation
) -> None:
    images, tokens = _inputs(policy, observation, SUBGOAL.text)
    noise = policy.noise(0, 0)
    ours = policy.session.denoise(images[1:], tokens, noise).actions

    padded = torch.zeros(1, len(tokens) + 9, dtype=torch.long)
    padded[0, : len(tokens)] = torch.from_numpy(tokens)
    mask = torch.arange(padded.shape[1])[None] < len(tokens)
    views = torch.from_numpy(np.stack(images)).float()[None] / 127.5 - 1.0
    network: Pi05 = in_torch.network
    prefix = network.prefix(views, padded, mask, view_mask=torch.tensor([[False, True]]))
    theirs = sample_actions(network, prefix, torch.from_numpy(noise)[None])[0]
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


@torch.no_grad()
def test_the_modulation_table_is_the_networks(exported: Path, in_torch: TorchLowLevel) -> None:
    _, table = read_tables(exported.joinpath)
    for row, t in zip(table, flow_times(10), strict=True):
        np.testing.assert_allclose(row, in_torch.network.modulation(torch.tensor(t)).numpy(), atol=1e-6)


def test_an_engine_without_bound_memory_gives_the_same(
    policy: LowLevelPolicy, exported: Path, observation: Observation
) -> None:
    class Plain:
        """Only the protocol: no `bind`."""

        def __init__(self, engine: object) -> None:
            self.run = engine.run  # type: ignore[attr-defined]

    inner = policy.session
    engines = {"vision": inner._vision, "prefix": inner._prefix, "step": Plain(inner._step)}
    plain = LowLevelSession(inner.model, *read_tables(exported.joinpath), **engines)  # type: ignore[arg-type]
    inputs, noise = _inputs(policy, observation, SUBGOAL.text), policy.noise(0, 0)
    np.testing.assert_array_equal(plain.denoise(*inputs, noise).actions, inner.denoise(*inputs, noise).actions)


def test_nodes_are_named_after_what_a_precision_plan_calls_them(exported: Path) -> None:
    layer = {"qkv", "output", "gate_up", "down"}
    expected = {
        "vision": {"patch_embedding", "projector", *(f"blocks.0.{n}" for n in ("qkv", "output", "up", "down"))},
        "prefix": {"layers.2.kv", *(f"layers.0.{n}" for n in layer)},
        "step": {"action_in", "action_out", *(f"layers.0.{n}" for n in layer)},
    }
    for name, wanted in expected.items():
        model = onnx.load(str(exported / f"{name}.onnx"))
        canonicalise(model)
        constants = {tensor.name for tensor in model.graph.initializer}
        products = {node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constants}
        others = {node.name for node in model.graph.node} - products
        assert {f"{module}/MatMul" for module in wanted} <= products
        assert not {
            node for node in products if not re.match(r"(patch_embedding|projector|action_|blocks|layers)", node)
        }
        stack, norm = ("blocks", "LayerNormalization") if name == "vision" else ("layers", "Sqrt")
        assert {f"{stack}.1.norm1/{norm}", f"{stack}.1.norm2/{norm}", f"{stack}.1.attention/Softmax"} <= others


def test_every_pattern_of_the_cpu_target_keeps_something(exported: Path) -> None:
    patterns = load_target("cpu").int8_settings().keep_fp32
    for name in ("vision", "prefix", "step"):
        model = onnx.load(str(exported / f"{name}.onnx"))
        canonicalise(model)
        products = [node.name for node in model.graph.node if node.op_type in ("MatMul", "Gemm", "Conv")]
        for pattern in patterns[f"ll/{name}"]:
            assert fnmatch.filter(products, pattern), pattern


def test_a_missing_camera_is_refused_by_name(policy: LowLevelPolicy, observation: Observation) -> None:
    blind = replace(observation, frames={"front": observation.frames["front"]})
    with pytest.raises(MemrtError, match="no frame of wrist"):
        policy.act(blind, SUBGOAL, "", policy.noise(0, 0))


def test_noise_of_another_policy_is_refused(policy: LowLevelPolicy, observation: Observation) -> None:
    with pytest.raises(MemrtError, match=r"\[6, 8\]"):
        policy.act(observation, SUBGOAL, "", np.zeros((16, 8), np.float32))


@pytest.mark.parametrize(("field", "value"), [("horizon", 16), ("image_size", 96), ("denoise_steps", 5)])
def test_settings_of_other_weights_are_refused(
    settings: LowLevelConfig, exported: Path, field: str, value: int
) -> None:
    with pytest.raises(MemrtError, match=field):
        LowLevelPolicy.from_folder(msgspec.structs.replace(settings, **{field: value}), exported)


def test_a_table_of_another_model_is_refused(policy: LowLevelPolicy, exported: Path) -> None:
    inner = policy.session
    embedding, modulation = read_tables(exported.joinpath)
    with pytest.raises(MemrtError, match="modulation"):
        LowLevelSession(
            inner.model, embedding, modulation[:5], vision=inner._vision, prefix=inner._prefix, step=inner._step
        )


def _inputs(policy: LowLevelPolicy, observation: Observation, subgoal: str) -> tuple[list[np.ndarray], np.ndarray]:
    return policy.interface.images(observation), policy.interface.prompt(observation, subgoal, "")
