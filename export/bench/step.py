"""`memrt bench step`: one denoise step of π0.5's action expert, in int8, beside PyTorch and ONNX Runtime in fp32.

PyTorch runs the network that is trained, whose expert computes its adaptive norms from the flow time in every step, as
openpi's does. Ours has them in a table, so PyTorch is also timed without that part.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from memrt.export.bench.pi05 import BenchPi05, step_engine
from memrt.export.bench.race import Contestant, Measured, Progress, Race, Settings, relative_l2
from memrt.export.bench.stock import StockSession
from memrt.export.checkpoints.disk import check_disk
from memrt.export.checkpoints.source import materialise
from memrt.export.pi05_units import EXPERT
from memrt.export.plan import Scheme
from memrt.runtime.bench.hardware import GIB, check_memory, hardware, versions
from memrt.runtime.engine import OnnxRuntimeEngine
from memrt.train.pi05.gemma import KeyValue
from memrt.train.pi05.model import Pi05, Prefix
from memrt.train.pi05.sampling import flow_times

OURS, TORCH, STOCK = "ours", "torch_fp32", "onnxruntime_fp32"
NAMES = (OURS, TORCH, STOCK)
SCHEMES: dict[str, Scheme] = {OURS: "int8", STOCK: "fp32"}
EXPERT_PARTS = (EXPERT, "action_in_proj", "action_out_proj", "time_mlp_in", "time_mlp_out")
MEASURED_STEP = 5  # of ten: the middle of a chunk
NS_PER_MS = 1e6


def bench_step(size: str, *, threads: int, runs: int, work: Path, progress: Progress) -> dict[str, Any]:
    """The report, as plain JSON values. Raises MemrtError for an unknown size and for too little memory or disk."""
    model = BenchPi05.open(size)
    expert = sum(model.elements(part) for part in EXPERT_PARTS)
    # fp32 in PyTorch, fp32 twice in ONNX Runtime (the file, and packed for its kernels), int8 twice.
    check_memory(expert * (4 + 8 + 2) + GIB * 3 // 2, f"bench step --size {size}", "close other programs")
    check_disk(work, expert * 5 + GIB // 10)
    torch.set_num_threads(threads)
    before = hardware()
    paths = {name: step_engine(model, scheme, work, progress) for name, scheme in SCHEMES.items()}
    settings = {"size": size, "threads": threads, "engines": {name: str(path) for name, path in paths.items()}}
    found = Race(__name__, settings, runs, warm_up=2).together(NAMES, progress)
    measured = summary(found, "step")
    without = found[TORCH].median("without_modulation")
    measured["speedup"]["torch_fp32_without_modulation"] = round(without / measured["ours_ms"], 3)
    return {
        "bench": "step",
        "size": size,
        "threads": threads,
        "runs": runs,
        "prefix_tokens": model.prefix_tokens,
        "horizon": model.settings.horizon,
        "precision": "int8",
        **measured,
        "torch_fp32_without_modulation_ms": without,
        "how": "all three loaded in one process, in turns",
        "hardware": before,
        "versions": versions(),
        "measured_on": "CPU",
    }


def summary(found: dict[str, Measured], part: str, output: str | None = None) -> dict[str, Any]:
    """Medians, speedups, ours against PyTorch's numbers, and the times of all runs."""
    ours = found[OURS].median(part)
    peers = {name: one.median(part) for name, one in found.items() if name != OURS}
    key = output or next(iter(found[OURS].outputs))
    return {
        f"{OURS}_ms": ours,
        **{f"{name}_ms": value for name, value in peers.items()},
        "speedup": {name: round(value / ours, 3) for name, value in peers.items()},
        "relative_l2": relative_l2(found[TORCH].outputs[key], found[OURS].outputs[key]),
        "relative_l2_onnxruntime_fp32": relative_l2(found[TORCH].outputs[key], found[STOCK].outputs[key]),
        "all_runs_ms": {name: one.times for name, one in found.items()},
        "peak_gib": {name: round(one.peak / GIB, 2) for name, one in found.items()},
    }


def contestant(name: str, settings: Settings) -> Contestant:
    """One of `NAMES`, loaded."""
    torch.set_num_threads(int(settings["threads"]))
    model = BenchPi05.open(settings["size"])
    if name == TORCH:
        return _TorchStep(model)
    path = Path(settings["engines"][name])
    if name == OURS:
        return _OurStep(OnnxRuntimeEngine(path, threads=settings["threads"]), model)
    return _StockStep(StockSession(path, settings["threads"]), model)


class _OurStep:
    """As `LowLevelSession` runs it: fixed memory for inputs and outputs."""

    def __init__(self, engine: OnnxRuntimeEngine, model: BenchPi05) -> None:
        feeds = {key: np.ascontiguousarray(value) for key, value in model.step_inputs(MEASURED_STEP).items()}
        self._engine, self._velocity = engine, np.empty_like(feeds["x"])
        self._bound = engine.bind(feeds, {"velocity": self._velocity})

    def run(self) -> dict[str, float]:
        start = time.perf_counter_ns()
        self._bound.run()
        return {"step": (time.perf_counter_ns() - start) / NS_PER_MS}

    def outputs(self) -> dict[str, NDArray[Any]]:
        return {"velocity": self._velocity.copy()}

    def close(self) -> None:
        self._engine.close()


class _StockStep:
    def __init__(self, session: StockSession, model: BenchPi05) -> None:
        self._session, self._feeds = session, model.step_inputs(MEASURED_STEP)
        self._found: dict[str, NDArray[Any]] = {}

    def run(self) -> dict[str, float]:
        start = time.perf_counter_ns()
        self._found = self._session.run(self._feeds)
        return {"step": (time.perf_counter_ns() - start) / NS_PER_MS}

    def outputs(self) -> dict[str, NDArray[Any]]:
        return self._found

    def close(self) -> None:
        self._session.close()


class _TorchStep:
    """The training network's expert on a prefix of which every token is valid, so that it needs no mask."""

    def __init__(self, model: BenchPi05) -> None:
        self._network: Pi05 = load_expert(model.blank(), model)
        inputs = {key: torch.from_numpy(np.array(value)) for key, value in model.step_inputs(MEASURED_STEP).items()}
        cache = [KeyValue(k[None], v[None]) for k, v in zip(inputs["keys"], inputs["values"], strict=True)]
        self._prefix = Prefix(cache, None, torch.tensor([model.prefix_tokens]))
        self._x = inputs["x"][:, None]
        self._t = torch.full((1, 1), flow_times(model.settings.denoise_steps)[MEASURED_STEP])
        self._velocity: Tensor = self._x

    @torch.inference_mode()
    def run(self) -> dict[str, float]:
        start = time.perf_counter_ns()
        rows = self._network.modulation(self._t)
        middle = time.perf_counter_ns()
        self._velocity = self._network.velocity(self._x, rows, self._prefix)
        end = time.perf_counter_ns()
        return {"step": (end - start) / NS_PER_MS, "without_modulation": (end - middle) / NS_PER_MS}

    def outputs(self) -> dict[str, NDArray[Any]]:
        return {"velocity": self._velocity[:, 0].numpy()}

    def close(self) -> None:
        self._network = nn.Module()  # type: ignore[assignment]  # its weights are given back here


def load_expert(network: Pi05, model: BenchPi05) -> Pi05:
    """Fill what a denoise step needs of a network on the meta device."""
    for part in EXPERT_PARTS:
        materialise(network.get_submodule(part), model.source, f"{part}.")
    return network
