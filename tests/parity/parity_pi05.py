"""A random π0.5, its exported graphs behind the runtime's session, and what the session feeds its step engine."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memrt.export.pi05_graphs import write_low_level
from memrt.runtime.engine import open_engine
from memrt.runtime.policy.low_level_config import read_low_level_model
from memrt.runtime.policy.low_level_session import LowLevelSession, read_tables
from memrt.train.pi05.config import tiny
from memrt.train.pi05.model import Pi05
from memrt.train.pi05.policy import runtime_model

VOCABULARY = 90


def random_pi05(seed: int = 0) -> Pi05:
    """Every weight random, those of norms included: a zero would hide a mistake."""
    torch.manual_seed(seed)
    model = Pi05(tiny(VOCABULARY))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        model.language_model.embed_tokens.weight.mul_(0.2)  # as large as the views' tokens, times √width
    return model.eval()


@dataclass
class Listened:
    """An engine of the protocol that keeps its feeds and results; it offers no `bind`."""

    engine: Any
    feeds: list[dict[str, np.ndarray]] = field(default_factory=list)
    results: list[dict[str, np.ndarray]] = field(default_factory=list)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.feeds.append({name: np.array(value) for name, value in feeds.items()})
        self.results.append(self.engine.run(feeds))
        return self.results[-1]

    def close(self) -> None:
        self.engine.close()


@dataclass(frozen=True)
class Exported:
    """A model, its graphs, and a session whose `_step` and `_step_rtc` are `Listened`."""

    model: Pi05
    folder: Path
    session: LowLevelSession
    _keep: tempfile.TemporaryDirectory[str]


@cache
def exported_pi05() -> Exported:
    """One export for all parity tests: tracing four graphs takes longer than all of them."""
    keep = tempfile.TemporaryDirectory()
    model, folder = random_pi05(), Path(keep.name)
    write_low_level(model, runtime_model(model.config, bos="<bos>"), folder, step_rtc=True)
    engines: dict[str, Any] = {name: open_engine(folder / f"{name}.onnx") for name in ("vision", "prefix")}
    for name in ("step", "step_rtc"):
        engines[name] = Listened(open_engine(folder / f"{name}.onnx"))
    session = LowLevelSession(read_low_level_model(folder / "config.json"), *read_tables(folder.joinpath), **engines)
    return Exported(model, folder, session, keep)


def random_call(seed: int, tokens: int, horizon: int = 6, width: int = 8, size: int = 32) -> tuple[Any, Any, Any]:
    """Three views, a prompt of `tokens` ids, noise."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    return images, rng.integers(0, VOCABULARY, tokens), rng.normal(size=(horizon, width)).astype(np.float32)
