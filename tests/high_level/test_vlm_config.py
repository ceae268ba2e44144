"""Settings of exported VLMs: written and read, of this version and of the first one."""

import json
from pathlib import Path

import msgspec
import pytest

from memrt.export.vlm_families import FAMILIES
from memrt.export.vlm_graphs import engine_sizes
from memrt.export.vlm_processor import read_resize
from memrt.runtime.bundle import load_bundle
from memrt.runtime.cli.default_bundle import find_bundle
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.vlm_config import ImageSize, Resize, VlmConfig, read_vlm_config, write_vlm_config

FIRST_VERSION = {
    "layers": 4,
    "kv_heads": 2,
    "head_dim": 32,
    "width": 192,
    "vocabulary": 989,
    "deepstack_layers": 2,
    "capacity": 768,
    "rope_theta": 10000.0,
    "mrope_section": [6, 5, 5],
    "image_size": 256,
    "visual_grid": [8, 8],
    "image_token": "<|image_pad|>",
    "stop_tokens": ["<|im_end|>", "<|endoftext|>"],
}
SQUARE, WIDE = ImageSize(height=256, width=256, grid=(8, 8)), ImageSize(height=320, width=352, grid=(10, 11))


def _read(folder: Path, document: object) -> VlmConfig:
    (folder / "config.json").write_text(json.dumps(document))
    return read_vlm_config(folder / "config.json")


def test_settings_of_the_first_version_are_read(tmp_path: Path) -> None:
    config = _read(tmp_path, FIRST_VERSION)
    assert config.image_sizes == (SQUARE,)
    assert config.vision_graph(SQUARE) == "vision"
    assert (config.mrope_layout, config.resize) == ("interleaved", None)


def test_the_committed_bundle_is_read() -> None:
    bundle = load_bundle(find_bundle(None, "am_grounded", "int8"))
    assert read_vlm_config(bundle.file("hl/config.json")).image_sizes == (SQUARE,)


@pytest.mark.parametrize("sizes", [(SQUARE,), (SQUARE, WIDE)])
def test_written_settings_come_back(tmp_path: Path, sizes: tuple[ImageSize, ...]) -> None:
    resize = Resize(factor=28, min_pixels=3136, max_pixels=12_845_056)
    config = msgspec.structs.replace(
        _read(tmp_path, FIRST_VERSION), image_sizes=sizes, resize=resize, mrope_layout="sectioned"
    )
    write_vlm_config(config, tmp_path / "again.json")
    assert read_vlm_config(tmp_path / "again.json") == config
    graphs = [config.vision_graph(size) for size in sizes]
    assert graphs == (["vision"] if len(sizes) == 1 else ["vision_256x256", "vision_320x352"])


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": None},
        {"visual_grid": None},
        {"image_sizes": [{"height": 256, "width": 256, "grid": [8, 8]}] * 2},
        {"mrope_layout": "spiral"},
        {"unknown": 1},
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(MemrtError, match="VLM settings"):
        _read(tmp_path, FIRST_VERSION | change)


class _Vision:
    patch_size, spatial_merge_size, temporal_patch_size = 14, 2, 2


def _resize(folder: Path, document: object) -> Resize | None:
    (folder / "preprocessor_config.json").write_text(json.dumps(document))
    return read_resize(folder, FAMILIES["qwen2_5_vl"], _Vision)


def test_the_image_processor_of_a_checkpoint_is_read(tmp_path: Path) -> None:
    published = Resize(factor=28, min_pixels=3_136, max_pixels=12_845_056)
    assert read_resize(tmp_path, FAMILIES["qwen2_5_vl"], _Vision) == published
    assert _resize(tmp_path, {}) == published
    assert _resize(tmp_path, {"min_pixels": 1000, "max_pixels": 2000}) == Resize(
        factor=28, min_pixels=1000, max_pixels=2000
    )
    edges = {"size": {"shortest_edge": 1000, "longest_edge": 2000}}
    assert _resize(tmp_path, edges) == Resize(factor=28, min_pixels=1000, max_pixels=2000)
    assert _resize(tmp_path, {"do_resize": False}) is None


@pytest.mark.parametrize("change", [{"image_mean": [0.5, 0.5, 0.5]}, {"patch_size": 16}])
def test_another_image_processor_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(MemrtError, match="image processor"):
        _resize(tmp_path, change)


def test_engines_are_exported_for_what_the_processor_makes_of_the_frames() -> None:
    resize = Resize(factor=28, min_pixels=3_136, max_pixels=12_845_056)
    assert engine_sizes([(256, 256), (320, 360), (250, 250)], resize) == ((252, 252), (308, 364))
    assert engine_sizes([(256, 256)], None) == ((256, 256),)
