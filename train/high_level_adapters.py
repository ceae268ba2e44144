"""Train one LoRA adapter: `python -m memrt.train.high_level_adapters POLICY --base MODEL --calls DATA --out RUN …`.

The report's recipe (section 4.3): rank 16, alpha 32, on the query, key, value, output, gate, up and down projections of
the language model; vision tower and aligner frozen. Targets are the recorded subgoals and the memories that
`train/labels` writes. All adapters, the memoryless one included, see the same calls in the same order, and by
default for the same number of steps; only what they are shown of the past and asked to keep differs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from torch import Tensor, nn

from memrt.runtime.config import load_policy
from memrt.train.high_level_data import batches
from memrt.train.high_level_forward import TrainingForward
from memrt.train.high_level_frames import Features
from memrt.train.high_level_looking import LookingHelp, reply_losses
from memrt.train.high_level_loop import Loop, Schedule, training_device
from memrt.train.high_level_model import load_model
from memrt.train.high_level_text import Encoded, ExampleEncoder
from memrt.train.high_level_turns import call_source, read_calls

RANK, ALPHA = 16, 32  # report, section 4.3
BATCH = 16  # report: 4 per device, accumulated over 4
REPORT_RATE, REPORT_WARMUP, REPORT_EPOCHS = 1e-4, 0.05, 2
RELEASED_WIDTH = 1024  # a model this wide has been trained by others: Qwen3-VL-4B's width is 2560, the reference's 192
REFERENCE_STEPS, REFERENCE_RATE = 150, 4e-4  # of the reference base, which has seen every policy's chats
TARGETS = r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


class AdapterModule(nn.Module):
    """The model with its adapter, and what helps to train it, so that one optimiser holds both.

    The help is that of the base's training, where the base's folder still holds it: a released model needs none.
    """

    def __init__(self, base: Path) -> None:
        super().__init__()
        self.model = lora_model(base)
        self.help = LookingHelp.kept_with(base, self.model.config.text_config.hidden_size)


def adapter_losses(
    module: AdapterModule,
    forward: TrainingForward,
    features: Features,
    rows: Iterator[list[Encoded]],
    encoder: ExampleEncoder,
    describe: Callable[[int], str],
) -> Callable[[int], Mapping[str, Tensor]]:
    """The loss function of one adapter, which takes its batches from `rows`; `describe` tells what a frame shows."""

    def losses(_: int) -> Mapping[str, Tensor]:
        drawn = next(rows)
        texts, indices = encoder.collate(drawn)
        texts, vision = texts.to(forward.device), features.select(indices).to(forward.device)
        return reply_losses(forward, module.help, encoder, drawn, texts, vision, describe)

    return losses


def lora_model(base: Path) -> PeftModel:
    """The frozen base with fresh adapter weights."""
    settings = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, bias="none", target_modules=TARGETS)
    wrapped = get_peft_model(load_model(base).train(), settings)
    assert isinstance(wrapped, PeftModel)
    return wrapped


def main(arguments: list[str] | None = None) -> None:
    """Train one adapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy", help="name or path of the policy whose memory the adapter serves")
    parser.add_argument("--base", type=Path, required=True, help="base model folder")
    parser.add_argument("--calls", type=Path, required=True, nargs="+", help="recorded high_level or episodes folders")
    parser.add_argument("--out", type=Path, required=True, help="run folder; the adapter goes to OUT/POLICY")
    parser.add_argument("--steps", type=int, help="default: the recipe's")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--rate", type=float, help="peak learning rate; default: the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--features", type=Path, help="folder for the frozen tower's features (default: OUT/features)")
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    name = load_policy(options.policy).name
    module = AdapterModule(options.base).to(training_device())
    forward = TrainingForward(module.model.get_base_model())  # type: ignore[arg-type]
    encoder = ExampleEncoder(Tokenizer.from_file(str(options.base / "tokenizer.json")))
    calls = read_calls([options.policy], options.calls)
    train = calls.split()[0]
    features = Features(forward, calls.frames, options.features or options.out / "features")
    folder = options.out / name
    schedule = adapter_schedule(module.model, len(train), options.batch, options.steps, options.rate)
    loop = Loop(module, schedule, folder / "state", folder / "log.jsonl", name)
    source = call_source(options.policy, calls, train)
    rows = batches(source, encoder, options.batch, options.seed, loop.step)
    loop.run(adapter_losses(module, forward, features, rows, encoder, lambda image: str(calls.records[image]["scene"])))
    save_adapter(module.model, folder / "adapter")


def adapter_schedule(model: PeftModel, calls: int, batch: int, steps: int | None, rate: float | None) -> Schedule:
    """The report's recipe (section 4.3) for a released model, ours for the small one; `steps`, `rate` override it."""
    if model.config.text_config.hidden_size >= RELEASED_WIDTH:
        count = steps or -(-REPORT_EPOCHS * calls // batch)
        return Schedule(count, rate or REPORT_RATE, warmup=max(1, round(REPORT_WARMUP * count)), decay=1.0)
    return Schedule(steps or REFERENCE_STEPS, rate or REFERENCE_RATE, warmup=50, decay=0.6)


def save_adapter(wrapped: PeftModel, folder: Path) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json` as peft reads them, without this machine's paths."""
    wrapped.peft_config["default"].base_model_name_or_path = "high_level_base"
    wrapped.save_pretrained(str(folder), safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # peft's model card template says nothing


if __name__ == "__main__":
    main()
