"""`memrt bench high-level`: calls of a keyframe policy, 8 keyframes and 8 recent frames, as they follow each other.

Ours is what the real-time loop does: it keeps what it computed, and the prompt is read ahead, up to the newest frame,
before the call is due. transformers' `generate` encodes all frames and reads the whole prompt at every call, in bf16
and, where it fits into memory, in fp32. The faster of the two is the peer. Over the same engines ours is also measured
with nothing read ahead, and with nothing kept: these parts of the gain are the runtime's, the rest the engines'.
`total` is ours with the time that reading ahead took.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memrt.export.bench.decode import OURS, group, needed_bytes
from memrt.export.bench.race import Contestant, Measured, Progress, Race, Settings, relative_l2
from memrt.export.bench.transformers_vlm import PEERS, TransformersVlm
from memrt.export.bench.vlm import SEED, BenchVlm, LastLogits, Question, vlm_engines
from memrt.export.checkpoints.disk import check_disk
from memrt.export.plan import Scheme
from memrt.runtime.bench.hardware import GIB, available_bytes, check_memory, hardware, versions
from memrt.runtime.bench.memer_calls import STEADY, MemerCalls
from memrt.runtime.engine import open_engine
from memrt.runtime.memory.state import HighLevelRequest
from memrt.runtime.policy.frame_features import ShownImage, content_id
from memrt.runtime.policy.vlm import Generation
from memrt.runtime.policy.vlm_session import CPU_PREFILL_CHUNK, VlmSession
from memrt.runtime.statistics import median

CAPACITY = 1536  # 16 frames of 64 tokens with their tags are 1056; the words, and 128 new tokens
PARTS = ("vision", "prefill", "decode")
AT_ONCE, WITHOUT = "without_reading_ahead", "without_reuse"
NS_PER_MS = 1e6
# Beside weights and libraries: the peer's activations over 16 frames, ours over a chunk against the whole cache.
WORKING = GIB


def bench_high_level(
    size: str,
    *,
    layers: int | None,
    calls: int,
    tokens: int,
    threads: int,
    precision: Scheme,
    work: Path,
    progress: Progress,
) -> dict[str, Any]:
    """The report, as plain JSON values. Raises MemrtError for an unknown size and for too little memory or disk."""
    model = open_model(size, layers)
    needed = {name: need + WORKING for name, need in needed_bytes(model, precision).items()}
    smallest = max(needed[OURS], needed["transformers_bf16"])
    check_memory(smallest, f"bench high-level --size {size}", "close other programs, or take fewer --layers")
    check_disk(work, model.elements * 2 + GIB // 10)
    torch.set_num_threads(threads)
    before = hardware()
    folder = vlm_engines(model, precision, work, progress)
    settings = {"size": size, "layers": layers, "threads": threads, "tokens": tokens, "folder": str(folder)}
    race = Race(__name__, settings, calls)
    groups, left_out = group(needed, available_bytes())
    found: dict[str, Measured] = {}
    for names in groups:
        found.update(race.together(names, progress) if len(groups) == 1 else race.apart(names, progress))
    text: Any = model.checkpoint.config.text_config
    return {
        "bench": "high-level",
        "size": size,
        "weights": model.checkpoint.source.label,
        "decoder_layers": text.num_hidden_layers,
        "decoder_layers_of_the_full_model": open_model(size, None).settings.layers,
        "vision_layers": model.checkpoint.config.vision_config.depth,
        "threads": threads,
        "runs": calls,
        "tokens": tokens,
        "precision": precision,
        "prefill_chunk": CPU_PREFILL_CHUNK,
        **summary(found),
        "not_run": left_out,
        "how": f"in turns in one process: {'; then '.join(', '.join(names) for names in groups)}",
        "hardware": before,
        "versions": versions(),
        "measured_on": "CPU",
    }


def open_model(size: str, layers: int | None) -> BenchVlm:
    """The model with room for a whole request. Raises MemrtError for an unknown size."""
    calls = MemerCalls()
    calls.skip(STEADY)
    return BenchVlm.open(size, layers=layers, capacity=CAPACITY, example=_question(calls.request(), SEED))


def _question(request: HighLevelRequest, seed: int) -> Question:
    """The request with an image for each raw tick: `seed` and the tick seed it."""
    return Question(request.system, request.user, tuple(seed + tick for tick in request.keyframes + request.recent))


def summary(found: dict[str, Measured]) -> dict[str, Any]:
    """Medians and means of a call, speedups over each peer, the fastest and no reuse; agreement; where time goes."""
    ours = found[OURS]
    taken = {name: one.times["call"] for name, one in found.items()}
    taken |= {name: ours.times[f"{name}_call"] for name in (AT_ONCE, WITHOUT)}
    taken["total"] = [before + call for before, call in zip(ours.times["before"], ours.times["call"], strict=True)]
    medians = {name: median(times) for name, times in taken.items()}
    means = {name: float(np.mean(times)) for name, times in taken.items()}
    peers = [name for name in found if name != OURS]
    fastest = min(peers, key=medians.__getitem__)
    exact = "transformers_fp32" if "transformers_fp32" in found else fastest
    mine, theirs = ours.outputs, found[exact].outputs

    def ratios(values: dict[str, float]) -> dict[str, float]:
        against = {"transformers": fastest, **{name: name for name in peers}, AT_ONCE: AT_ONCE, WITHOUT: WITHOUT}
        over = {name: round(values[other] / values[OURS], 3) for name, other in against.items()}
        return over | {"total": round(values[fastest] / values["total"], 3)}

    parts = {name: {part: one.median(part) for part in PARTS} for name, one in found.items()}
    parts |= {name: {part: ours.median(f"{name}_{part}") for part in PARTS} for name in (AT_ONCE, WITHOUT)}
    return {
        **{f"{name}_ms": round(value, 4) for name, value in medians.items()},
        "peer": fastest,
        "speedup": ratios(medians),
        "speedup_of_the_means": ratios(means),
        "before_the_call_ms": ours.median("before"),
        "mean_ms": {name: round(value, 4) for name, value in means.items()},
        "parts_ms": parts,
        "shares": {name: _shares(of) for name, of in parts.items()},
        "frames": mine["frames"].tolist(),
        "prompt_tokens": mine["prompt"].tolist(),
        "reused_tokens": mine["reused"].tolist(),
        "relative_l2": relative_l2(theirs["logits"], mine["logits"]),
        "identical_tokens": float((theirs["tokens"] == mine["tokens"]).mean()),
        "identical_first_tokens": float((theirs["tokens"][:, 0] == mine["tokens"][:, 0]).mean()),
        **{
            f"identical_tokens_{name}": float((mine[f"{name}_tokens"] == mine["tokens"]).mean())
            for name in (AT_ONCE, WITHOUT)
        },
        "compared_with": exact,
        "all_runs_ms": {name: one.times for name, one in found.items()},
        "peak_gib": {name: round(one.peak / GIB, 2) for name, one in found.items()},
    }


def _shares(parts: dict[str, float]) -> dict[str, float]:
    return {part: round(value / sum(parts.values()), 3) for part, value in parts.items()}


def contestant(name: str, settings: Settings) -> Contestant:
    """`ours` or one of `PEERS`, loaded."""
    torch.set_num_threads(int(settings["threads"]))
    model = open_model(settings["size"], settings["layers"])
    if name == OURS:
        return _OurCalls(model, Path(settings["folder"]), settings["threads"], settings["tokens"])
    return _PeerCalls(model, PEERS[name], settings["tokens"])


class _Questions:
    """The same calls for every contestant, beginning in the steady state."""

    def __init__(self, model: BenchVlm) -> None:
        self._model, self._calls = model, MemerCalls()
        self._calls.skip(STEADY)

    def next(self) -> tuple[Question, int, list[NDArray[np.uint8]]]:
        """The next question, how many of its images are keyframes, and all images, those first."""
        request = self._calls.request()
        self._calls.answered()
        asked = _question(request, 10 * SEED)  # no image of the calibration
        return asked, len(request.keyframes), [self._model.image(seed) for seed in asked.seeds]


class _OurCalls:
    def __init__(self, model: BenchVlm, folder: Path, threads: int, tokens: int) -> None:
        self._decoder = LastLogits(open_engine(folder / "decoder.onnx", threads=threads))
        vision = model.vision_engines(folder, threads)

        def session(*, reuse: bool = True) -> VlmSession:
            # Random weights say anything: how much of an answer the one before foretells would be measured by chance.
            return model.session_over(
                folder, vision, self._decoder, prefill_chunk=CPU_PREFILL_CHUNK, reuse=reuse, drafts=False
            )

        self._sessions = {"": session(), f"{AT_ONCE}_": session(), f"{WITHOUT}_": session(reuse=False)}
        self._questions, self._tokens = _Questions(model), tokens
        self._said: dict[str, list[Any]] = {}
        self._counted = 0

    def run(self) -> dict[str, float]:
        asked, keyframes, images = self._questions.next()
        # A keyframe is kept by its identity; the recent frames come as pixels.
        shown = [ShownImage(content_id(image), _giving(image)) for image in images[:keyframes]]
        pictures = [*shown, *images[keyframes:]]
        times: dict[str, float] = {}
        for name, session in self._sessions.items():
            if not name:
                start = time.perf_counter_ns()
                session.read_ahead(asked.system, asked.user, pictures[:-1])
                times["before"] = (time.perf_counter_ns() - start) / NS_PER_MS
            self._decoder.logits.clear()
            start = time.perf_counter_ns()
            answer = session.generate(asked.system, asked.user, pictures, self._tokens)
            times[f"{name}call"] = (time.perf_counter_ns() - start) / NS_PER_MS
            times |= {f"{name}{part}": getattr(answer, f"{part}_ns") / NS_PER_MS for part in PARTS}
            self._note(name, answer, len(images))
        return times

    def _note(self, name: str, answer: Generation, frames: int) -> None:
        logits = np.stack(self._decoder.logits[-self._tokens :])  # before: the prompt's other chunks
        noted = {f"{name}tokens": logits.argmax(-1)}
        if not name:
            noted |= {"logits": logits[0], "frames": np.asarray(frames)}
            noted |= {"prompt": np.asarray(answer.prompt_tokens), "reused": np.asarray(answer.reused_tokens)}
        for key, value in noted.items():
            self._said.setdefault(key, []).append(value)

    def outputs(self) -> dict[str, NDArray[Any]]:
        return {key: np.stack(values[1:]) for key, values in self._said.items()}  # without the warm-up

    def close(self) -> None:
        self._sessions[""].close()  # the others have the same engines


def _giving(image: NDArray[np.uint8]) -> Callable[[], NDArray[np.uint8]]:
    return lambda: image


class _PeerCalls:
    def __init__(self, model: BenchVlm, dtype: torch.dtype, tokens: int) -> None:
        self._model, self._questions = model, _Questions(model)
        self._peer = TransformersVlm(model, dtype, tokens)
        self._tokens: list[NDArray[np.int64]] = []
        self._logits: list[NDArray[np.float32]] = []

    def run(self) -> dict[str, float]:
        asked, _, images = self._questions.next()
        # Words to ids and pixels to patches are not counted: in ours they are.
        found = self._peer.answer(self._peer.prepare(self._model.prompt_ids(asked), images))
        self._tokens.append(found.tokens)
        self._logits.append(found.logits)
        parts = {part: getattr(found, f"{part}_ns") / NS_PER_MS for part in PARTS}
        return {"call": found.total_ns / NS_PER_MS, **parts}

    def outputs(self) -> dict[str, NDArray[Any]]:
        return {"tokens": np.stack(self._tokens[1:]), "logits": np.stack(self._logits[1:])}

    def close(self) -> None:
        self._peer.close()
