"""A tiny π0.5 with random weights, its checkpoint folder, and observations for it."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from memrt.runtime.config import LowLevelConfig, load_policy
from memrt.runtime.policy.preprocess import norm_stats_document
from memrt.runtime.types import Frame, Observation
from memrt.train.low_level_tokenizer import BOS, build_tokenizer
from memrt.train.pi05.checkpoint import TOKENIZER, write_checkpoint

sys.path.insert(0, str(Path(__file__).parent))  # the helpers beside the tests, under importlib import mode

from tiny_pi05 import random_model

TEXTS = ["pick up the red cube <120, 88> for the first time", "place the red cube onto the target", "press to stop"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def settings() -> LowLevelConfig:
    """The grounded policy's low-level block at the tiny model's sizes."""
    low_level = load_policy("am_grounded").low_level
    return msgspec.structs.replace(low_level, image_size=32, horizon=6, execute=3)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of a tiny random model."""
    folder = tmp_path_factory.mktemp("checkpoint")
    rng = np.random.default_rng(0)
    tokenizer = build_tokenizer(TEXTS)
    model = random_model(tokenizer.get_vocab_size())
    stats = norm_stats_document(rng.normal(size=(60, 8)), rng.normal(size=(60, 6, 8)))
    write_checkpoint(folder, model.config, model.state_dict(), bos=BOS, stats=stats)
    tokenizer.save(str(folder / TOKENIZER))
    return folder


@pytest.fixture
def observation() -> Observation:
    """Noise images of another shape than the network's, and a random arm."""
    rng = np.random.default_rng(3)
    frames = {
        name: Frame(name, 5, 1_000, rng.integers(0, 256, (24, 40, 3), dtype=np.uint8)) for name in ("front", "wrist")
    }
    return Observation(1_000, rng.normal(size=8) * 0.5, frames)
