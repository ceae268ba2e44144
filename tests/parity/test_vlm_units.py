"""A VLM in streaming units is the whole VLM: the same names, the same values, the same results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny_vlms as tiny
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from memrt.export.streaming.stages import LockStep, mounted
from memrt.export.vlm_decoder import DecoderGraph
from memrt.export.vlm_families import family_of, vision_graph
from memrt.export.vlm_family import StreamingUnit
from memrt.export.vlm_graphs import (
    decoder_example,
    decoder_inputs,
    decoder_shapes,
    vision_outputs,
    vlm_config,
)
from memrt.export.vlm_units import streaming_units
from memrt.runtime.errors import MemrtError

# In pixels; both families' blocks divide them. Neither side is a whole number of Qwen2.5-VL's windows (112 pixels).
SIZES = {"qwen3_vl": [(256, 256), (320, 352)], "qwen2_5_vl": [(252, 252), (308, 364)]}


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def whole(model: Any, sizes: list[tuple[int, int]]) -> dict[str, Any]:
    """Every graph by its name."""
    return {f"vision_{height}x{width}": vision_graph(model, (height, width)) for height, width in sizes} | {
        "decoder": DecoderGraph(model)
    }


def built(model: Any, units: list[StreamingUnit]) -> Iterator[tuple[StreamingUnit, Any]]:
    for unit in units:
        yield unit, unit.build(*(model.get_submodule(path) for path in unit.sources))


def test_units_hold_every_value_of_every_graph_once(family: str) -> None:
    model = tiny.model(family)
    wanted = {(name, key): value for name, graph in whole(model, SIZES[family]).items() for key, value in _state(graph)}
    found: dict[tuple[str, str], torch.Tensor] = {}
    for unit, module in built(model, streaming_units(model, SIZES[family])):
        for key, value in _state(module):
            assert (unit.graph, unit.prefix + key) not in found
            found[unit.graph, unit.prefix + key] = value
    assert found.keys() == wanted.keys()
    for place, value in wanted.items():
        assert torch.equal(found[place], value), place


def _state(module: Any) -> list[tuple[str, torch.Tensor]]:
    return list(module.state_dict().items())


def test_a_graph_without_weights_runs_on_the_units_mounted_in_turn(family: str) -> None:
    model = tiny.model(family)
    size, config = SIZES[family][1], model.config
    generator = torch.Generator().manual_seed(5)
    example = decoder_example(vlm_config(config, 32, [size]), tokens=4)
    feed = [t if t.dtype == torch.int64 else torch.randn(t.shape, generator=generator) for t in example]
    feed[decoder_inputs(config).index("past_length")][0] = 7
    feeds = {"vision": [torch.from_numpy(tiny.picture(3, *size))], "decoder": feed}
    with torch.device("meta"):
        empty = type(model)._from_config(config)
    graphs = {"vision": vision_graph(empty, size), "decoder": DecoderGraph(empty)}
    passes = {name: LockStep(graph, [feeds[name]]) for name, graph in graphs.items()}
    for unit, module in built(model, streaming_units(model, [size])):
        name = unit.prefix.removesuffix(".")
        assert passes[unit.graph].unit == name
        with mounted(graphs[unit.graph], name, module):
            passes[unit.graph].advance()
    with torch.no_grad():
        seen, decoded = vision_graph(model, size)(feeds["vision"][0]), DecoderGraph(model)(*feed)
    expected = {"vision": (seen,) if isinstance(seen, torch.Tensor) else seen, "decoder": decoded}
    assert len(expected["vision"]) == len(vision_outputs(config))
    for name, outputs in expected.items():
        for found, value in zip(passes[name].outputs[0], outputs, strict=True):
            assert torch.equal(found, value)


def test_graphs_are_built_and_exported_from_fake_weights(family: str) -> None:
    """Names and shapes as from real weights, and every weight is an initialiser of the graph under its own name."""
    config, sizes = tiny.model(family).config, SIZES[family][1:]
    expected = {name: _shapes(graph) for name, graph in whole(tiny.model(family), sizes).items()}
    with FakeTensorMode():
        model = type(tiny.model(family))._from_config(config)
        assert {name: _shapes(graph) for name, graph in whole(model, sizes).items()} == expected
        graph, settings = DecoderGraph(model).eval(), vlm_config(config, 64, sizes)
        program = torch.onnx.export(
            graph,
            decoder_example(settings),
            dynamo=True,
            opset_version=20,
            input_names=list(decoder_inputs(config)),
            dynamic_shapes=decoder_shapes(config, 64),
            optimize=False,
            verbose=False,
        )
    assert program is not None
    assert set(expected["decoder"]) <= set(program.model.graph.initializers)


def test_graphs_are_built_on_the_meta_device(family: str) -> None:
    with torch.device("meta"):
        model = type(tiny.model(family))._from_config(tiny.model(family).config)
    sizes = SIZES[family][:1]
    expected = whole(tiny.model(family), sizes)
    for name, graph in whole(model, sizes).items():
        assert _shapes(graph) == _shapes(expected[name])


def _shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in graph.state_dict().items()}


def test_a_size_that_is_not_whole_blocks_is_refused(family: str) -> None:
    with pytest.raises(MemrtError, match="multiples of"):
        vision_graph(tiny.model(family), (256, 250))


def test_unknown_architectures_and_settings_are_refused() -> None:
    from transformers import Qwen2_5_VLConfig, Qwen2VLConfig

    with pytest.raises(MemrtError, match="qwen3_vl or qwen2_5_vl, found qwen2_vl"):
        family_of(Qwen2VLConfig())
    with pytest.raises(MemrtError, match="sliding window"):
        family_of(Qwen2_5_VLConfig(text_config={"use_sliding_window": True}))
