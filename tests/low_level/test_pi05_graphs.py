"""The graph modules as modules: against the training network, unit by unit, and at the released size on no weights."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pi05 import random_model
from torch._subclasses.fake_tensor import FakeTensorMode

from memrt.export.pi05_graphs import INPUTS, example, graphs, modulation_table, prefix_profiles, shapes
from memrt.export.pi05_reference import references
from memrt.export.pi05_tables import read_modulation_table, table_times, write_embedding_table
from memrt.export.pi05_units import streaming_units
from memrt.runtime.policy.low_level_config import LowLevelModel
from memrt.train.pi05.config import Pi05Config, pi05, tiny
from memrt.train.pi05.model import Pi05
from memrt.train.pi05.policy import runtime_model


def sizes(model: Pi05) -> LowLevelModel:
    return runtime_model(model.config, bos="<bos>")


def grouped(seed: int = 0) -> Pi05:
    """Two key/value heads for four query heads: the released model has one, its layout another path."""
    config = tiny(50)
    heads = {"heads": 4, "kv_heads": 2}
    torch.manual_seed(seed)
    model = Pi05(replace(config, prefix=replace(config.prefix, **heads), expert=replace(config.expert, **heads)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def random_inputs(settings: LowLevelModel, name: str, tokens: int) -> list[torch.Tensor]:
    """Of the shapes of `example`, positions kept."""
    generator = torch.Generator().manual_seed(tokens)
    inputs = []
    for key, value in zip(INPUTS[name], example(settings, name, tokens), strict=True):
        if key == "row":
            inputs.append((torch.arange(len(value)) < 2).long())
        elif value.dtype == torch.uint8:
            inputs.append(torch.randint(0, 256, value.shape, generator=generator, dtype=torch.uint8))
        else:
            inputs.append(torch.randn(value.shape, generator=generator) if value.is_floating_point() else value)
    return inputs


@pytest.mark.parametrize("build", [lambda: random_model(300), grouped], ids=["one kv head", "two kv heads"])
@torch.no_grad()
def test_every_graph_computes_what_the_training_network_does(build) -> None:
    model = build()
    settings, wanted = sizes(model), references(model)
    for name, graph in graphs(model, settings, step_rtc=True).items():
        for tokens in (2, 9):
            inputs = random_inputs(settings, name, tokens)
            ours, theirs = graph(*inputs), wanted[name](*inputs)
            for found, expected in zip(*([x] if torch.is_tensor(x) else x for x in (ours, theirs)), strict=True):
                torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_units_are_the_graphs_in_the_order_of_their_calls() -> None:
    model = random_model(300)
    settings = sizes(model)
    modules = graphs(model, settings, step_rtc=True)
    units = streaming_units(model.config, settings, step_rtc=True)
    found: dict[str, dict[str, torch.Tensor]] = {name: {} for name in modules}
    for unit in units:
        part = unit.build(*(model.get_submodule(source) for source in unit.sources))
        for name, value in part.state_dict().items():
            assert unit.prefix + name not in found[unit.graph], f"{unit.prefix}{name} belongs to two units"
            found[unit.graph][unit.prefix + name] = value
    for name, graph in modules.items():
        expected = graph.state_dict()
        assert found[name].keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[name][key], value, rtol=0, atol=0)
        with torch.no_grad():
            called = [unit for unit, _ in graph.stages(*random_inputs(settings, name, 3))]
        assert [f"{unit}." for unit in called] == [unit.prefix for unit in units if unit.graph == name]


def test_units_read_every_tensor_of_a_checkpoint_but_those_of_tables() -> None:
    model = random_model(300)
    sources = [s for unit in streaming_units(model.config, sizes(model)) for s in unit.sources]
    unread = {n for n in model.state_dict() if not any(n.startswith(f"{source}.") for source in sources)}
    language = "paligemma_with_expert.paligemma.model.language_model"
    table = {n for n in model.state_dict() if n.startswith("time_mlp")}
    assert unread == {
        *table,
        f"{language}.embed_tokens.weight",
        f"{language}.norm.weight",
        "paligemma_with_expert.gemma_expert.model.norm.dense.weight",
        "paligemma_with_expert.gemma_expert.model.norm.dense.bias",
    }


@torch.no_grad()
def test_tables_are_read_one_tensor_at_a_time(tmp_path: Path) -> None:
    model = random_model(300)
    tensors, read = model.state_dict(), []

    def reader(name: str) -> torch.Tensor:
        read.append(name)
        return tensors[name]

    table = read_modulation_table(reader, model.config, table_times(10, step_rtc=True))
    assert len(read) == len(set(read)) == 4 + 2 * (2 * model.config.expert.depth + 1)
    times = torch.tensor([1.0 - step / 10 for step in range(10)] + [0.0])
    np.testing.assert_allclose(table, model.modulation(times).numpy(), atol=1e-6)
    np.testing.assert_array_equal(modulation_table(model, 10), table[:10])

    write_embedding_table(reader, model.config, tmp_path / "embed.npy")
    embedded = model.language_model.embed(torch.arange(model.config.vocabulary)).numpy()
    np.save(tmp_path / "whole.npy", embedded)
    assert (tmp_path / "embed.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.parametrize("mode", ["meta", "fake"])
def test_the_released_size_is_built_without_weights(mode: str) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) if mode == "fake" else nullcontext():
        with torch.device("meta") if mode == "meta" else nullcontext():
            model = Pi05(pi05())
        modules = graphs(model, sizes(model), step_rtc=True)
        units = streaming_units(model.config, sizes(model))
        layer = next(unit for unit in units if unit.graph == "prefix" and unit.prefix == "layers.3.")
        part = layer.build(*(model.get_submodule(source) for source in layer.sources))
    found = {f"{g}/{n}": tuple(v.shape) for g, module in modules.items() for n, v in module.state_dict().items()}
    expected = {
        "vision/patch_embedding.weight": (588, 1152),
        "vision/position_embedding.weight": (256, 1152),
        "vision/blocks.26.qkv.weight": (1152, 3456),
        "vision/blocks.26.down.bias": (1152,),
        "vision/projector.weight": (1152, 2048),
        "prefix/layers.16.qkv.weight": (2048, 2560),
        "prefix/layers.16.gate_up.weight": (2048, 32768),
        "prefix/layers.17.kv.weight": (2048, 512),
        "prefix/rotary.cos": (1018, 128),
        "step/layers.17.qkv.weight": (1024, 2560),
        "step/layers.17.output.weight": (2048, 1024),
        "step/layers.17.down.weight": (4096, 1024),
        "step_rtc/action_in.weight": (32, 1024),
        "step_rtc/action_out.bias": (32,),
    }
    assert {name: found.get(name) for name in expected} == expected
    assert "prefix/layers.17.gate_up.weight" not in found  # the last block's output is used by nobody
    assert {f"prefix/layers.3.{n}": tuple(v.shape) for n, v in part.state_dict().items()}.items() <= found.items()


CONFIGURATIONS = (pi05(), pi05(horizon=15, max_token_len=48), tiny())


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=lambda config: f"{config.name}-{config.max_token_len}")
def test_profiles_cover_every_length_that_occurs(config: Pi05Config) -> None:
    settings = runtime_model(config, bos="<bos>")
    profiles = prefix_profiles(settings)
    assert profiles == sorted(set(profiles))
    longest = settings.max_views * settings.vision_tokens + settings.max_token_len
    assert profiles[-1] == longest
    for views in range(1, settings.max_views + 1):
        assert views * settings.vision_tokens + settings.max_token_len in profiles
    (length,) = {d.max for d in (shapes(settings, "prefix") or ({},))[0].values()}  # type: ignore[union-attr]
    assert length == longest


def test_the_released_sizes_profiles() -> None:
    settings = runtime_model(pi05(), bos="<bos>")
    assert prefix_profiles(settings) == [288, 320, 384, 456, 544, 576, 640, 712, 800, 832, 896, 968]
