"""The low-level policy: an observation and a subgoal become a timed chunk of actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.bundle import Bundle
from memrt.runtime.config import LowLevelConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.actions import ActionLayout, at_pace
from memrt.runtime.policy.chunking import Guidance, executed, leftover, soft_mask
from memrt.runtime.policy.low_level_config import LowLevelModel
from memrt.runtime.policy.low_level_session import Denoised, LowLevelSession
from memrt.runtime.policy.noise import chunk_noise
from memrt.runtime.policy.preprocess import (
    NormStats,
    discretise_state,
    prompt_uses_state,
    resize_with_pad,
)
from memrt.runtime.policy.prompt_tokens import PromptTokens
from memrt.runtime.ready_engines import ReadyEngines
from memrt.runtime.types import PROPRIOCEPTION_DIM, ActionChunk, Observation, PlayingChunk, Subgoal

NS_PER_S = 1_000_000_000

Float32Array = NDArray[np.float32]

Denoise = Callable[[list[NDArray[np.uint8]], NDArray[np.int64], NDArray[np.float32]], Denoised]


@dataclass(frozen=True, slots=True, eq=False)
class LowLevelResult:
    """One call's chunk; the times are durations."""

    chunk: ActionChunk
    vision_ns: int
    prefix_ns: int
    step_ns: int


class LowLevelInterface:
    """Everything around the network: images, prompt, normalisation, timing. Pure; shared by all ways to run it."""

    def __init__(self, settings: LowLevelConfig, model: LowLevelModel, tokens: PromptTokens, stats: NormStats) -> None:
        """Raises MemrtError when the policy's settings are not those the weights were built for."""
        layout = ActionLayout(settings.actions, settings.state, settings.delta_mask)
        actions = stats.actions.without_padding(layout.dimensions)
        state = stats.state.without_padding(PROPRIOCEPTION_DIM)
        ignored = not prompt_uses_state(settings.prompt)  # then nothing is normalised by the state's stats
        for name, wanted, built in (
            ("image_size", settings.image_size, model.image_size),
            ("horizon", settings.horizon, model.horizon),
            ("denoise_steps", settings.denoise_steps, model.denoise_steps),
            ("number of cameras", len(settings.cameras), min(len(settings.cameras), model.max_views)),
            ("action dimensions", layout.dimensions, min(layout.dimensions, model.action_dim)),
            ("norm stats of actions", layout.dimensions, actions.dimensions),
            ("norm stats of the state", state.dimensions if ignored else PROPRIOCEPTION_DIM, state.dimensions),
        ):
            if wanted != built:
                raise MemrtError(
                    f"low-level policy, {name}",
                    expected=f"{wanted} (the policy's settings)",
                    found=f"{built} (its weights)",
                    fix="correct the policy's low_level block, or name the weights that belong to it",
                )
        self._settings, self._tokens, self._stats = settings, tokens, NormStats(state, actions)
        self._layout = layout
        self._dt_ns = round(NS_PER_S / settings.control_hz)
        self._uses_state = not ignored
        self._action_dim = model.action_dim

    def images(self, observation: Observation) -> list[NDArray[np.uint8]]:
        """uint8 [S, S, 3] per camera of the policy, in its order. Raises MemrtError for a camera without a frame."""
        settings, frames = self._settings, observation.frames
        if missing := [camera for camera in settings.cameras if camera not in frames]:
            raise MemrtError(
                "low-level observation",
                expected=f"frames of {', '.join(settings.cameras)}",
                found=f"no frame of {', '.join(missing)}",
                fix="attach the camera, or use a policy that was trained without it",
            )
        return [resize_with_pad(frames[camera].image, settings.image_size) for camera in settings.cameras]

    def prompt(self, observation: Observation, subgoal: str, goal: str) -> NDArray[np.int64]:
        """Token ids of the policy's template."""
        state = np.empty(0, np.int64)
        if self._uses_state:
            state = discretise_state(self._stats.state.normalise(self._layout.state(observation.proprioception)))
        settings = self._settings
        return self._tokens.prompt(
            settings.prompt, goal=goal, subgoal=subgoal, state=state, lower_case=settings.lower_case
        )

    def chunk(self, normalised: NDArray[np.float32], observation: Observation, revision: int) -> ActionChunk:
        """Normalised model output [horizon, at least the policy's dimensions] → actions for t + dt, t + 2 dt, ..."""
        layout = self._layout
        own = self._stats.actions.unnormalise(normalised[:, : layout.dimensions])
        actions = layout.chunk(own, observation.proprioception)
        return ActionChunk(actions, observation.t_ns + self._dt_ns, self._dt_ns, revision, layout.space)

    def continued(
        self, playing: PlayingChunk | None, observation: Observation
    ) -> tuple[Float32Array | None, Guidance | None]:
        """What `denoise` needs to continue `playing`: `prefix_actions` or `guidance`, as the settings ask, or neither.

        The leftover of the playing chunk in the network's space: absolute targets become relative to the state of this
        observation where the policy's actions are, velocities get their pace back, then they are normalised.
        """
        settings, layout, kind = self._settings, self._layout, self._settings.chunking.kind
        if playing is None or kind == "none":
            return None, None
        left = leftover(playing, observation.t_ns, settings.horizon)
        if not len(left):
            return None, None
        own = layout.own(at_pace(left, layout.space, playing.dt_ns / self._dt_ns), observation.proprioception)
        normalised = self._stats.actions.normalise(own).astype(np.float32)
        if kind == "prefix":
            clean = normalised[: min(playing.delay_steps, settings.horizon - 1)]
            # As in training, the dimensions that the robot does not have are zero.
            return np.pad(clean, ((0, 0), (0, self._action_dim - layout.dimensions))), None
        execute = executed(settings.calls, settings.execute, playing.delay_steps)
        weights = soft_mask(playing.delay_steps, execute, settings.horizon)
        return None, Guidance(normalised, weights, settings.chunking.beta)

    def act(
        self, denoise: Denoise, observation: Observation, subgoal: Subgoal, goal: str, noise: NDArray[np.float32]
    ) -> LowLevelResult:
        """One call; `denoise` is the network."""
        tokens = self.prompt(observation, subgoal.text, goal)
        result = denoise(self.images(observation), tokens, noise)
        chunk = self.chunk(result.actions, observation, subgoal.revision)
        return LowLevelResult(chunk, result.vision_ns, result.prefix_ns, result.step_ns)


class LowLevelPolicy:
    """A bundle's action expert. Implements the loop's `LowLevel`; one thread owns it."""

    def __init__(self, bundle: Bundle, threads: int = 1, *, engines: ReadyEngines | None = None) -> None:
        """Open the bundle's `ll` engines with `threads` computing threads; `engines` as for `LowLevelSession.open`.

        Raises MemrtError when the bundle has no low level, its engines must be built first, or its files do not belong
        together.
        """
        session = LowLevelSession.open(bundle, threads, engines=engines)
        self._use(bundle.policy.low_level, session, bundle.folder("ll"))

    @classmethod
    def from_folder(cls, settings: LowLevelConfig, folder: Path, threads: int = 1) -> LowLevelPolicy:
        """The same from an `ll` folder that is not in a bundle yet."""
        policy = cls.__new__(cls)
        policy._use(settings, LowLevelSession.from_folder(folder, threads), folder.joinpath)
        return policy

    def _use(self, settings: LowLevelConfig, session: LowLevelSession, file: Callable[[str], Path]) -> None:
        if settings.chunking.kind == "prefix" and not session.continues_clean:
            session.close()
            raise MemrtError(
                "low-level policy, `low_level.chunking.kind: prefix`",
                expected="a bundle with the engine step_rtc, of weights that were trained to continue a chunk",
                found="a bundle without it",
                fix="export with --rtc, or set `kind: guided` (any weights) or `none`",
            )
        self.session = session
        model = self.session.model
        limit = min(model.max_token_len, settings.max_token_len)
        tokens = PromptTokens.open(file("tokenizer.json"), model.bos_token, limit)
        self.interface = LowLevelInterface(settings, model, tokens, NormStats.load(file("norm_stats.json")))

    def noise(self, seed: int, call_index: int) -> NDArray[np.float32]:
        """The starting noise of one call, float32 [horizon, action_dim]; a pure function of its arguments."""
        return chunk_noise(seed, call_index, self.session.model.horizon, self.session.model.action_dim)

    def act(
        self,
        observation: Observation,
        subgoal: Subgoal,
        goal: str,
        noise: NDArray[np.float32],
        *,
        playing: PlayingChunk | None = None,
    ) -> LowLevelResult:
        """The chunk that follows `subgoal` from `observation` and continues `playing` where the settings say so.

        The same arguments give the same chunk. Raises MemrtError when a camera of the policy has no frame.
        """
        prefix_actions, guidance = self.interface.continued(playing, observation)
        denoise = partial(self.session.denoise, prefix_actions=prefix_actions, guidance=guidance)
        return self.interface.act(denoise, observation, subgoal, goal, noise)

    def close(self) -> None:
        """Release the engines."""
        self.session.close()
