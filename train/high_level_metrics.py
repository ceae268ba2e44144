"""Held-out metrics of the high level, task by task: exact subgoals, exact memories, right counts, pixels of error.

Every call is answered alone, with the memory that the labels would have it hold (teacher-forced): what is measured is
the next step, not how errors add up over an episode. `memrt eval` measures that.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from memrt.export.vlm_graphs import load_vlm
from memrt.runtime.memory.keyframe_reply import parse_keyframe_reply
from memrt.runtime.memory.parser import Reply, parse_reply
from memrt.train.high_level_calls import asked_about
from memrt.train.high_level_data import ASSISTANT, DESCRIBE, Scenes
from memrt.train.high_level_forward import TrainingForward
from memrt.train.high_level_frames import FrameIndex
from memrt.train.high_level_generate import greedy
from memrt.train.high_level_text import Example, ExampleEncoder
from memrt.train.high_level_turns import TurnWriter, read_calls
from memrt.train.task_language import CARDINALS, ORDINALS, TIMES

_COORDINATE = re.compile(r"<(\d+), (\d+)>")
_COUNT = re.compile(rf"\b({'|'.join((*ORDINALS, *CARDINALS, *(times.split()[0] for times in TIMES)))})\b")
_BATCH = 32
_MAX_NEW_TOKENS = 256


def coordinate_errors(reply: str, truth: str) -> list[float]:
    """Distances [pixels] between the coordinates of two texts, in order; none if they differ in number."""
    ours, theirs = _COORDINATE.findall(reply), _COORDINATE.findall(truth)
    if len(ours) != len(theirs):
        return []
    return [float(np.hypot(int(a) - int(c), int(b) - int(d))) for (a, b), (c, d) in zip(ours, theirs, strict=True)]


def words(text: str) -> str:
    """`text` without its coordinates' values."""
    return _COORDINATE.sub("<>", text)


def counts(text: str) -> list[str]:
    """The numbers, ordinals and frequencies of a text, in order."""
    return _COUNT.findall(text)


def score(replies: Sequence[str], truths: Sequence[str]) -> dict[str, Any]:
    """Shares of exact matches (coordinates' values aside) and quantiles of the coordinates' error."""
    parsed = [(_parsed(reply), _parsed(truth)) for reply, truth in zip(replies, truths, strict=True)]
    errors = [e for ours, theirs in parsed for e in coordinate_errors(ours.subgoal, theirs.subgoal)]
    result: dict[str, Any] = {
        "count": len(replies),
        "subgoal_exact": _share(words(a.subgoal) == words(b.subgoal) for a, b in parsed),
    }
    if any(counts(truth) for truth in truths):
        pairs = zip(replies, truths, strict=True)
        result["counts_right"] = _share(counts(reply) == counts(truth) for reply, truth in pairs)
    for name in ("action_memory", "spatial_memory"):
        memories = [(getattr(a, name) or "", getattr(b, name)) for a, b in parsed]
        if any(theirs is not None for _, theirs in memories):
            result[f"{name}_exact"] = _share(words(ours) == words(theirs or "") for ours, theirs in memories)
    if errors:
        result["pixel_error_median"] = float(np.median(errors))
        result["pixel_error_p90"] = float(np.quantile(errors, 0.9))
    return result


def _share(flags: Any) -> float:
    return float(np.mean(list(flags)))


def _parsed(reply: str) -> Reply:
    """A reply with its positions of keyframes, if it has any, as what it remembers."""
    keyframes = parse_keyframe_reply(reply)
    if keyframes is None:
        return parse_reply(reply)
    return Reply(keyframes.subtask, str(sorted(keyframes.positions)))


def answers(weights: Path, adapter: Path | None, frames: FrameIndex, examples: Sequence[Example]) -> list[str]:
    """Greedy answers of a model, with an adapter or without, to chats about some frames."""
    model = load_vlm(weights, adapter)
    forward = TrainingForward(model)
    encoder = ExampleEncoder(Tokenizer.from_file(str(weights / "tokenizer.json")))
    replies: list[str] = []
    for first in range(0, len(examples), _BATCH):
        rows = [encoder.encode(example) for example in examples[first : first + _BATCH]]
        with torch.no_grad():
            vision = forward.vision(frames.images(image for row in rows for image in row.images))
        replies += greedy(model, encoder, rows, vision, _MAX_NEW_TOKENS)
    return replies


def describe_scenes(weights: Path, folder: Path, count: int) -> dict[str, Any]:
    """How well a model describes held-out scenes."""
    scenes = Scenes.load(folder)
    chosen = _spread(scenes.split()[1], count)
    if not chosen:
        return {"count": 0}
    examples = [Example((index,), ASSISTANT, DESCRIBE, scenes.descriptions[index]) for index in chosen]
    return score(answers(weights, None, scenes.frames, examples), [example.reply for example in examples])


def evaluate(weights: Path, adapter: Path | None, policy: str, folders: Sequence[Path], count: int) -> dict[str, Any]:
    """A policy's answers at held-out calls, `count` of every task: where a subgoal has just changed, and others."""
    calls = read_calls([policy], folders)
    writer = TurnWriter.of_policy(policy, calls)
    result: dict[str, Any] = {"policy": policy}
    for task, indices in sorted(calls.by_task(calls.split()[1]).items()):
        asked = {index: asked_about(calls.records, index) for index in indices}
        moved = [index for index in indices if asked[index] == "over"]
        stayed = [index for index in indices if asked[index] not in ("over", "")]
        chosen = {"transitions": _spread(moved, count // 2), "others": _spread(stayed, count - count // 2)}
        examples = [writer.recorded(index) for part in chosen.values() for index in part]
        replies = answers(weights, adapter, calls.frames, examples)
        truths = [example.reply for example in examples]
        here = len(chosen["transitions"])
        wrong = [(r, t) for r, t in zip(replies, truths, strict=True) if words(r) != words(t)]
        result[task] = {
            "transitions": score(replies[:here], truths[:here]) if here else {},
            "others": score(replies[here:], truths[here:]) if here < len(replies) else {},
            "examples_of_errors": wrong[:3],
        }
    return result


def _spread(indices: Sequence[int], count: int) -> list[int]:
    return list(indices)[:: max(1, len(indices) // max(1, count))][:count]


def main() -> None:
    """Print the metrics of one model as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--policy", help="measure its answers at --calls")
    parser.add_argument("--calls", type=Path, nargs="+", help="recorded high_level or episodes folders")
    parser.add_argument("--scenes", type=Path, help="recorded grounding folder: measure descriptions instead")
    parser.add_argument("--count", type=int, default=40, help="calls of every task, or scenes")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.scenes:
        result = describe_scenes(options.weights, options.scenes, options.count)
    elif options.policy and options.calls:
        result = evaluate(options.weights, options.adapter, options.policy, options.calls, options.count)
    else:
        parser.error("give --scenes, or --policy and --calls")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
