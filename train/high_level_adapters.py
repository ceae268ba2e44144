"""Train one LoRA adapter: `python -m memrt.train.high_level_adapters POLICY --base MODEL --calls DATA --out RUN …`.

The report's recipe (section 4.3): rank 16, alpha 32, on the query, key, value, output, gate, up and down projections of
the language model; vision tower and aligner frozen. Targets are the recorded subgoals and the memories that
`train/labels` writes. All adapters, the memoryless one included, see the same frames in the same order, for the same
number of steps; only what they are shown of the past and asked to keep differs.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from memrt.runtime.config import load_policy
from memrt.train.high_level_counterfactuals import draw_telling
from memrt.train.high_level_data import Calls, ExampleSource, batches
from memrt.train.high_level_features import FeatureCache, compute_features
from memrt.train.high_level_forward import TrainingForward
from memrt.train.high_level_loop import Loop, Schedule, training_device
from memrt.train.high_level_model import load_model
from memrt.train.high_level_text import Example, ExampleEncoder
from memrt.train.labels.turns import training_turn
from memrt.train.text_tokenizer import reference_tokenizer

RANK, ALPHA = 16, 32  # report, section 4.3
TARGETS = r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
RETOLD_SHARE = 0.75  # calls shown with other counts than the recorded ones
SETTLED_SHARE = 0.2  # calls shown with the memory already up to date: HL calls need not meet the transitions
JITTER_PX = 2  # of coordinates inside a shown memory, so that the policy does not lean on exact ones
_COORDINATE = re.compile(r"<(\d+), (\d+)>")


def call_example(policy: str, record: Mapping[str, object], index: int, rng: random.Random | None) -> Example:
    """The chat of one recorded call as `policy` has it. `rng` varies counts and memory, None does not."""
    settings = load_policy(policy).memory
    if rng is None:
        request, reply = training_turn(settings, record)
        return Example(index, request.system, request.user, reply)
    retold, settle = rng.random(), rng.random()  # drawn for every policy, so that frames stay in step
    telling, jitter = random.Random(rng.random()), random.Random(rng.random())
    if retold < RETOLD_SHARE:
        record = draw_telling(record, telling, remembers=settings.kind != "memoryless")
    if settle < SETTLED_SHARE:
        record = {**record, "previous_segment": record["segment"]}
    request, reply = training_turn(settings, record, lambda before, after: _jitter(before, after, jitter))
    return Example(index, request.system, request.user, reply)


def _jitter(before: str, after: str, rng: random.Random) -> tuple[str, str]:
    """Move each coordinate that `before` mentions by up to JITTER_PX, in both texts alike: a memory is carried over."""
    for coordinate in sorted({match[0] for match in _COORDINATE.finditer(before)}):
        row, col = (int(value) + rng.randint(-JITTER_PX, JITTER_PX) for value in coordinate[1:-1].split(", "))
        moved = f"<{min(max(row, 0), 255)}, {min(max(col, 0), 255)}>"
        before, after = before.replace(coordinate, moved), after.replace(coordinate, moved)
    return before, after


def call_source(policy: str, calls: Calls, indices: Sequence[int]) -> ExampleSource:
    """Draws recorded calls as `policy` has them: every policy the same ones, those around transitions more often."""
    groups = [(share, group) for share, group in call_groups(calls.records, indices) if group]

    def draw(rng: random.Random) -> Example:
        [(_, group)] = rng.choices(groups, [share for share, _ in groups])
        index = rng.choice(group)
        return call_example(policy, noticed(calls.records, index), index, rng)

    return draw


def call_groups(records: Sequence[Mapping[str, object]], indices: Sequence[int]) -> list[tuple[float, list[int]]]:
    """Calls by what they ask of the policy, each group with the share of draws it gets.

    Calls at which a subgoal has just changed write the memory, and those just before must not: few frames that decide
    whether a count stays right. Most draws go to the calls after a place: there the count in the memory is held against
    the goal's, once more or press. Next come the calls around a change that are to leave the memory alone. A pick that
    ended less than half a call ago is left out: noticing it one call late costs 0.8 s, noticing it early, with the cube
    not quite lifted, a count.
    """
    deciding: list[int] = []
    changed: list[int] = []
    about_to_change: list[int] = []
    just_changed: list[int] = []
    pressing: list[int] = []
    others: list[int] = []
    for index in indices:
        segment = records[index]["segment"]
        if _segment(records, index, -1) != segment:
            if _told_late(records, index):
                just_changed.append(index)
        elif records[index]["previous_segment"] != segment:
            history = records[index]["history_simple"]
            after_a_place = bool(history) and str(history[-1]).startswith("place")  # type: ignore[index]
            (deciding if after_a_place else changed).append(index)
        elif any(_segment(records, index, ahead) != segment for ahead in (1, 2)):
            about_to_change.append(index)
        elif str(records[index]["subgoal_simple"]).startswith("press"):
            pressing.append(index)
        else:
            others.append(index)
    shares = (0.3, 0.15, 0.22, 0.08, 0.07, 0.18)
    return list(zip(shares, (deciding, changed, about_to_change, just_changed, pressing, others), strict=True))


def noticed(records: Sequence[Mapping[str, object]], index: int) -> Mapping[str, object]:
    """The call as a policy is to answer it: a place that ended less than half a call ago has not been noticed yet.

    Noticed before the hand is clear of the cube, it is counted though it may not have happened. Until then the hand
    rises by itself; after a pick it does so only slowly, so a lift is never told late.
    """
    record = records[index]
    if not _told_late(records, index):
        return record
    return {**records[index - 1], **{name: record[name] for name in ("step", "scene", "previous_segment")}}


def _told_late(records: Sequence[Mapping[str, object]], index: int) -> bool:
    """A place was completed within half a call."""
    before = _segment(records, index, -1)
    return before < _segment(records, index, 0) and before % 2 == 1


def _segment(records: Sequence[Mapping[str, object]], index: int, offset: int) -> int:
    """The segment `offset` samples away in the same episode, the call's own where the episode ends."""
    other = index + offset
    if 0 <= other < len(records) and records[other]["episode"] == records[index]["episode"]:
        return int(str(records[other]["segment"]))
    return int(str(records[index]["segment"]))


def adapter_losses(
    forward: TrainingForward,
    features: FeatureCache,
    source: ExampleSource,
    encoder: ExampleEncoder,
    batch: int,
    seed: int,
    first: int,
) -> Callable[[int], Mapping[str, Tensor]]:
    """The loss function of one adapter, starting with batch number `first`."""
    rows = batches(source, encoder, batch, seed, first)

    def losses(_: int) -> Mapping[str, Tensor]:
        texts, indices = encoder.collate(next(rows))
        texts = texts.to(forward.device)
        hidden = forward.decode(texts, features.select(indices).to(forward.device))
        token, correct = forward.token_losses(texts, hidden)
        return {"loss": token.mean(), "token_accuracy": correct.float().mean()}

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
    parser.add_argument("--calls", type=Path, required=True, help="recorded high_level folder")
    parser.add_argument("--out", type=Path, required=True, help="run folder; the adapter goes to OUT/POLICY")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    name = load_policy(options.policy).name
    wrapped = lora_model(options.base).to(training_device())
    forward = TrainingForward(wrapped.get_base_model())  # type: ignore[arg-type]
    encoder = ExampleEncoder(reference_tokenizer())
    calls = Calls.load(options.calls)
    features = compute_features(forward, calls.images, options.out / "vision_features.npy")
    folder = options.out / name
    schedule = Schedule(options.steps, options.rate, warmup=50, decay=0.6)
    loop = Loop(wrapped, schedule, folder / "state", folder / "log.jsonl", name)
    source = call_source(options.policy, calls, calls.split()[0])
    loop.run(adapter_losses(forward, features, source, encoder, options.batch, options.seed, loop.step))
    save_adapter(wrapped, folder / "adapter")


def save_adapter(wrapped: PeftModel, folder: Path) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json` as peft reads them, without this machine's paths."""
    wrapped.peft_config["default"].base_model_name_or_path = "high_level_base"
    wrapped.save_pretrained(str(folder), safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # peft's model card template says nothing


if __name__ == "__main__":
    main()
