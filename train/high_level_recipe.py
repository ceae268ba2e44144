"""The whole training of the reference high level, in order: `python -m memrt.train.high_level_recipe --data … --out …`.

Several folders of data are learned from together; the first holds the scenes. Three stages make the base from the
weights at hand (four from nothing), an adapter for every policy follows, each is measured on held-out calls, and
`--publish` puts checkpoints and logs where the policies' YAML names them. Each step is resumable and skipped once its
result exists, so an interrupted recipe is simply started again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memrt.train import high_level_adapters, high_level_train
from memrt.train.high_level_adapters import REFERENCE_STEPS
from memrt.train.high_level_looking import HEADS
from memrt.train.high_level_metrics import describe_scenes, evaluate
from memrt.train.high_level_train import POLICIES

BASE_FILES = (
    HEADS,  # so that a lab's adapter is trained with the help that ours had
    "model.safetensors",
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
HELD_OUT_CALLS = 40  # of each task, for every adapter's metrics
HELD_OUT_SCENES = 120  # for the base's


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the base: steps of `batch` texts or frames at a peak rate, falling over the last `decay` share."""

    name: str
    steps: int
    batch: int
    rate: float
    decay: float


# Sized for one core and a day: counting in words and finding the end of a step come late. A decoder rate of 1e-3 or
# more keeps it from ever reading places exactly.
STAGES = (
    Stage("language", 700, 32, 2e-3, 0.1),
    Stage("vision", 1200, 16, 1e-3, 0.4),
    Stage("grounding", 500, 16, 6e-4, 0.2),
    Stage("decoder", 24_000, 16, 5e-4, 0.5),
)


def train_base(data: Sequence[Path], out: Path, threads: int, start: Path | None = None) -> Path:
    """Run the stages; returns the base model's folder. With the weights of `start`, the language stage is left out.

    A base that knows other words or fewer objects is good enough to start from: what it has learned is kept.
    """
    weights = start
    for seed, stage in enumerate(STAGES):
        if start is not None and stage.name == "language":
            continue
        model = out / stage.name / "model"
        if not (model / HEADS).exists():
            arguments = [stage.name, "--out", str(out), "--seed", str(seed), "--threads", str(threads)]
            arguments += ["--scenes", str(data[0] / "grounding"), "--calls", *map(str, recorded_calls(data))]
            arguments += ["--steps", str(stage.steps), "--batch", str(stage.batch)]
            arguments += ["--rate", str(stage.rate), "--decay", str(stage.decay)]
            high_level_train.main(arguments + (["--weights", str(weights)] if weights else []))
        weights = model
    assert weights is not None
    return weights


def train_adapters(
    data: Sequence[Path], out: Path, base: Path, threads: int, policies: Sequence[str] = POLICIES
) -> None:
    """Train and measure every adapter on the same calls, for the same number of steps."""
    for name in policies:
        adapter, metrics = out / name / "adapter", out / name / "metrics.json"
        if not adapter.exists():
            arguments = [name, "--base", str(base), "--calls", *map(str, recorded_calls(data)), "--out", str(out)]
            high_level_adapters.main([*arguments, "--steps", str(REFERENCE_STEPS), "--threads", str(threads)])
        if not metrics.exists():
            result = evaluate(base, adapter, name, recorded_calls(data), HELD_OUT_CALLS)
            metrics.write_text(json.dumps(result, indent=1) + "\n")


def recorded_calls(data: Sequence[Path]) -> list[Path]:
    """The episodes one by one where they are kept, which may be read while more are recorded."""
    return [folder / "episodes" if (folder / "episodes").is_dir() else folder / "high_level" for folder in data]


def publish(out: Path, base: Path, weights: Path, logs: Path) -> None:
    """Copy checkpoints to `weights` and training logs to `logs`, where bundles are exported from."""
    (weights / "high_level_base").mkdir(parents=True, exist_ok=True)
    logs.mkdir(parents=True, exist_ok=True)
    for name in BASE_FILES:
        shutil.copyfile(base / name, weights / "high_level_base" / name)
    for name in (*(stage.name for stage in STAGES), *POLICIES):
        if (out / name / "log.jsonl").exists():
            shutil.copyfile(out / name / "log.jsonl", logs / f"high_level_{name}.jsonl")
        if (out / name / "adapter").exists():
            shutil.copytree(out / name / "adapter", weights / name, dirs_exist_ok=True)


def train_high_level(
    data: Sequence[Path], out: Path, *, start: Path | None = None, policies: Sequence[str] = POLICIES, threads: int = 1
) -> Path:
    """Train the base, on all policies' chats, and an adapter for each of `policies`; returns the base's folder.

    What is done already is kept, and what was interrupted goes on from its last checkpoint.
    """
    base = train_base(data, out, threads, start)
    metrics = base.parent / "metrics.json"
    if not metrics.exists():
        metrics.write_text(json.dumps(describe_scenes(base, data[0] / "grounding", HELD_OUT_SCENES), indent=1) + "\n")
    train_adapters(data, out, base, threads, policies)
    return base


def main() -> None:
    """Train everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, nargs="+", help="recorded data: grounding, episodes or high_level"
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder for checkpoints and logs")
    parser.add_argument("--start", type=Path, help="base model to start from instead of nothing")
    parser.add_argument("--policies", nargs="*", default=POLICIES, help="default: all")
    parser.add_argument("--publish", action="store_true", help="at the end, copy everything to --weights and --logs")
    parser.add_argument("--weights", type=Path, default=Path("train/reference/weights"))
    parser.add_argument("--logs", type=Path, default=Path("train/reference/logs"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    base = train_high_level(
        options.data, options.out, start=options.start, policies=options.policies, threads=options.threads
    )
    if options.publish:
        publish(options.out, base, options.weights, options.logs)


if __name__ == "__main__":
    main()
