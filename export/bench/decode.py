"""`memrt bench decode`: greedy answers of a VLM about one image, our engines beside transformers' own `generate`.

transformers runs in bf16 and, where it fits into memory, in fp32; the faster of the two is the peer. On processors
without bf16 products that is fp32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memrt.export.bench.race import Contestant, Measured, Progress, Race, Settings, relative_l2
from memrt.export.bench.transformers_vlm import PEERS, PeerAnswer, TransformersVlm
from memrt.export.bench.vlm import SYSTEM, USER, BenchVlm, vlm_engines
from memrt.export.checkpoints.disk import check_disk
from memrt.export.plan import Scheme
from memrt.runtime.bench.hardware import GIB, available_bytes, check_memory, hardware, versions

OURS = "ours"
NS_PER_MS = 1e6
RESERVE = GIB * 5 // 4  # libraries, activations, the embedding read while it is copied


def bench_decode(
    size: str, *, tokens: int, runs: int, threads: int, precision: Scheme, work: Path, progress: Progress
) -> dict[str, Any]:
    """The report, as plain JSON values. Raises MemrtError for an unknown size and for too little memory or disk."""
    model = BenchVlm.open(size)
    needed = needed_bytes(model, precision)
    smallest = max(needed[OURS], needed["transformers_bf16"])
    check_memory(smallest, f"bench decode --size {size}", "close other programs, or choose a smaller size")
    check_disk(work, model.elements * 2 + GIB // 10)
    torch.set_num_threads(threads)
    before = hardware()
    folder = vlm_engines(model, precision, work, progress)
    settings = {"size": size, "threads": threads, "tokens": tokens, "folder": str(folder)}
    race = Race(__name__, settings, runs)
    groups, left_out = group(needed, available_bytes())
    found: dict[str, Measured] = {}
    for names in groups:
        found.update(race.together(names, progress) if len(groups) == 1 else race.apart(names, progress))
    return {
        "bench": "decode",
        "size": size,
        "threads": threads,
        "runs": runs,
        "tokens": tokens,
        "precision": precision,
        "prompt_tokens": len(model.prompt_ids()),
        **summary(found),
        "not_run": left_out,
        "how": f"in turns in one process: {'; then '.join(', '.join(names) for names in groups)}",
        "hardware": before,
        "versions": versions(),
        "measured_on": "CPU",
    }


def needed_bytes(model: BenchVlm, precision: Scheme) -> dict[str, int]:
    """Resident memory per contestant. ONNX Runtime packs codes for its kernels while the file's are still mapped."""
    codes = 0.63 if precision == "int4" else 1.05
    return {
        OURS: int(model.elements * codes * 2) + RESERVE,
        **{name: model.elements * dtype.itemsize + RESERVE for name, dtype in PEERS.items()},
    }


def group(needed: dict[str, int], available: int | None) -> tuple[list[list[str]], dict[str, str]]:
    """Who runs with whom: as many in one process as fit together, in order; and why the others do not run."""
    groups: list[list[str]] = [[]]
    left_out: dict[str, str] = {}
    for name, size in needed.items():
        together = sum(needed[other] for other in groups[-1]) + size
        if available is None or together <= available:
            groups[-1].append(name)
        elif size <= available:
            groups.append([name])
        else:
            left_out[name] = f"needs {size / GIB:.1f} GiB, {available / GIB:.1f} GiB available"
    return groups, left_out


def summary(found: dict[str, Measured]) -> dict[str, Any]:
    """Milliseconds per token, tokens per second, speedups over each peer and the fastest, agreement with it."""
    taken = {name: one.median("per_token") for name, one in found.items()}
    peers = {name: value for name, value in taken.items() if name != OURS}
    fastest = min(peers, key=peers.__getitem__)
    exact = "transformers_fp32" if "transformers_fp32" in found else fastest
    mine, theirs = found[OURS].outputs, found[exact].outputs
    return {
        **{f"{name}_ms": value for name, value in taken.items()},
        "tokens_per_s": {name: round(1000.0 / value, 3) for name, value in taken.items()},
        "peer": fastest,
        "speedup": {
            "transformers": round(peers[fastest] / taken[OURS], 3),
            **{name: round(value / taken[OURS], 3) for name, value in peers.items()},
        },
        "prefill_ms": {name: one.median("prefill") for name, one in found.items()},
        "relative_l2": relative_l2(theirs["logits"], mine["logits"]),
        "identical_tokens": float((theirs["tokens"] == mine["tokens"]).mean()),
        "compared_with": exact,
        "all_runs_ms": {name: one.times for name, one in found.items()},
        "peak_gib": {name: round(one.peak / GIB, 2) for name, one in found.items()},
    }


def contestant(name: str, settings: Settings) -> Contestant:
    """`ours` or one of `PEERS`, loaded."""
    torch.set_num_threads(int(settings["threads"]))
    model = BenchVlm.open(settings["size"])
    if name == OURS:
        return _OurDecode(model, Path(settings["folder"]), settings["threads"], settings["tokens"])
    return _TransformersDecode(model, PEERS[name], settings["tokens"])


class _OurDecode:
    def __init__(self, model: BenchVlm, folder: Path, threads: int, tokens: int) -> None:
        self._session, self._heard = model.session(folder, threads)
        self._image, self._tokens = model.image(), tokens

    def run(self) -> dict[str, float]:
        self._session.forget()
        self._heard.logits.clear()
        answer = self._session.generate(SYSTEM, USER, [self._image], self._tokens)
        # The prompt's end gives the first token: it belongs to prefill, as does the image.
        return {
            "prefill": (answer.vision_ns + answer.prefill_ns) / NS_PER_MS,
            "per_token": answer.decode_ns / NS_PER_MS / (answer.new_tokens - 1),
        }

    def outputs(self) -> dict[str, NDArray[Any]]:
        logits = np.stack(self._heard.logits)
        return {"logits": logits[0], "tokens": logits.argmax(-1)}

    def close(self) -> None:
        self._session.close()


class _TransformersDecode:
    def __init__(self, model: BenchVlm, dtype: torch.dtype, tokens: int) -> None:
        self._peer = TransformersVlm(model, dtype, tokens)
        self._inputs = self._peer.prepare(model.prompt_ids(), [model.image()])
        self._answer: PeerAnswer | None = None

    def run(self) -> dict[str, float]:
        self._answer = found = self._peer.answer(self._inputs)
        return {
            "prefill": (found.vision_ns + found.prefill_ns) / NS_PER_MS,
            "per_token": found.decode_ns / NS_PER_MS / (len(found.tokens) - 1),
        }

    def outputs(self) -> dict[str, NDArray[Any]]:
        assert self._answer is not None
        return {"logits": self._answer.logits, "tokens": self._answer.tokens}

    def close(self) -> None:
        self._peer.close()
