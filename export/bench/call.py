"""`memrt bench step --call`: a whole π0.5 call, three views, the prefix and ten denoise steps.

In fp32 the model takes 11 GB without its embedding table. So the implementations run one after another, each in a
process of its own, each with the whole model resident.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from memrt.export.bench.pi05 import BenchPi05, call_engines, step_engine
from memrt.export.bench.race import Contestant, Progress, Race, Settings
from memrt.export.bench.step import NAMES, NS_PER_MS, OURS, SCHEMES, TORCH, load_expert, summary
from memrt.export.bench.stock import StockSession
from memrt.export.checkpoints.disk import check_disk
from memrt.export.checkpoints.source import materialise
from memrt.export.pi05_units import PALIGEMMA, TOWER
from memrt.runtime.bench.hardware import GIB, check_memory
from memrt.runtime.engine import open_engine
from memrt.runtime.policy.low_level_session import LowLevelSession
from memrt.runtime.policy.preprocess import normalise_image
from memrt.runtime.types import Engine
from memrt.train.pi05.model import Pi05, Prefix
from memrt.train.pi05.sampling import sample_actions

PARTS = ("vision", "prefix", "steps")
STACK = f"{PALIGEMMA}.language_model.layers"
FIX = "close other programs, or leave --call out"


def bench_call(size: str, *, threads: int, runs: int, work: Path, progress: Progress) -> dict[str, Any]:
    """The report of whole calls, as plain JSON values. Raises MemrtError as `bench_step` does."""
    model = BenchPi05.open(size)
    check_call(model, work)
    torch.set_num_threads(threads)
    folders = {}
    for name, scheme in SCHEMES.items():
        step = step_engine(model, scheme, work, progress)
        folders[name] = {"step": str(step), "folder": str(call_engines(model, scheme, work, progress))}
    race = Race(__name__, {"size": size, "threads": threads, "engines": folders}, runs)
    found = {}
    for name in NAMES:
        found.update(race.apart([name], progress))
    parts = {name: {part: one.median(part) for part in PARTS} for name, one in found.items()}
    return {
        "views": model.settings.max_views,
        "prefix_tokens": model.prefix_tokens,
        "denoise_steps": model.settings.denoise_steps,
        **summary(found, "call"),
        "parts_ms": parts,
        "how": "one implementation after another, each in a process of its own with the whole model resident",
    }


def check_call(model: BenchPi05, work: Path) -> None:
    """Raise MemrtError unless memory and disk are enough: fp32 weights once resident, once on disk; int8 beside it."""
    weights = model.elements(TOWER) + model.elements(STACK) + model.elements("paligemma_with_expert.gemma_expert")
    check_memory(int(weights * 4.2) + 3 * GIB // 2, f"bench step --size {model.size} --call", FIX)
    check_disk(work, weights * 5 + GIB // 10)


def contestant(name: str, settings: Settings) -> Contestant:
    """One of `NAMES`, loaded."""
    threads = int(settings["threads"])
    torch.set_num_threads(threads)
    model = BenchPi05.open(settings["size"])
    if name == TORCH:
        return _TorchCall(model)
    places = settings["engines"][name]
    paths = {part: Path(places["folder"]) / f"{part}.onnx" for part in ("vision", "prefix")}
    paths["step"] = Path(places["step"])
    engines: dict[str, Engine] = {
        part: open_engine(path, threads=threads) if name == OURS else StockSession(path, threads)
        for part, path in paths.items()
    }
    return _SessionCall(model, engines)


class _SessionCall:
    """The runtime's own session over our engines, or over stock ONNX Runtime."""

    def __init__(self, model: BenchPi05, engines: dict[str, Engine]) -> None:
        rows = model.prompt_rows * np.float32(model.config.prefix.width**0.5)
        self._session = LowLevelSession(model.settings, rows, model.modulation, **engines)
        self._tokens = np.arange(len(rows), dtype=np.int64)
        self._images, self._noise = list(model.images()), model.noise()
        self._actions = self._noise

    def run(self) -> dict[str, float]:
        start = time.perf_counter_ns()
        done = self._session.denoise(self._images, self._tokens, self._noise)
        end = time.perf_counter_ns()
        self._actions = done.actions
        parts = zip(PARTS, (done.vision_ns, done.prefix_ns, done.step_ns), strict=True)
        return {"call": (end - start) / NS_PER_MS, **{part: taken / NS_PER_MS for part, taken in parts}}

    def outputs(self) -> dict[str, NDArray[Any]]:
        return {"actions": self._actions}

    def close(self) -> None:
        self._session.close()


class _TorchCall:
    """The training network, batch of one, all views in one pass of the tower."""

    def __init__(self, model: BenchPi05) -> None:
        network = load_expert(model.blank(), model)
        for part in (f"{PALIGEMMA}.vision_tower", f"{PALIGEMMA}.multi_modal_projector", STACK):
            materialise(network.get_submodule(part), model.source, f"{part}.")
        rows = torch.from_numpy(model.prompt_rows)
        network.language_model.embed_tokens = nn.Embedding(len(rows), rows.shape[1], _weight=rows)
        self._network: Pi05 = network
        self._images, self._noise = model.images(), torch.from_numpy(model.noise())[None]
        self._tokens = torch.arange(len(rows))[None]
        self._actions = self._noise

    @torch.inference_mode()
    def run(self) -> dict[str, float]:
        start = time.perf_counter_ns()
        views = np.stack([normalise_image(image) for image in self._images]).astype(np.float32)
        embeddings = self._network.embed_prefix(torch.from_numpy(views)[None], self._tokens)
        seen = time.perf_counter_ns()
        length = embeddings.shape[1]
        cache = self._network.language_model(embeddings, torch.arange(length)[None])
        read = time.perf_counter_ns()
        self._actions = sample_actions(self._network, Prefix(cache, None, torch.tensor([length])), self._noise)
        end = time.perf_counter_ns()
        taken = (seen - start, read - seen, end - read)
        parts = {part: value / NS_PER_MS for part, value in zip(PARTS, taken, strict=True)}
        return {"call": (end - start) / NS_PER_MS, **parts}

    def outputs(self) -> dict[str, NDArray[Any]]:
        return {"actions": self._actions[0].numpy()}

    def close(self) -> None:
        self._network = nn.Module()  # type: ignore[assignment]  # its weights are given back here
