from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from memrt.export.checkpoints.safetensors_folder import INDEX, SINGLE, SafetensorsFolder  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402
from memrt.runtime.manifest import sha256_of  # noqa: E402

TENSORS = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "b.weight": torch.arange(6.0).bfloat16().reshape(2, 3),
    "c.bias": torch.arange(5.0).half(),
}


@pytest.fixture
def single(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / SINGLE, metadata={"format": "pt"})
    return tmp_path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    parts = {"one.safetensors": ["a.weight"], "two.safetensors": ["b.weight", "c.bias"]}
    for file, names in parts.items():
        save_file({name: TENSORS[name] for name in names}, tmp_path / file)
    index = {"metadata": {}, "weight_map": {name: file for file, names in parts.items() for name in names}}
    (tmp_path / INDEX).write_text(json.dumps(index))
    return tmp_path


@pytest.mark.parametrize("layout", ["single", "sharded"])
def test_reads_what_was_written(layout: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(layout)
    source = SafetensorsFolder(folder)
    assert source.names() == tuple(sorted(TENSORS))
    assert source.label == folder.name
    for name, tensor in TENSORS.items():
        found = source.read(name)
        assert (found.dtype, source.shape(name)) == (tensor.dtype, tuple(tensor.shape))
        assert torch.equal(found, tensor)
    files = [SINGLE] if layout == "single" else ["one.safetensors", "two.safetensors"]
    assert source.fingerprint() == {file: sha256_of(folder / file) for file in files}


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 4), max_size=4), st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
        ),
        min_size=1,
        max_size=5,
    )
)
def test_reads_every_shape_and_dtype(tmp_path: Path, parts: list) -> None:
    tensors = {f"t{number}": torch.randn(shape).to(dtype) for number, (shape, dtype) in enumerate(parts)}
    save_file(tensors, tmp_path / SINGLE)
    source = SafetensorsFolder(tmp_path)
    for name, tensor in tensors.items():
        assert source.read(name).dtype == tensor.dtype
        assert torch.equal(source.read(name), tensor)


def test_a_read_tensor_belongs_to_the_reader(single: Path) -> None:
    source = SafetensorsFolder(single)
    source.read("a.weight").zero_()
    assert torch.equal(source.read("a.weight"), TENSORS["a.weight"])


@pytest.mark.parametrize("lost", [1, 30, 100, 10_000])
def test_refuses_a_truncated_file_at_open(single: Path, lost: int) -> None:
    content = (single / SINGLE).read_bytes()
    (single / SINGLE).write_bytes(content[:-lost] if lost < len(content) else b"")
    with pytest.raises(MemrtError, match=r"model\.safetensors.*copy the file again"):
        SafetensorsFolder(single)


def test_refuses_a_truncated_shard_at_open(sharded: Path) -> None:
    content = (sharded / "two.safetensors").read_bytes()
    (sharded / "two.safetensors").write_bytes(content[:-1])
    with pytest.raises(MemrtError, match=r"two\.safetensors: expected \d+ bytes, as its header says"):
        SafetensorsFolder(sharded)


def test_refuses_bytes_that_belong_to_nothing(single: Path) -> None:
    with (single / SINGLE).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(MemrtError, match="as its header says"):
        SafetensorsFolder(single)


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"a": entry(0, 8, [2]), "b": entry(12, 16, [1])}, "without gaps"),
        ({"a": entry(0, 8, [2]), "b": entry(4, 16, [3])}, "without gaps"),
        ({"a": entry(0, 16, [3])}, r"\[3\] in 16 bytes"),
        ({"a": entry(16, 0, [4])}, "in -16 bytes"),
        ({"a": {"dtype": "F32"}}, "data_offsets"),
        ({"a": 3}, "header"),
        ([1], "header"),
    ],
)
def test_refuses_a_header_that_lies(tmp_path: Path, header: object, told: str) -> None:
    text = json.dumps(header).encode()
    (tmp_path / SINGLE).write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    with pytest.raises(MemrtError, match=told):
        SafetensorsFolder(tmp_path)


def test_refuses_missing_files(sharded: Path, tmp_path: Path) -> None:
    (sharded / "one.safetensors").unlink()
    with pytest.raises(MemrtError, match=r"2 shards, found 1 missing: one\.safetensors"):
        SafetensorsFolder(sharded)
    (sharded / INDEX).write_text("{}")
    with pytest.raises(MemrtError, match="weight_map"):
        SafetensorsFolder(sharded)
    (sharded / INDEX).unlink()
    with pytest.raises(MemrtError, match="neither"):
        SafetensorsFolder(tmp_path)


def test_refuses_a_shard_without_the_tensor_it_should_hold(sharded: Path) -> None:
    save_file({"c.bias": TENSORS["c.bias"]}, sharded / "two.safetensors")
    with pytest.raises(MemrtError, match=r"two\.safetensors: expected the tensor b\.weight"):
        SafetensorsFolder(sharded)


def test_refuses_to_read_quantised_tensors(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(4, dtype=torch.int8)}, tmp_path / SINGLE)
    with pytest.raises(MemrtError, match="found I8"):
        SafetensorsFolder(tmp_path).read("a")
