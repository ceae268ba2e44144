"""Held-out metrics of the high-level policy: exact subgoals, exact memories, and pixels of error."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memrt.export.vlm_graphs import load_vlm
from memrt.runtime.memory.parser import parse_reply
from memrt.train.high_level_adapters import call_example
from memrt.train.high_level_data import ASSISTANT, DESCRIBE, Calls, Scenes
from memrt.train.high_level_forward import TrainingForward
from memrt.train.high_level_generate import greedy
from memrt.train.high_level_text import Example, ExampleEncoder
from memrt.train.text_tokenizer import reference_tokenizer

_COORDINATE = re.compile(r"<(\d+), (\d+)>")
_BATCH = 32


def coordinate_errors(reply: str, truth: str) -> list[float]:
    """Distances [pixels] between the coordinates of two texts, in order; none if they differ in number."""
    ours, theirs = _COORDINATE.findall(reply), _COORDINATE.findall(truth)
    if len(ours) != len(theirs):
        return []
    return [float(np.hypot(int(a) - int(c), int(b) - int(d))) for (a, b), (c, d) in zip(ours, theirs, strict=True)]


def words(text: str) -> str:
    """`text` without its coordinates' values."""
    return _COORDINATE.sub("<>", text)


def score(replies: Sequence[str], truths: Sequence[str]) -> dict[str, Any]:
    """Shares of exact matches (coordinates' values aside) and quantiles of the coordinates' error."""
    parsed = [(parse_reply(reply), parse_reply(truth)) for reply, truth in zip(replies, truths, strict=True)]
    errors = [e for ours, theirs in parsed for e in coordinate_errors(ours.subgoal, theirs.subgoal)]
    result: dict[str, Any] = {
        "count": len(replies),
        "subgoal_exact": float(np.mean([words(a.subgoal) == words(b.subgoal) for a, b in parsed])),
    }
    if any(theirs.action_memory is not None for _, theirs in parsed):
        matches = [words(a.action_memory or "") == words(b.action_memory or "") for a, b in parsed]
        result["memory_exact"] = float(np.mean(matches))
    if errors:
        result["pixel_error_median"] = float(np.median(errors))
        result["pixel_error_p90"] = float(np.quantile(errors, 0.9))
    return result


def evaluate(
    weights: Path, adapter: Path | None, policy: str | None, frames: Scenes | Calls, count: int
) -> dict[str, Any]:
    """Greedy answers on `count` held-out frames: descriptions (no policy) or a policy's own calls."""
    model = load_vlm(weights, adapter)
    forward = TrainingForward(model)
    encoder = ExampleEncoder(reference_tokenizer())
    held_out = list(frames.split()[1])
    chosen = held_out[:: max(1, len(held_out) // count)][:count]
    examples = []
    for index in chosen:
        if isinstance(frames, Scenes):
            examples.append(Example(index, ASSISTANT, DESCRIBE, frames.descriptions[index]))
        else:
            assert policy is not None
            examples.append(call_example(policy, frames.records[index], index, None))
    replies: list[str] = []
    for first in range(0, len(examples), _BATCH):
        rows = [encoder.encode(example) for example in examples[first : first + _BATCH]]
        with torch.no_grad():
            vision = forward.vision(torch.from_numpy(np.stack([frames.images[row.image] for row in rows])))
        replies += greedy(model, encoder, rows, vision)
    result = score(replies, [example.reply for example in examples])
    if isinstance(frames, Calls):
        moved = [frames.records[i]["segment"] != frames.records[i]["previous_segment"] for i in chosen]
        changed = [n for n, flag in enumerate(moved) if flag]
        result["transitions"] = score([replies[n] for n in changed], [examples[n].reply for n in changed])
    wrong = [(r, e.reply) for r, e in zip(replies, examples, strict=True) if words(r) != words(e.reply)]
    result["examples_of_errors"] = wrong[:5]
    return result


def main() -> None:
    """Print the metrics of one model as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--policy")
    parser.add_argument("--scenes", type=Path)
    parser.add_argument("--calls", type=Path)
    parser.add_argument("--count", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    frames = Scenes.load(options.scenes) if options.scenes else Calls.load(options.calls)
    result = evaluate(options.weights, options.adapter, options.policy, frames, options.count)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
