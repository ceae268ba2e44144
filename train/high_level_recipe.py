"""The whole training of the reference high level, in order: `python -m memrt.train.high_level_recipe --data … --out …`.

Four stages make the base, three adapters follow, then the checkpoints are put where the policies' YAML names them. Each
step is resumable and skipped once its result exists, so an interrupted recipe is simply started again.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

from memrt.train import high_level_adapters, high_level_train

ADAPTERS = ("am_grounded", "memoryless", "am_simple")
ADAPTER_STEPS = 2400  # the same for all: what differs is what they may remember
BASE_FILES = (
    "model.safetensors",
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the base: steps of `batch` texts or frames at a peak rate, falling over the last `decay` share."""

    name: str
    steps: int
    batch: int
    rate: float
    decay: float


# Sized for one core and an afternoon. A decoder rate of 1e-3 or more keeps it from ever reading places exactly.
STAGES = (
    Stage("language", 700, 32, 2e-3, 0.1),
    Stage("vision", 1300, 16, 1.5e-3, 0.4),
    Stage("grounding", 800, 16, 6e-4, 0.2),
    Stage("decoder", 4000, 16, 6e-4, 0.6),
)


def train_base(data: Path, out: Path, threads: int) -> Path:
    """Run the stages; returns the base model's folder."""
    weights: Path | None = None
    for seed, stage in enumerate(STAGES):
        model = out / stage.name / "model"
        if not (model / high_level_train.POINTING).exists():
            arguments = [stage.name, "--out", str(out), "--seed", str(seed), "--threads", str(threads)]
            arguments += ["--scenes", str(data / "grounding"), "--calls", str(data / "high_level")]
            arguments += ["--steps", str(stage.steps), "--batch", str(stage.batch)]
            arguments += ["--rate", str(stage.rate), "--decay", str(stage.decay)]
            high_level_train.main(arguments + (["--weights", str(weights)] if weights else []))
        weights = model
    assert weights is not None
    return weights


def train_adapters(data: Path, out: Path, base: Path, threads: int) -> None:
    """Train every adapter on the same frames, for the same number of steps."""
    for name in ADAPTERS:
        if not (out / name / "adapter").exists():
            arguments = [name, "--base", str(base), "--calls", str(data / "high_level"), "--out", str(out)]
            high_level_adapters.main([*arguments, "--steps", str(ADAPTER_STEPS), "--threads", str(threads)])


def publish(out: Path, base: Path, weights: Path, logs: Path) -> None:
    """Copy checkpoints to `weights` and training logs to `logs`, where bundles are exported from."""
    (weights / "high_level_base").mkdir(parents=True, exist_ok=True)
    logs.mkdir(parents=True, exist_ok=True)
    for name in BASE_FILES:
        shutil.copyfile(base / name, weights / "high_level_base" / name)
    for stage in STAGES:
        shutil.copyfile(out / stage.name / "log.jsonl", logs / f"high_level_{stage.name}.jsonl")
    for name in ADAPTERS:
        shutil.copytree(out / name / "adapter", weights / name, dirs_exist_ok=True)
        shutil.copyfile(out / name / "log.jsonl", logs / f"high_level_{name}.jsonl")


def main() -> None:
    """Train everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the recorded grounding and high_level")
    parser.add_argument("--out", type=Path, required=True, help="run folder for checkpoints and logs")
    parser.add_argument("--weights", type=Path, default=Path("train/reference/weights"))
    parser.add_argument("--logs", type=Path, default=Path("train/reference/logs"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    base = train_base(options.data, options.out, options.threads)
    train_adapters(options.data, options.out, base, options.threads)
    publish(options.out, base, options.weights, options.logs)


if __name__ == "__main__":
    main()
