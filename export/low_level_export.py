"""The low level's share of an export: its graphs, what its engines are fed, and its chunks beside the torch model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memrt.calib.calibration_set import CalibrationSet, LowLevelSample
from memrt.calib.observations import Wording, policy_wording
from memrt.export.engine_build import Part, canonicalise_file
from memrt.export.pi05_graphs import INPUTS, OUTPUTS, export_pi05
from memrt.export.pi05_reference import references
from memrt.export.recorded_chunks import Chunks, Denoise, chunks, moments
from memrt.export.taps import FeedStore, TappedEngine
from memrt.export.torch_callable import torch_callable
from memrt.runtime.config import PolicyConfig
from memrt.runtime.engine import open_engine
from memrt.runtime.policy.low_level_config import read_low_level_model
from memrt.runtime.policy.low_level_session import Denoised, LowLevelSession, read_tables
from memrt.train.pi05.policy import TorchLowLevel

# Which calls of one chunk are kept: every view, the prefix, and denoise steps from noise to action.
TAPPED_STEPS = (0, 3, 6, 9)


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

    def tap(
        self, samples: Sequence[LowLevelSample], work: Path, wordings: Sequence[Wording] = ()
    ) -> dict[str, FeedStore]:
        """What the engines are fed for `samples`, written below `work`; told in `wordings`, by default the policy's."""
        kept = {"step": TAPPED_STEPS, "step_rtc": TAPPED_STEPS}
        engines = {
            name: TappedEngine(open_engine(self._folder / f"{name}.onnx", threads=self._threads), kept.get(name))
            for name in self._names
        }
        session = LowLevelSession(
            read_low_level_model(self._folder / "config.json"), *read_tables(self._folder.joinpath), **engines
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

        self._chunks(denoise_again if "step_rtc" in engines else denoise, samples, wordings)
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

    def _chunks(self, denoise: Denoise, samples: Sequence[LowLevelSample], wordings: Sequence[Wording] = ()) -> Chunks:
        interface, model = self._torch.interface, self._torch.model
        wordings = wordings or (policy_wording(self._policy),)
        return chunks(denoise, moments(self._recorded, samples, interface, model, wordings), interface)
