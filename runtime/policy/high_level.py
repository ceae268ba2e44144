"""The high-level policy: memory asks, the VLM answers, memory takes the answer in.

Holds no state of the episode but what was computed already: vision features and K/V rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from memrt.runtime.bundle import Bundle
from memrt.runtime.config import PolicyConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory import HighLevelRequest, MemoryState, build_memory
from memrt.runtime.policy.vlm_session import VlmSession
from memrt.runtime.ready_engines import ReadyEngines
from memrt.runtime.types import Observation


@dataclass(frozen=True, slots=True)
class HighLevelResult:
    """One call's outcome. `held`: the reply named no subgoal, so `subgoal` is the last one. Times are durations.

    `request` is what the VLM was asked, `reply` its words: with both, a call can be repeated and compared.
    """

    state: MemoryState
    subgoal: str
    held: bool
    request: HighLevelRequest
    reply: str
    prefill_ns: int
    decode_ns: int
    vision_ns: int
    new_tokens: int
    reused_tokens: int


class HighLevelPolicy:
    """A bundle's VLM behind its memory. Implements the loop's `HighLevel`; one thread owns it."""

    def __init__(self, bundle: Bundle, threads: int = 1, *, engines: ReadyEngines | None = None) -> None:
        """Open the bundle's `hl` engines with `threads` computing threads; `engines` as for `VlmSession.open`.

        Raises MemrtError when the bundle has no high level, its engines must be built first, or its files do not belong
        together.
        """
        self._use(bundle.policy, VlmSession.open(bundle, threads, engines=engines))

    @classmethod
    def from_folder(cls, policy: PolicyConfig, folder: Path, threads: int = 1) -> HighLevelPolicy:
        """The same from an `hl` folder that is not in a bundle yet."""
        self = cls.__new__(cls)
        self._use(policy, VlmSession.from_folder(folder, threads))
        return self

    def _use(self, policy: PolicyConfig, session: VlmSession) -> None:
        self._settings = policy.high_level
        self.memory = build_memory(policy.memory)
        self._session = session

    def initial(self) -> MemoryState:
        """The memory at the start of an episode; what an earlier episode left in the K/V cache is forgotten.

        An episode's bits then depend on nothing that ran before. Vision features are kept: they come back bit for bit.
        """
        self._session.forget_prefix()
        return self.memory.initial()

    def call(self, goal: str, observation: Observation, state: MemoryState) -> HighLevelResult:
        """The next subgoal and memory, from the goal, the newest frame of the policy's camera and the last memory."""
        frame = observation.frames.get(self._settings.camera)
        if frame is None:
            raise MemrtError(
                "high-level observation",
                expected=f"a frame of camera `{self._settings.camera}`",
                found=", ".join(sorted(observation.frames)) or "no frames",
                fix="attach the camera, or name another in the policy's high_level.camera",
            )
        request = self.memory.request(state, goal)
        reply = self._session.generate(request.system, request.user, [frame.image], self._settings.max_new_tokens)
        update = self.memory.update(state, reply.text, goal)
        return HighLevelResult(
            state=update.state,
            subgoal=update.subgoal,
            held=update.held,
            request=request,
            reply=reply.text,
            prefill_ns=reply.prefill_ns,
            decode_ns=reply.decode_ns,
            vision_ns=reply.vision_ns,
            new_tokens=reply.new_tokens,
            reused_tokens=reply.reused_tokens,
        )

    def close(self) -> None:
        """Release the engines."""
        self._session.close()
