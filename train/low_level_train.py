"""Flow-matching training of the low-level policy, on a time budget, resumable at any moment.

    python -m memrt.train.low_level_train --data runs/reference/data/low_level --out runs/reference/low_level

`out` is a checkpoint folder from the first checkpoint on (averaged weights), beside `state.safetensors`,
`state.json` and `log.jsonl` of the training itself.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from memrt.runtime.config import LowLevelConfig, load_policy
from memrt.runtime.policy.preprocess import NormStats
from memrt.runtime.policy.prompt_tokens import PromptTokens
from memrt.runtime.types import ARM_JOINTS
from memrt.train.low_level_data import Augmentation, Batch, Batches, LowLevelData
from memrt.train.low_level_metrics import held_out_metrics, rounded
from memrt.train.low_level_pointing import SubgoalPointing, Targets, subgoal_targets
from memrt.train.low_level_tokenizer import BOS, build_tokenizer, initialise_embedding
from memrt.train.muon import Muon, is_block_matrix, moments_of
from memrt.train.pi05.checkpoint import TOKENIZER, load_weights, write_checkpoint, write_weights
from memrt.train.pi05.config import Pi05Config, reference
from memrt.train.pi05.model import Pi05
from memrt.train.pi05.sampling import interpolate, sample_times

STATE, STATE_DOCUMENT, LOG = "state.safetensors", "state.json", "log.jsonl"
FLAGS = ("minutes", "learning_rate", "without_views", "batch", "batch_without_views", "draws", "seed", "threads")
MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum")


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How to train. The learning rate follows the clock, so that any time budget ends with a cooled-down network."""

    minutes: float = 120.0  # of training, over all resumed runs
    batch: int = 32
    draws: int = 4  # (flow time, noise) pairs per sample; they share the prefix, which is most of the work
    # Share of batches without any view, and their size. Grounded coordinates and the state determine most of a motion;
    # without images the prefix is a quarter as long, so that this part is learnt several times as fast.
    without_views: float = 0.3
    batch_without_views: int = 96
    learning_rate: float = 1e-3
    warm_up: float = 0.02  # share of the time
    weight_decay: float = 0.01
    clip: float = 1.0
    averaging: float = 0.998  # decay of the averaged weights per step
    executed_weight: float = 3.0  # of the actions that will be executed, relative to those that are replaced before
    # The gripper jumps between -1 and 1 while a joint's early deltas span a tenth of that: unweighted, it is most of
    # the loss, and the arm stays a centimetre off.
    gripper_weight: float = 0.15
    pointing_weight: float = 0.03  # of the pointing loss, which begins at about 5 where the flow loss is below 0.1
    seed: int = 0
    threads: int = 1
    checkpoint_s: float = 180.0
    log_steps: int = 50
    held_out: int = 192  # moments in the metric
    augmentation: Augmentation = field(default_factory=Augmentation)


class LowLevelTraining:
    """One training run in `out`. `run()` returns when the time is used up."""

    def __init__(
        self,
        data: LowLevelData,
        out: Path,
        settings: TrainingSettings,
        *,
        resume: bool = False,
        start_from: Path | None = None,
        progress: Callable[[str], None] = print,
    ) -> None:
        """`start_from` is a safetensors file with weights of the same sizes; a resumed run ignores it."""
        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self.settings, self.data, self.out, self._progress = settings, data, out, progress
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        (out / "assets" / "reference").mkdir(parents=True, exist_ok=True)
        self.stats_document = data.norm_stats()
        stats_path = out / "assets" / "reference" / "norm_stats.json"
        stats_path.write_text(json.dumps(self.stats_document, indent=2) + "\n", encoding="utf-8")
        self.stats = NormStats.load(stats_path)
        tokenizer = build_tokenizer(data.texts)
        tokenizer.save(str(out / TOKENIZER))
        self.config: Pi05Config = reference(
            tokenizer.get_vocab_size(), data.settings.horizon, image_size=data.settings.image_size
        )
        tokens = PromptTokens(tokenizer, BOS, self.config.max_token_len)
        self.batches = Batches(data, tokens, self.stats, settings.augmentation)
        self.model = Pi05(self.config)
        initialise_embedding(self.model)
        if start_from is not None:
            load_weights(self.model, start_from)
        self.model.to(self.device)
        self.pointing = SubgoalPointing(self.config).to(self.device)
        self.targets = subgoal_targets(data)
        self.averaged = {name: value.clone() for name, value in self.model.state_dict().items()}
        parameters = self._named_parameters()
        matrices = [parameter for name, parameter in parameters.items() if is_block_matrix(name, parameter)]
        others = [parameter for name, parameter in parameters.items() if not is_block_matrix(name, parameter)]
        self.optimisers: tuple[torch.optim.Optimizer, ...] = (
            Muon(matrices, lr=0.0, weight_decay=settings.weight_decay),
            torch.optim.AdamW(others, lr=0.0, weight_decay=settings.weight_decay, betas=(0.9, 0.98), fused=True),
        )
        weights = torch.ones(data.settings.horizon, self.config.action_dim)
        weights[: data.settings.execute] = settings.executed_weight
        weights[:, ARM_JOINTS] *= settings.gripper_weight
        self._weights = (weights / weights.mean()).to(self.device)
        self.step, self.elapsed_s = 0, 0.0
        if resume and (out / STATE_DOCUMENT).is_file():
            self._restore()

    def run(self) -> dict[str, Any]:
        """Train until the time is used up; returns the final held-out metrics."""
        settings = self.settings
        recorded, held_out = self.data.split()
        train = self.data.balanced(recorded)
        chosen = np.random.default_rng(settings.seed).permutation(held_out)[: settings.held_out]
        started, before, saved = time.monotonic(), self.elapsed_s, time.monotonic()
        sums: dict[str, list[float]] = {}
        while self.elapsed_s < settings.minutes * 60.0:
            for name, value in self.train_step(train).items():
                sums.setdefault(name, []).append(value)
            self.elapsed_s = before + time.monotonic() - started
            if self.step % settings.log_steps == 0:
                means = {name: float(np.mean(values)) for name, values in sums.items()}
                self._log({"step": self.step, **means, "seconds": self.elapsed_s})
                sums.clear()
            if time.monotonic() - saved > settings.checkpoint_s:
                self.checkpoint()
                self._log({"step": self.step, "held_out": self.evaluate(chosen[:64])})
                saved = time.monotonic()
        self.checkpoint()
        report = self.evaluate(chosen)
        self._log({"step": self.step, "final": report})
        return report

    def train_step(self, train: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, float]:
        """One step on samples drawn from `train`; what it draws depends on the seed and the step number only."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.step])
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.step)
        images = bool(rng.random() >= settings.without_views)
        size = min(settings.batch if images else settings.batch_without_views, len(train))
        indices = rng.choice(train, size, replace=False)
        batch = self.batches.training(indices, rng, images=images)
        rate = learning_rate(self.elapsed_s / (settings.minutes * 60.0), settings)
        targets = Targets(*(part[indices].to(self.device) for part in self.targets)) if images else None
        losses = self.losses(batch.to(self.device), generator, targets)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        (losses["loss"] + settings.pointing_weight * losses.get("pointing", torch.zeros(()))).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        self.step += 1
        # Early on the average must forget the random start quickly.
        decay = min(settings.averaging, (1.0 + self.step) / (10.0 + self.step))
        with torch.no_grad():
            current = self.model.state_dict()
            torch._foreach_lerp_(list(self.averaged.values()), [current[name] for name in self.averaged], 1.0 - decay)
        return {name: float(value.detach()) for name, value in losses.items()}

    def losses(self, batch: Batch, generator: torch.Generator, targets: Targets | None) -> dict[str, Tensor]:
        """The flow-matching loss of several draws per sample; where there are views, how well they are pointed at."""
        count, (horizon, dim) = len(batch.actions), batch.actions.shape[1:]
        t = sample_times((count, self.settings.draws), generator).to(self.device)
        noise = torch.randn(count, self.settings.draws, horizon, dim, generator=generator).to(self.device)
        x, target = interpolate(batch.actions[:, None].expand_as(noise), noise, t)
        prefix = self.model.prefix(batch.images, batch.tokens, batch.mask)
        velocity = self.model.velocity(x, self.model.modulation(t), prefix)
        losses = {"loss": ((velocity - target).square() * self._weights).mean()}
        if targets is not None:
            losses["pointing"], losses["pointing_error"] = self.pointing.loss(prefix, targets)
        return losses

    def evaluate(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, Any]:
        """Held-out metrics of the averaged weights."""
        live = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.averaged)
        try:
            executed = self.data.settings.execute
            return held_out_metrics(
                self.model, self.batches, self.stats, indices, executed=executed, device=self.device
            )
        finally:
            self.model.load_state_dict(live)

    def checkpoint(self) -> None:
        """Write the averaged weights as a checkpoint folder, and everything needed to go on."""
        write_checkpoint(self.out, self.config, self.averaged, bos=BOS, stats=self.stats_document)
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        state |= {f"averaged.{name}": value for name, value in self.averaged.items()}
        state |= {f"pointing.{name}": value for name, value in self.pointing.state_dict().items()}
        for name, parameter in self._named_parameters().items():
            for key, value in moments_of(self.optimisers, parameter).items():
                state[f"optimiser.{key}.{name}"] = value
        write_weights(state, self.out / STATE)
        document = {"step": self.step, "elapsed_s": self.elapsed_s, "settings": asdict(self.settings)}
        partial = self.out / f"{STATE_DOCUMENT}.partial"
        partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        partial.rename(self.out / STATE_DOCUMENT)

    def _named_parameters(self) -> dict[str, nn.Parameter]:
        return {**dict(self.model.named_parameters()), **dict(self.pointing.named_parameters(prefix="pointing"))}

    def _restore(self) -> None:
        state = load_file(self.out / STATE)
        self.model.load_state_dict(_below("model.", state))
        self.averaged = {name: value.to(self.device) for name, value in _below("averaged.", state).items()}
        self.pointing.load_state_dict(_below("pointing.", state))
        for name, parameter in self._named_parameters().items():
            kept = moments_of(self.optimisers, parameter)
            for key in MOMENTS:
                value = state.get(f"optimiser.{key}.{name}")
                if value is not None:
                    kept[key] = value if key == "step" else value.to(self.device)
        document = json.loads((self.out / STATE_DOCUMENT).read_text(encoding="utf-8"))
        self.step, self.elapsed_s = int(document["step"]), float(document["elapsed_s"])
        self._progress(f"resumed at step {self.step}, {self.elapsed_s / 60.0:.1f} min")

    def _log(self, entry: dict[str, Any]) -> None:
        line = json.dumps(rounded(entry))
        with (self.out / LOG).open("a", encoding="utf-8") as log:
            log.write(line + "\n")
        self._progress(line)


def learning_rate(progress: float, settings: TrainingSettings) -> float:
    """Linear warm-up, then half a cosine down to one percent; `progress` is the share of the time used."""
    if progress < settings.warm_up:
        return settings.learning_rate * max(0.01, progress / settings.warm_up)
    rest = min(1.0, (progress - settings.warm_up) / (1.0 - settings.warm_up))
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * rest)))


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def train_low_level(
    data: Path,
    out: Path,
    *,
    policy: LowLevelConfig | None = None,
    settings: TrainingSettings | None = None,
    resume: bool = False,
    start_from: Path | None = None,
    progress: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train on the dataset folder `data` into `out`; the policy's low_level block defaults to am_grounded's."""
    recorded = LowLevelData(data, policy or load_policy("am_grounded").low_level)
    training = LowLevelTraining(
        recorded, out, settings or TrainingSettings(), resume=resume, start_from=start_from, progress=progress
    )
    return training.run()


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--policy", default="am_grounded")
    parser.add_argument("--start-from", type=Path)
    parser.add_argument("--resume", action="store_true")
    defaults = TrainingSettings()
    for name in FLAGS:
        value = getattr(defaults, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parsed = vars(parser.parse_args(arguments))
    data, out, policy = parsed.pop("data"), parsed.pop("out"), load_policy(parsed.pop("policy")).low_level
    resume, start_from = parsed.pop("resume"), parsed.pop("start_from")
    train_low_level(data, out, policy=policy, settings=TrainingSettings(**parsed), resume=resume, start_from=start_from)


if __name__ == "__main__":
    main()
