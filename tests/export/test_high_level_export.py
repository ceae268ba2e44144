from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("transformers")

from tiny_vlm import IMAGE_SIZE, write_tiny_vlm

from memrt.calib.chats import Chat
from memrt.export.engine_build import build_engine, canonicalise_file
from memrt.export.gates import answer_agreement
from memrt.export.high_level_export import (
    TAPPED_DECODER_CALLS,
    engine_answers,
    parts,
    tap,
    torch_answers,
)
from memrt.export.target import load_target
from memrt.export.vlm_graphs import export_vlm, load_vlm
from memrt.runtime.manifest import sha256_of
from memrt.runtime.policy.vlm_config import read_vlm_config

WORDS = ("pick", "up", "the", "red", "cube", "<120, 88>", "for", "second", "time", "and", "place", "it", "target")


def recorded(count: int) -> list[Chat]:
    rng = np.random.default_rng(0)
    return [
        Chat(
            images=(rng.integers(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8),),
            system="You are a helpful assistant.",
            user="The task goal is: " + " ".join(rng.choice(WORDS, 6)) + "\n<image>What's next?",
            reply=" ".join(rng.choice(WORDS, int(rng.integers(1, 12)))),
        )
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vlm(tmp_path_factory.mktemp("vlm"))


@pytest.fixture(scope="module")
def exported(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("staging")
    export_vlm(weights, None, root / "hl", capacity=256, image_sizes=[(IMAGE_SIZE, IMAGE_SIZE)])
    for name in ("vision", "decoder"):
        canonicalise_file(root / "hl" / f"{name}.onnx")
    return root


def test_engines_say_what_transformers_says(weights: Path, exported: Path) -> None:
    samples = recorded(6)
    expected = torch_answers(load_vlm(weights, None), exported / "hl", samples)
    assert len({int(token) for answer in expected for token in answer}) > 5  # the answers must tell something
    record = answer_agreement("fp32", expected, engine_answers(exported / "hl", samples))
    assert record["identical_tokens"] == 1.0


def test_answers_depend_on_the_image(exported: Path) -> None:
    first, second = recorded(2)
    shown = [first, Chat(second.images, first.system, first.user, first.reply)]
    seen, other = engine_answers(exported / "hl", shown)
    assert not np.array_equal(seen, other)


def test_tapped_feeds_are_gated_against_torch(weights: Path, exported: Path, tmp_path: Path) -> None:
    samples = recorded(4)
    stores = tap(exported / "hl", samples, tmp_path)
    config = read_vlm_config(exported / "hl" / "config.json")
    assert len(stores["vision"]) == 4
    assert 4 < len(stores["decoder"]) <= 4 * len(TAPPED_DECODER_CALLS)
    rows = [len(feed["embeddings"]) for feed in stores["decoder"]]
    assert rows.count(1) == len(rows) - 4  # one reading of the prompt per call, single tokens otherwise
    for part in parts(load_vlm(weights, None), config, stores, stores):
        record = build_engine(part, exported, "fp32", load_target())
        assert record.gate["relative_l2"] < 1e-5


def test_exporting_twice_gives_the_same_bytes(weights: Path, exported: Path, tmp_path: Path) -> None:
    export_vlm(weights, None, tmp_path / "hl", capacity=256, image_sizes=[(IMAGE_SIZE, IMAGE_SIZE)])
    for name in ("vision", "decoder"):
        canonicalise_file(tmp_path / "hl" / f"{name}.onnx")
    for path in sorted((tmp_path / "hl").iterdir()):
        assert sha256_of(path) == sha256_of(exported / "hl" / path.name), path.name
