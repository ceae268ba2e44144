"""Flow-matching training of the low-level policy, on a time budget, resumable at any moment.

`out` is a checkpoint folder from the first checkpoint on (averaged weights), beside `state.safetensors`,
`state.json` and `log.jsonl` of the training itself. What is recorded meanwhile is trained on, too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from memrt.runtime.config import LowLevelConfig, load_policy
from memrt.runtime.policy.preprocess import NormStats
from memrt.runtime.policy.prompt_tokens import PromptTokens
from memrt.runtime.types import ARM_JOINTS
from memrt.train.low_level_data import Batches, LowLevelData
from memrt.train.low_level_loss import flow_loss
from memrt.train.low_level_metrics import held_out_metrics, rounded
from memrt.train.low_level_pointing import SubgoalPointing, SubgoalTargets, Targets
from memrt.train.low_level_settings import TrainingSettings, learning_rate
from memrt.train.low_level_tokenizer import BOS, begin_with, build_tokenizer, initialise_embedding
from memrt.train.muon import Muon, is_block_matrix, moments_of
from memrt.train.pi05.checkpoint import TOKENIZER, norm_stats_path, write_checkpoint, write_weights
from memrt.train.pi05.config import Pi05Config, reference
from memrt.train.pi05.model import Pi05

STATE, STATE_DOCUMENT, LOG = "state.safetensors", "state.json", "log.jsonl"
MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum")


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
        """`start_from` is a checkpoint folder of the same sizes, whose weights and action statistics are taken over;
        words that its tokenizer does not know are added. A resumed run ignores it.
        """
        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self.settings, self.data, self.out, self._progress = settings, data, out, progress
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        resume = resume and (out / STATE_DOCUMENT).is_file()
        stats_path, tokenizer_path = out / "assets" / "reference" / "norm_stats.json", out / TOKENIZER
        if not resume:
            stats_path.parent.mkdir(parents=True, exist_ok=True)
            stats_path.write_text(json.dumps(_norm_stats(data, start_from), indent=2) + "\n", encoding="utf-8")
            build_tokenizer(data.texts).save(str(tokenizer_path))
        self.stats_document = json.loads(stats_path.read_text(encoding="utf-8"))
        self.stats = NormStats.load(stats_path)
        tokenizer = Tokenizer.from_file(str(tokenizer_path))
        self.config: Pi05Config = reference(
            tokenizer.get_vocab_size(), data.settings.horizon, image_size=data.settings.image_size
        )
        self._tokens = PromptTokens(tokenizer, BOS, self.config.max_token_len)
        self.model = Pi05(self.config)
        initialise_embedding(self.model)
        if start_from is not None and not resume:
            begin_with(self.model, tokenizer, start_from)
        self.model.to(self.device)
        self.pointing = SubgoalPointing(self.config).to(self.device)
        self.targets = SubgoalTargets(data)
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
        self._open()
        if resume:
            self._restore()

    def _open(self) -> None:
        """Prepare what was recorded so far."""
        self.batches = Batches(self.data, self._tokens, self.stats, self.settings.augmentation)
        self.train, self.held_out = self.data.split()
        self._chances = self.data.chances(self.train)

    def run(self) -> dict[str, Any]:
        """Train until the time is used up; returns the final held-out metrics."""
        settings = self.settings
        started, before, saved = self._clock(), self.elapsed_s, time.monotonic()
        measured = before
        sums: dict[str, list[float]] = {}
        while self.elapsed_s < settings.minutes * 60.0:
            for name, value in self.train_step().items():
                sums.setdefault(name, []).append(value)
            self.elapsed_s = before + self._clock() - started
            if self.step % settings.log_steps == 0:
                means = {name: float(np.mean(values)) for name, values in sums.items()}
                self._log({"step": self.step, **means, "seconds": self.elapsed_s})
                sums.clear()
            if time.monotonic() - saved > settings.checkpoint_s:
                self.checkpoint()
                saved = time.monotonic()
            if self.elapsed_s - measured > settings.metrics_s:
                self._log({"step": self.step, "held_out": self.evaluate(settings.held_out // 4)})
                if self.data.reread():
                    self._open()
                    self._log({"step": self.step, "samples": len(self.data)})
                measured = self.elapsed_s
        self.checkpoint()
        report = self.evaluate(settings.held_out)
        self._log({"step": self.step, "final": report})
        return report

    def _clock(self) -> float:
        """Seconds of training. Of a computer that others use, too, those count in which this process ran."""
        return time.monotonic() if self.device.type == "cuda" else time.process_time() / self.settings.threads

    def train_step(self) -> dict[str, float]:
        """One step; what it draws from the samples depends on the seed and the step number only."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.step])
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.step)
        images = bool(rng.random() >= settings.without_views)
        continued = bool(rng.random() < settings.continued)
        size = min(settings.batch if images else settings.batch_without_views, len(self.train))
        indices = rng.choice(self.train, size, p=self._chances)
        styles = self.batches.styles(size, rng)
        batch = self.batches.training(indices, styles, rng, images=images)
        rate = learning_rate(self.elapsed_s / (settings.minutes * 60.0), settings)
        targets = self._targets(indices, styles) if images else None
        batch = batch.to(self.device)
        prefix = self.model.prefix(batch.images, batch.tokens, batch.mask)
        decided = settings.decided_actions if continued else 0
        total = flow_loss(self.model, prefix, batch.actions, self._weights, settings.draws, generator, decided)
        losses = {"continued" if continued else "loss": total}
        if targets is not None and targets.visible.any():
            losses["pointing"], losses["pointing_error"] = self.pointing.loss(prefix, targets)
            total = total + settings.pointing_weight * losses["pointing"]
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        total.backward()
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

    def _targets(self, indices: NDArray[np.int64], styles: Sequence[str]) -> Targets:
        """Where to look; a prompt that is the goal alone does not say at what."""
        where, visible = self.targets.at(indices)
        named = torch.tensor([style != "goal" for style in styles])
        return Targets(where.to(self.device), (visible & named[:, None]).to(self.device))

    def evaluate(self, per_task: int) -> dict[str, Any]:
        """Held-out metrics of the averaged weights: of each task, `per_task` moments in every style."""
        live = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.averaged)
        rng, data = np.random.default_rng(self.settings.seed), self.data
        shuffled = rng.permutation(self.held_out)
        try:
            return {
                data.texts[task]: held_out_metrics(
                    self.model,
                    self.batches,
                    self.stats,
                    shuffled[data.task[shuffled] == task][:per_task],
                    executed=data.settings.execute,
                    device=self.device,
                )
                for task in np.unique(data.task[self.held_out])
            }
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


def _norm_stats(data: LowLevelData, start_from: Path | None) -> dict[str, Any]:
    """Those of the data; the actions' are kept of weights that know how to move by them."""
    document = data.norm_stats()
    if start_from is not None:
        known = json.loads(norm_stats_path(start_from).read_text(encoding="utf-8"))
        document["norm_stats"]["actions"] = known["norm_stats"]["actions"]
    return document


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def train_low_level(
    data: Path | Sequence[Path],
    out: Path,
    *,
    policy: LowLevelConfig | None = None,
    settings: TrainingSettings | None = None,
    resume: bool = False,
    start_from: Path | None = None,
    progress: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train on dataset folders into `out`; the policy's low_level block defaults to am_grounded's."""
    recorded = LowLevelData(data, policy or load_policy("am_grounded").low_level)
    training = LowLevelTraining(
        recorded, out, settings or TrainingSettings(), resume=resume, start_from=start_from, progress=progress
    )
    return training.run()
