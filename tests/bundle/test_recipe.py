"""Build recipes: what is written is what is read, and mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.engine.tensorrt_profiles import length_profiles
from memrt.runtime.errors import MemrtError
from memrt.runtime.recipe import Recipe, read_recipe, recipe_file, write_recipe

ENGINES = st.sampled_from(["hl/decoder", "hl/vision", "ll/prefix", "ll/step"])


def recipe(engine: str = "hl/decoder", **changes) -> Recipe:
    values = {
        "engine": engine,
        "graph": f"{engine}.onnx",
        "precision": "int4, bf16",
        "profiles": length_profiles({"embeddings": ("tokens", 64), "cos": ("tokens", 16)}, [1, 128, 512]),
        "workspace_bytes": 1 << 30,
        "weights_bytes": 2_000_000_000,
        "timing_cache": "orin",
    }
    return Recipe(**(values | changes))


@given(ENGINES, st.integers(1, 1 << 40), st.integers(0, 1 << 40), st.lists(st.integers(1, 99), min_size=1, unique=True))
def test_what_is_written_is_read(
    tmp_path_factory, engine: str, workspace: int, weights: int, lengths: list[int]
) -> None:
    root = tmp_path_factory.mktemp("bundle")
    profiles = length_profiles({"x": ("tokens", 3)}, sorted(lengths))
    written = recipe(engine, workspace_bytes=workspace, weights_bytes=weights, profiles=profiles)
    path = write_recipe(root, written)
    assert path == root / recipe_file(engine)
    assert read_recipe(path) == written
    content = path.read_bytes()
    assert write_recipe(root, written).read_bytes() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed": 1}, "unknown key `speed`"),
        ({"workspace_bytes": 0}, "workspace_bytes"),
        ({"schema_version": 2}, "schema_version"),
        ({"timing_cache": "../../etc"}, "timing_cache"),
        ({"backend": "tensorrt_rtx"}, "backend"),
        ({"profiles": [{"shapes": {"x": {"minimum": [2], "optimum": [1], "maximum": [3]}}}]}, "minimum <= optimum"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: dict, message: str) -> None:
    path = write_recipe(tmp_path, recipe())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(MemrtError, match=message):
        read_recipe(path)


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(MemrtError, match="expected a JSON object"):
        read_recipe(tmp_path / "x.json")
