from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoint_folders import FAMILIES, TensorSource, tiny_vlm  # noqa: E402
from torch import nn  # noqa: E402
from torch._subclasses import FakeTensorMode  # noqa: E402

from memrt.export.checkpoints.random_vlm import VLMS  # noqa: E402
from memrt.export.checkpoints.source import check_tensors, materialise  # noqa: E402
from memrt.export.checkpoints.vlm_family import MODELS  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402


class Part(nn.Module):
    """A parameter, both kinds of buffer, and a table shared with a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.table.weight
        self.steps = nn.Buffer(torch.zeros(2))


VALUES = {
    "a.table.weight": torch.arange(15.0).reshape(5, 3).bfloat16(),
    "a.head.weight": torch.arange(15.0).reshape(5, 3).bfloat16(),
    "a.steps": torch.ones(2),
}


def test_gives_parameters_and_buffers_their_values_and_keeps_what_is_shared() -> None:
    source = TensorSource(VALUES)
    with torch.device("meta"):
        part = Part()
    materialise(part, source, "a.")
    assert part.table.weight.dtype == torch.float32
    assert not part.table.weight.requires_grad
    assert part.head.weight is part.table.weight
    assert torch.equal(part.table.weight, VALUES["a.table.weight"].float())
    assert torch.equal(part.steps, torch.ones(2))
    assert sorted(source.reads) == ["a.steps", "a.table.weight"]


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("device", ["meta", "fake"])
def test_a_model_without_weights_becomes_the_model(family: str, device: str) -> None:
    reference = tiny_vlm(family)
    source = TensorSource({f"x.{name}": tensor for name, tensor in reference.state_dict().items()})
    with FakeTensorMode() if device == "fake" else torch.device("meta"):
        model = MODELS[family](VLMS[FAMILIES[family]][1]())
    materialise(model, source, "x.")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, reference(input_ids=ids).logits)
    for (name, found), (_, wanted) in zip(model.named_buffers(), reference.named_buffers(), strict=True):
        assert torch.equal(found, wanted), name


@pytest.mark.parametrize(
    ("change", "told"),
    [({"a.steps": None}, r"no a\.steps"), ({"a.steps": torch.ones(3)}, r"a\.steps of shape \[2\], found \[3\]")],
)
def test_refuses_before_it_replaces_anything(change: dict, told: str) -> None:
    source = TensorSource({name: tensor for name, tensor in (VALUES | change).items() if tensor is not None})
    with torch.device("meta"):
        part = Part()
    with pytest.raises(MemrtError, match=told):
        materialise(part, source, "a.")
    assert part.table.weight.is_meta
    assert source.reads == []


def test_refuses_buffers_that_nothing_can_rebuild() -> None:
    part = Part()
    part.scratch = nn.Buffer(torch.zeros(3, device="meta"), persistent=False)
    with pytest.raises(MemrtError, match="scratch without values"):
        materialise(part, TensorSource(VALUES), "a.")


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ({"a": (2,), "b": (3,)}, r"1 missing \['b'\]"),
        ({}, r"1 unknown \['a'\]"),
        ({"a": (2, 1)}, r"a of shape \[2, 1\], found \[2\]"),
    ],
)
def test_checks_names_and_shapes_without_reading(expected: dict, told: str) -> None:
    source = TensorSource({"a": torch.zeros(2)})
    check_tensors(source, {"a": (2,)}, "the model")
    with pytest.raises(MemrtError, match=told):
        check_tensors(source, expected, "the model")
    assert source.reads == []
