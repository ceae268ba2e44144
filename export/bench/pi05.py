"""A π0.5 of random weights as the bench needs it: its sizes, seeded inputs, engines, and the network in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from memrt.export.bench.engines import Progress, kept, make_engine
from memrt.export.checkpoints.pi05 import open_pi05
from memrt.export.checkpoints.random_pi05 import PI05S
from memrt.export.checkpoints.source import WeightSource
from memrt.export.pi05_graphs import INPUTS, OUTPUTS, example, graphs, shapes
from memrt.export.pi05_tables import read_modulation_table
from memrt.export.pi05_units import streaming_units
from memrt.export.plan import EnginePlan, Scheme
from memrt.export.streaming.job import Job, plain_feed, streamed_unit
from memrt.export.streaming.skeleton import Skeleton, fake_mode
from memrt.export.streaming.stages import Outputs
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.low_level_config import LowLevelModel
from memrt.train.pi05.checkpoint import EMBEDDING
from memrt.train.pi05.config import Pi05Config
from memrt.train.pi05.model import Pi05
from memrt.train.pi05.policy import runtime_model
from memrt.train.pi05.sampling import flow_times

Float32Array = NDArray[np.float32]

HORIZON = 50  # actions per chunk at full size, as openpi's configurations have it
SEED = 20
CALIBRATION_STEPS = (0, 3, 6, 9)  # denoise steps whose inputs set the step engine's ranges
# Projections into and out of the model's width are a thousandth of the work, but their error reaches every layer or the
# joints themselves (configs/targets/cpu.yaml).
KEEP_FP32 = {"vision": ("patch*",), "prefix": (), "step": ("action_in*", "action_out*")}


@dataclass(frozen=True)
class BenchPi05:
    """`size` is a name of `random:` checkpoints. Three views and the longest prompt: 968 prefix tokens at full size."""

    size: str
    config: Pi05Config
    settings: LowLevelModel
    source: WeightSource
    skeletons: dict[str, Skeleton] = field(default_factory=dict)  # traced graphs, which int8 and fp32 share

    @classmethod
    def open(cls, size: str) -> BenchPi05:
        """Raises MemrtError for an unknown size."""
        if size not in PI05S:
            raise MemrtError("size of the π0.5", expected=f"one of {', '.join(PI05S)}", found=size, fix="choose one")
        checkpoint = open_pi05(f"random:{size}")
        config = checkpoint.config
        if size == "pi05":
            config = replace(config, horizon=HORIZON)
        return cls(size, config, runtime_model(config, bos=checkpoint.bos_token), checkpoint.source)

    @property
    def prefix_tokens(self) -> int:
        """Tokens of all views and of the prompt."""
        return self.settings.max_views * self.settings.vision_tokens + self.settings.max_token_len

    def elements(self, part: str) -> int:
        """Weights below the path `part` of the network (`""` is all of it)."""
        return sum(int(np.prod(self.source.shape(n))) for n in self.source.names() if n.startswith(part))

    @cached_property
    def modulation(self) -> Float32Array:
        """The adaRMS table of all denoise steps."""
        return read_modulation_table(self.source.read, self.config, flow_times(self.settings.denoise_steps))

    def step_inputs(self, step: int, seed: int = SEED) -> dict[str, NDArray[Any]]:
        """Seeded inputs of the step engine, in the order of its inputs.

        Keys and values are of unit size, as projections of normalised tokens are; x is noise, as in the first step.
        """
        settings, tokens = self.settings, self.prefix_tokens
        rng = np.random.default_rng(seed)
        cache = (settings.layers, settings.kv_heads, tokens, settings.head_dim)
        return {
            "x": rng.standard_normal((1, settings.horizon, settings.action_dim), np.float32),
            "modulation": self.modulation[step],
            "positions": tokens + np.arange(settings.horizon, dtype=np.int64),
            "keys": rng.standard_normal(cache, np.float32),
            "values": rng.standard_normal(cache, np.float32),
        }

    def images(self, seed: int = SEED) -> NDArray[np.uint8]:
        """Views uint8 [views, S, S, 3]: coarse blocks and fine noise."""
        size, views = self.settings.image_size, self.settings.max_views
        rng = np.random.default_rng(seed)
        blocks = rng.integers(0, 200, (views, -(-size // 16), -(-size // 16), 3))
        coarse = blocks.repeat(16, axis=1).repeat(16, axis=2)[:, :size, :size]
        return (coarse + rng.integers(0, 56, (views, size, size, 3))).astype(np.uint8)

    def noise(self, seed: int = SEED) -> Float32Array:
        """[horizon, action_dim]."""
        rng = np.random.default_rng(seed + 1)
        return rng.standard_normal((self.settings.horizon, self.settings.action_dim), np.float32)

    @cached_property
    def prompt_rows(self) -> Float32Array:
        """Embeddings of a longest prompt, as the network holds them: float32 [max_token_len, width].

        A lookup costs nothing, so contestants keep these rows instead of the whole table (2 GB).
        """
        table = self.source.read(EMBEDDING)
        chosen = np.random.default_rng(SEED).integers(0, len(table), self.settings.max_token_len)
        rows: Float32Array = table[torch.from_numpy(chosen)].float().numpy()
        return rows

    def blank(self) -> Pi05:
        """The network on the meta device."""
        with torch.device("meta"):
            return Pi05(self.config).eval()


def step_engine(model: BenchPi05, scheme: Scheme, work: Path, progress: Progress) -> Path:
    """The step engine as a file: int8 (calibrated on seeded inputs other than the measured ones) or fp32."""

    def make(folder: Path) -> None:
        inputs = [model.step_inputs(step, SEED + 100 + step) for step in _calibration_steps(model, scheme)]
        _make(model, "step", scheme, folder, [tuple(map(_tensor, one.values())) for one in inputs], progress)

    return kept(work, f"{model.size}-step-{scheme}", _key(model, scheme), make) / "step.onnx"


def call_engines(model: BenchPi05, scheme: Scheme, work: Path, progress: Progress) -> Path:
    """The folder of vision and prefix: each is calibrated on what torch made of one seeded scene before it."""

    def make(folder: Path) -> None:
        views = [(_tensor(image),) for image in model.images(SEED + 100)] if scheme == "int8" else []
        seen = _make(model, "vision", scheme, folder, views, progress)
        samples = []
        if seen:
            prompt = torch.from_numpy(model.prompt_rows * np.float32(model.config.prefix.width**0.5))
            embeddings = torch.cat((*(tokens[0] for (tokens,) in seen), prompt))[None]
            samples = [(embeddings, torch.arange(embeddings.shape[1]))]
        _make(model, "prefix", scheme, folder, samples, progress)

    return kept(work, f"{model.size}-call-{scheme}", _key(model, scheme), make)


def _make(
    model: BenchPi05, name: str, scheme: Scheme, folder: Path, calibration: list[Any], progress: Progress
) -> list[Outputs]:
    with fake_mode():
        graph: nn.Module = graphs(Pi05(model.config), model.settings)[name]
    blank = model.blank()
    job = Job(
        name=f"ll/{name}",
        file=f"{name}.onnx",
        graph=graph,
        units=[
            streamed_unit(unit.prefix, blank, unit.sources, unit.build, model.source)
            for unit in streaming_units(model.config, model.settings)
            if unit.graph == name
        ],
        inputs=INPUTS[name],
        outputs=OUTPUTS[name],
        example=example(model.settings, name),
        shapes=shapes(model.settings, name),
        calibration=calibration,
        gate=(),
        feed=plain_feed(INPUTS[name]),
    )
    if name not in model.skeletons:
        model.skeletons[name] = job.skeleton()
    keep, plan = KEEP_FP32[name] if scheme == "int8" else (), EnginePlan(scheme=scheme, compute="fp32")
    return make_engine(job, model.skeletons[name], folder / f"{name}.onnx", plan, keep, progress)


def _calibration_steps(model: BenchPi05, scheme: Scheme) -> list[int]:
    return [step for step in CALIBRATION_STEPS if step < model.settings.denoise_steps] if scheme == "int8" else []


def _key(model: BenchPi05, scheme: Scheme) -> dict[str, Any]:
    return {"weights": model.source.fingerprint(), "config": model.config.to_dict(), "scheme": scheme, "seed": SEED}


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
