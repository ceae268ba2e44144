"""One resumable optimisation loop: Muon and AdamW, warm-up, constant rate, linear decay; checkpoints without pickle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from memrt.train.muon import Muon, is_block_matrix, moments_of

LOG_EVERY = 20  # steps
SAVE_EVERY_S = 120.0
CLIP_NORM = 1.0
WEIGHT_DECAY = 0.02  # of matrices


def training_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate over `steps`: linear warm-up, constant `peak`, linear decay to 2 % over the last `decay` share."""

    steps: int
    peak: float
    warmup: int = 100
    decay: float = 0.2

    def rate(self, step: int) -> float:
        """The rate of step number `step`, counted from 0."""
        rising = min(1.0, (step + 1) / self.warmup)
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.peak * rising * max(0.02, min(1.0, left))


class Loop:
    """Optimises the parameters of `module` that require a gradient; state lives in `folder` and survives a restart.

    `folder` holds `trained.safetensors`, `optimiser.safetensors` and `state.json`; every LOG_EVERY steps one line of
    averaged metrics is appended to `log` (JSON lines).
    """

    def __init__(self, module: nn.Module, schedule: Schedule, folder: Path, log: Path, stage: str) -> None:
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._schedule, self._folder, self._log, self._stage = schedule, folder, log, stage
        self._optimisers = _optimisers(self._parameters, schedule.peak)
        self.step = self._resume()

    def run(self, losses: Callable[[int], Mapping[str, Tensor]]) -> None:
        """Call `losses(step)` until the schedule ends; its "loss" is minimised, the other entries are logged."""
        sums: dict[str, list[float]] = {}
        started = saved = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress:
            bar = progress.add_task(self._stage, total=self._schedule.steps, completed=self.step)
            while self.step < self._schedule.steps:
                values = losses(self.step)
                self._descend(values["loss"])
                self.step += 1
                for name, value in values.items():
                    sums.setdefault(name, []).append(float(value.detach()))
                if self.step % LOG_EVERY == 0:
                    # A value may have nothing to speak of in a batch.
                    means = {
                        name: float(np.nanmean(numbers))
                        for name, numbers in sums.items()
                        if any(map(np.isfinite, numbers))
                    }
                    self._write_log(means, (time.monotonic() - started) / LOG_EVERY)
                    progress.update(bar, completed=self.step, description=f"{self._stage} loss {means['loss']:.3f}")
                    sums, started = {}, time.monotonic()
                if time.monotonic() - saved > SAVE_EVERY_S:
                    self.save()
                    saved = time.monotonic()
        self.save()

    def _descend(self, loss: Tensor) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self._parameters.values()), CLIP_NORM)
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self._schedule.rate(self.step)
            optimiser.step()

    def _write_log(self, values: Mapping[str, float], seconds_per_step: float) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        line = {"stage": self._stage, "step": self.step, "rate": self._schedule.rate(self.step - 1)}
        line |= {name: round(value, 5) for name, value in values.items()}
        line["seconds_per_step"] = round(seconds_per_step, 4)
        with self._log.open("a") as lines:
            lines.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write weights, then optimiser, then the step that makes them current."""
        self._folder.mkdir(parents=True, exist_ok=True)
        moments = {}
        for name, parameter in self._parameters.items():
            for key, value in moments_of(self._optimisers, parameter).items():
                moments[f"{key}/{name}"] = value.detach().contiguous()
        self._replace("trained.safetensors", {n: p.detach().contiguous() for n, p in self._parameters.items()})
        self._replace("optimiser.safetensors", moments)
        state = json.dumps({"stage": self._stage, "step": self.step, "steps": self._schedule.steps})
        (self._folder / "state.json.new").write_text(state + "\n")
        (self._folder / "state.json.new").replace(self._folder / "state.json")

    def _replace(self, name: str, tensors: dict[str, Tensor]) -> None:
        save_file(tensors, str(self._folder / f"{name}.new"))
        (self._folder / f"{name}.new").replace(self._folder / name)

    def _resume(self) -> int:
        state_file = self._folder / "state.json"
        if not state_file.exists():
            return 0
        state = json.loads(state_file.read_text())
        if state["stage"] != self._stage:
            raise ValueError(f"{self._folder} holds stage {state['stage']}, not {self._stage}")
        trained = load_file(str(self._folder / "trained.safetensors"))
        moments = load_file(str(self._folder / "optimiser.safetensors"))
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(trained[name])
                entries = {key.split("/", 1)[0]: value for key, value in moments.items() if key.endswith(f"/{name}")}
                if entries:
                    kept = moments_of(self._optimisers, parameter)
                    kept.update({key: value.to(parameter.device) for key, value in entries.items()})
        return int(state["step"])


def _optimisers(parameters: Mapping[str, nn.Parameter], peak: float) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the weight matrices of the transformer blocks, AdamW for everything else, LoRA's factors included."""
    hidden = {name for name, parameter in parameters.items() if is_block_matrix(name, parameter)}
    others = {name: p for name, p in parameters.items() if name not in hidden}
    adam = torch.optim.AdamW(
        [
            {"params": [p for p in others.values() if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in others.values() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=peak,
        betas=(0.9, 0.98),
        fused=True,
    )
    if not hidden:
        return (adam,)
    return adam, Muon([parameters[name] for name in sorted(hidden)], lr=peak, weight_decay=WEIGHT_DECAY)
