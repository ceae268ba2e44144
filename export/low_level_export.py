"""The low level's share of an export: its graphs, what its engines are fed, and its chunks beside the torch model's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memrt.calib.calibration_set import CalibrationSet, LowLevelSample
from memrt.calib.observations import observation_of, subgoal_text
from memrt.export.engine_build import Part, canonicalise_file
from memrt.export.pi05_graphs import INPUTS, OUTPUTS, export_pi05
from memrt.export.pi05_reference import references
from memrt.export.taps import FeedStore, TappedEngine
from memrt.export.torch_callable import torch_callable
from memrt.runtime.config import PolicyConfig
from memrt.runtime.engine import open_engine
from memrt.runtime.policy.low_level_config import read_low_level_model
from memrt.runtime.policy.low_level_session import Denoised, LowLevelSession, read_tables
from memrt.runtime.types import ARM_JOINTS
from memrt.train.pi05.policy import TorchLowLevel

Denoise = Callable[[Sequence[NDArray[np.uint8]], NDArray[np.int64], NDArray[np.float32]], Denoised]

# Which calls of one chunk are kept: every view, the prefix, and denoise steps from noise to action.
TAPPED_STEPS = (0, 3, 6, 9)
CLOSED = 0.5  # gripper opening below which a command closes the hand
NOISE_SEED = 1  # the recorded chunks of gates; bundles are compared with another seed


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """Whole calls, one entry per sample: the arm's normalised actions {"arm": float32 [horizon, 7]}, and where the
    gripper is commanded to close, bool [horizon].
    """

    arm: list[dict[str, NDArray[np.float32]]]
    closed: list[NDArray[np.bool_]]


class LowLevelExport:
    """The action expert of one policy, as torch module and as the graphs in `folder`, over the same samples."""

    def __init__(
        self,
        policy: PolicyConfig,
        weights: Path,
        folder: Path,
        recorded: CalibrationSet,
        threads: int = 1,
        *,
        step_rtc: bool = False,
    ) -> None:
        """Export the checkpoint `weights` to `folder`, fp32 and canonical.

        `step_rtc` adds the step for chunks with a clean beginning: for weights that were trained with such.
        """
        self._policy, self._folder, self._recorded, self._threads = policy, folder, recorded, threads
        self._names = [name for name in INPUTS if name != "step_rtc" or step_rtc]
        export_pi05(weights, folder, denoise_steps=policy.low_level.denoise_steps, step_rtc=step_rtc)
        for name in self._names:
            canonicalise_file(folder / f"{name}.onnx")
        self._torch = TorchLowLevel(weights, policy.low_level, threads)

    def torch_chunks(self, samples: Sequence[LowLevelSample]) -> Chunks:
        """Whole calls of the torch model."""
        return self._chunks(self._torch.denoise, samples)

    def engine_chunks(self, samples: Sequence[LowLevelSample]) -> Chunks:
        """The same from the engines that lie in the folder now."""
        session = LowLevelSession.from_folder(self._folder, self._threads)
        try:
            return self._chunks(session.denoise, samples)
        finally:
            session.close()

    def tap(self, samples: Sequence[LowLevelSample], work: Path) -> dict[str, FeedStore]:
        """What the engines are fed for `samples`, written below `work`."""
        kept = {"step": TAPPED_STEPS, "step_rtc": TAPPED_STEPS}
        engines = {
            name: TappedEngine(open_engine(self._folder / f"{name}.onnx", threads=self._threads), kept.get(name))
            for name in self._names
        }
        session = LowLevelSession(
            read_low_level_model(self._folder / "config.json"), *read_tables(self._folder), **engines
        )
        stores = {name: FeedStore(work / name) for name in engines}
        for name, engine in engines.items():
            engine.store = stores[name]

        def denoise(
            images: Sequence[NDArray[np.uint8]], tokens: NDArray[np.int64], noise: NDArray[np.float32]
        ) -> Denoised:
            for engine in engines.values():
                engine.begin()
            return session.denoise(images, tokens, noise)

        def denoise_again(
            images: Sequence[NDArray[np.uint8]], tokens: NDArray[np.int64], noise: NDArray[np.float32]
        ) -> Denoised:
            first = denoise(images, tokens, noise)
            clean = 1 + len(stores["step_rtc"]) // len(TAPPED_STEPS) % (len(noise) // 2)
            engines["vision"].store = engines["prefix"].store = None  # they are fed the same again
            again = session.denoise(images, tokens, noise[::-1].copy(), first.actions[:clean])
            engines["vision"].store, engines["prefix"].store = stores["vision"], stores["prefix"]
            return again

        self._chunks(denoise_again if "step_rtc" in engines else denoise, samples)
        session.close()
        return stores

    def parts(self, calibration: Mapping[str, FeedStore], gate: Mapping[str, FeedStore]) -> list[Part]:
        """The engines of the low level, to be built."""
        modules = references(self._torch.network)
        return [
            Part(
                name=f"ll/{name}",
                file=f"ll/{name}.onnx",
                reference=torch_callable(modules[name], INPUTS[name], OUTPUTS[name]),
                calibration=calibration[name],
                gate=gate[name],
            )
            for name in self._names
        ]

    def _chunks(self, denoise: Denoise, samples: Sequence[LowLevelSample]) -> Chunks:
        style = self._policy.memory.subgoal_style
        chunks = Chunks([], [])
        for index, sample in enumerate(samples):
            observation = observation_of(self._recorded, sample)
            interface = self._torch.interface
            tokens = interface.prompt(observation, subgoal_text(sample, style), sample.goal)
            noise = self._torch.noise(NOISE_SEED, index)
            actions = denoise(interface.images(observation), tokens, noise).actions
            chunks.arm.append({"arm": actions[:, :ARM_JOINTS].copy()})
            chunks.closed.append(interface.chunk(actions, observation, 0).actions[:, ARM_JOINTS] < CLOSED)
        return chunks
