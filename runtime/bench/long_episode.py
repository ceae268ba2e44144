"""A keyframe policy's high level after one minute of an episode, and after as many as asked.

Memory, store of frames and session live through the episode: memory and store at every call, the VLM at every call of
the first minute and at every `STRIDE`-th from then on. Calls of both ages are then timed in turns. Nothing here imports
torch, so that resident memory is a robot's.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.bench.hardware import resident_bytes
from memrt.runtime.bench.memer_calls import MemerCalls, synthetic_frame
from memrt.runtime.memory.store import JpegFrame, KeyframeStore
from memrt.runtime.policy.frame_features import ShownImage, content_id
from memrt.runtime.policy.vlm_session import CPU_PREFILL_CHUNK, VlmSession
from memrt.runtime.types import ImageArray

CALLS_PER_MINUTE = 60
STRIDE = 20
NS_PER_MS = 1e6
YOUNG, OLD = "young", "old"


class EpisodeHighLevel:
    """Memory, store and session of one episode; frames are made from their raw ticks."""

    def __init__(self, folder: Path, threads: int, tokens: int) -> None:
        """`folder` is an `hl` folder of `.onnx` engines; every answer has `tokens` tokens."""
        self._calls, self._tokens = MemerCalls(), tokens
        self._store: KeyframeStore[JpegFrame] = KeyframeStore(self._calls.keyframes.max_bytes)
        self._session = VlmSession.from_folder(folder, threads, prefill_chunk=CPU_PREFILL_CHUNK)
        self._recent: dict[int, ImageArray] = {}

    def live(self, calls: int, stride: int, name: str) -> None:
        """So many calls, of which every `stride`-th asks the VLM."""
        for number in range(calls):
            if number % (10 * CALLS_PER_MINUTE) == 0:
                print(f"{name}: minute {self._calls.call // CALLS_PER_MINUTE}", file=sys.stderr, flush=True)
            self.call(ask=number % stride == stride - 1)

    def call(self, *, ask: bool = True) -> dict[str, float]:
        """One call. Milliseconds of all of it, and of memory and store alone."""
        # What a camera ring does is not counted.
        self._recent = {
            tick: self._recent[tick] if tick in self._recent else synthetic_frame(tick) for tick in self._calls.recent
        }
        started = time.perf_counter_ns()
        request = self._calls.request()
        kept = [self._store[tick] for tick in request.keyframes]
        asked = time.perf_counter_ns()
        if ask:
            shown = [ShownImage(frame.content, frame.image) for frame in kept]
            recent = [self._recent[tick] for tick in request.recent]
            self._session.generate(request.system, request.user, [*shown, *recent], self._tokens)
        answered = time.perf_counter_ns()
        self._calls.answered()
        self._calls.keep(self._store.follow(self._calls.votes, self._compress))
        ended = time.perf_counter_ns()
        memory = asked - started + ended - answered
        return {"call": (ended - started) / NS_PER_MS, "memory": memory / NS_PER_MS}

    def held(self) -> dict[str, int]:
        """Frames and bytes of the store."""
        return {"frames": len(self._store), "bytes": self._store.nbytes}

    def close(self) -> None:
        """Release the engines."""
        self._session.close()

    def _compress(self, tick: int) -> JpegFrame:
        image = self._recent[tick]
        return JpegFrame.compress(image, content_id(image), self._calls.keyframes.jpeg_quality)


class _Aged:
    """An episode of a certain age, for the race. Notes memory and what is held after one minute and at last."""

    def __init__(self, minutes: int, name: str, settings: Any) -> None:
        self._level = EpisodeHighLevel(Path(settings["folder"]), settings["threads"], settings["tokens"])
        self._level.live(CALLS_PER_MINUTE, 1, name)
        self._notes = [self._note()]
        self._level.live((minutes - 1) * CALLS_PER_MINUTE, STRIDE, name)
        self._notes.append(self._note())

    def run(self) -> dict[str, float]:
        return self._level.call()

    def outputs(self) -> dict[str, NDArray[Any]]:
        return {key: np.asarray([note[key] for note in self._notes]) for key in self._notes[0]}

    def close(self) -> None:
        self._level.close()

    def _note(self) -> dict[str, int]:
        gc.collect()
        return {"resident": resident_bytes(), **self._level.held()}


def contestant(name: str, settings: Any) -> _Aged:
    """`old` has lived `settings["minutes"]` minutes, `young` one."""
    return _Aged(settings["minutes"] if name == OLD else 1, name, settings)
