"""One π0.5 call over its three engines: every view once, the prefix once, then the denoise steps on its K/V.

Nothing is computed for what is not there: missing views and padding are left out, and the adaptive norms, which depend
on the flow time only, come from a table.

A policy that was trained with real-time chunking can begin a chunk with actions that are decided already (the robot
executes them while the chunk is computed). They are clean from the first step on: flow time 0, the table's last row.
Any policy can be pulled towards them instead (`memrt.runtime.policy.chunking`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.bundle import Bundle, require_halves
from memrt.runtime.engine import TensorRtEngine, open_engine
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.chunking import Guidance
from memrt.runtime.policy.low_level_config import LowLevelModel, read_low_level_model
from memrt.runtime.ready_engines import ReadyEngines
from memrt.runtime.types import Engine

Float32Array = NDArray[np.float32]
EmbeddingTable = NDArray[np.float16] | NDArray[np.float32]
KEYS_VALUES = ("keys", "values")  # outputs of the prefix, inputs of the steps


@dataclass(frozen=True, slots=True, eq=False)
class Denoised:
    """Normalised actions float32 [horizon, action_dim], and how long each stage took."""

    actions: Float32Array
    vision_ns: int
    prefix_ns: int
    step_ns: int


class LowLevelSession:
    """The engines of one bundle's `ll`. Not re-entrant; one thread owns it."""

    def __init__(
        self,
        model: LowLevelModel,
        embedding: EmbeddingTable,
        modulation: Float32Array,
        *,
        vision: Engine,
        prefix: Engine,
        step: Engine,
        step_rtc: Engine | None = None,
    ) -> None:
        """`embedding` float16 or float32 [vocabulary, width] is scaled already, and widened as it is looked up.

        `modulation` float32 [steps, 2·layers + 1, 3, expert width]. `step_rtc`, the engine for chunks with a clean
        beginning, needs one more row in it: t = 0. On a GPU, keys and values stay there from the prefix to the steps.
        Raises MemrtError when the tables are not the model's.
        """
        has_clean = step_rtc is not None or len(modulation) == model.denoise_steps + 1
        steps = model.denoise_steps + int(has_clean)
        _expect("ll/embed.npy", embedding, (embedding.shape[0], model.width), "float16", "float32")
        _expect("ll/modulation.npy", modulation, (steps, model.modulation_rows, 3, model.expert_width), "float32")
        self.model = model
        self._embedding, self._modulation = embedding, modulation
        self._vision, self._prefix, self._step, self._step_rtc = vision, prefix, step, step_rtc
        # The step's own row, and that of clean actions where there is one.
        self._rows = np.stack((modulation[0], modulation[-1]))
        self._x = np.empty((1, model.horizon, model.action_dim), np.float32)
        self._velocity = np.empty_like(self._x)
        self._horizon = np.arange(model.horizon, dtype=np.int64)
        _share_prefix(prefix, [step] if step_rtc is None else [step, step_rtc])

    @classmethod
    def open(cls, bundle: Bundle, threads: int = 1, *, engines: ReadyEngines | None = None) -> LowLevelSession:
        """Open a bundle's low level; `engines` are those of this computer, found again if not given.

        On a GPU its work goes before the high level's. Raises MemrtError when the bundle has no low level, when its
        engines must be built first, and when its files do not belong together.
        """
        require_halves(bundle, "ll")
        ready = engines or ReadyEngines.of(bundle)
        return cls._of(
            bundle.folder("ll"),
            lambda name: ready.open(f"ll/{name}", threads=threads, high_priority=True),
            step_rtc="ll/step_rtc" in ready.files,
        )

    @classmethod
    def from_folder(cls, folder: Path, threads: int = 1) -> LowLevelSession:
        """The same from an `ll` folder of `.onnx` files that is not in a bundle yet."""
        return cls._of(
            folder.joinpath,
            lambda name: open_engine(folder / f"{name}.onnx", threads=threads),
            step_rtc=(folder / "step_rtc.onnx").is_file(),
        )

    @classmethod
    def _of(cls, file: Callable[[str], Path], engine: Callable[[str], Engine], *, step_rtc: bool) -> LowLevelSession:
        model = read_low_level_model(file("config.json"))
        embedding, modulation = read_tables(file)
        names = ("vision", "prefix", "step", *(["step_rtc"] if step_rtc else []))
        return cls(model, embedding, modulation, **{name: engine(name) for name in names})

    def denoise(
        self,
        images: Sequence[NDArray[np.uint8]],
        tokens: NDArray[np.int64],
        noise: Float32Array,
        prefix_actions: Float32Array | None = None,
        guidance: Guidance | None = None,
    ) -> Denoised:
        """One chunk from uint8 [S, S, 3] images (the views that are there), token ids [T] and noise [horizon, dim].

        `prefix_actions` [d, dim], normalised, are what the chunk begins with: they stay as they are through all steps,
        the actions after them are denoised to continue them. `guidance` changes the velocity of every step. x is
        accumulated in float32 whatever the engines compute in, and the loop over the steps allocates no array. Raises
        MemrtError for arrays that do not fit, and for a prefix when the bundle has no engine for it.
        """
        model = self.model
        if noise.shape != self._x.shape[1:]:
            raise MemrtError(
                "noise of a low-level call",
                expected=list(self._x.shape[1:]),
                found=list(noise.shape),
                fix="draw it with the policy's noise()",
            )
        clean = self._clean(prefix_actions)
        start_ns = time.monotonic_ns()
        views = [self._vision.run({"image": image})["tokens"][0] for image in images]
        vision_ns = time.monotonic_ns()
        embeddings = np.concatenate((*views, np.asarray(self._embedding[tokens], np.float32)))[None]
        positions = np.arange(embeddings.shape[1], dtype=np.int64)
        cache = self._prefix.run({"embeddings": embeddings, "positions": positions})
        prefix_ns = time.monotonic_ns()
        self._x[0] = noise
        self._x[0, : len(clean)] = clean
        step = self._bind_step(cache, self._horizon + embeddings.shape[1], len(clean))
        x, velocity = self._x[:, len(clean) :], self._velocity[:, len(clean) :]
        for index, row in enumerate(self._modulation[: model.denoise_steps]):
            self._rows[0] = row
            step()
            if guidance is not None:
                guidance.pull(self._velocity[0], self._x[0], 1.0 - index / model.denoise_steps)
            velocity *= np.float32(-1.0 / model.denoise_steps)
            x += velocity
        end_ns = time.monotonic_ns()
        return Denoised(self._x[0].copy(), vision_ns - start_ns, prefix_ns - vision_ns, end_ns - prefix_ns)

    @property
    def continues_clean(self) -> bool:
        """Whether a chunk may begin with clean actions (the engine `step_rtc` is there)."""
        return self._step_rtc is not None

    def close(self) -> None:
        """Release the engines."""
        for engine in (self._vision, self._prefix, self._step, self._step_rtc):
            if engine is not None:
                engine.close()

    def _clean(self, prefix_actions: Float32Array | None) -> Float32Array:
        """The chunk's clean beginning [d, action_dim]; d is 0 without one."""
        horizon, width = self._x.shape[1:]
        if prefix_actions is None or len(prefix_actions) == 0:
            return np.empty((0, width), np.float32)
        if self._step_rtc is None:
            raise MemrtError(
                "a chunk with a clean beginning (real-time chunking)",
                expected="a bundle with the engine step_rtc",
                found="none",
                fix="export with step_rtc (weights that were trained with clean prefixes), or pass no prefix_actions",
            )
        if prefix_actions.shape[1:] != (width,) or len(prefix_actions) >= horizon:
            raise MemrtError(
                "the clean beginning of a chunk",
                expected=f"fewer than {horizon} normalised actions of {width} numbers",
                found=list(prefix_actions.shape),
                fix="pass the first d rows of the normalised chunk that is being executed",
            )
        return prefix_actions

    def _bind_step(
        self, cache: Mapping[str, NDArray[Any]], positions: NDArray[np.int64], clean: int
    ) -> Callable[[], None]:
        """A call that reads x and the modulation row in place and writes the velocity in place.

        Engines with fixed memory (`bind`) allocate nothing inside the loop; any other engine of the protocol works.
        `cache` are the prefix's keys and values, empty where they stay on the device. The first `clean` tokens have the
        flow time of clean actions.
        """
        feeds: dict[str, NDArray[Any]] = {
            "x": self._x,
            "modulation": self._rows[0],
            "positions": positions,
            **cache,
        }
        engine = self._step
        if clean:
            assert self._step_rtc is not None
            engine = self._step_rtc
            feeds |= {"modulation": self._rows, "row": (self._horizon < clean).astype(np.int64)}
        bind = getattr(engine, "bind", None)
        if bind is not None:
            run: Callable[[], None] = bind(feeds, {"velocity": self._velocity}).run
            return run

        def call() -> None:
            self._velocity[...] = engine.run(feeds)["velocity"]

        return call


def read_tables(file: Callable[[str], Path]) -> tuple[EmbeddingTable, Float32Array]:
    """The embedding table (memory-mapped: a real model's takes a gigabyte) and the modulation table.

    `file` finds them by name: `folder.joinpath`, or a bundle's `folder("ll")`.
    """
    try:
        embedding = np.load(file("embed.npy"), mmap_mode="r", allow_pickle=False)
        modulation = np.load(file("modulation.npy"), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise MemrtError(
            f"tables of the action expert in {file('embed.npy').parent}",
            expected="embed.npy and modulation.npy",
            found=error,
            fix="export the policy again",
        ) from error
    return embedding, modulation


def _share_prefix(prefix: Engine, steps: Sequence[Engine]) -> None:
    """Let denoise steps on a GPU read keys and values where the prefix leaves them; others are handed them."""
    readers = [step for step in steps if isinstance(step, TensorRtEngine)]
    if not isinstance(prefix, TensorRtEngine) or len(readers) < len(steps):
        return
    prefix.keep_on_device(KEYS_VALUES)
    for step in readers:
        for name in KEYS_VALUES:
            step.take_from(name, prefix, name)


def _expect(name: str, array: NDArray[Any], shape: tuple[int, ...], *dtypes: str) -> None:
    if array.shape != shape or array.dtype.name not in dtypes:
        raise MemrtError(
            name,
            expected=f"{' or '.join(dtypes)} {list(shape)}",
            found=f"{array.dtype} {list(array.shape)}",
            fix="export the policy again: the table belongs to another model",
        )
