"""The high-level policy: memory asks, the VLM answers, on board or elsewhere, and memory takes the answer in.

Of the episode it holds what was computed already, vision features and K/V rows, and the frames that a keyframe memory's
votes name. A call that is cancelled changes nothing of the memory or of those frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from memrt.runtime.bundle import Bundle
from memrt.runtime.config import PolicyConfig
from memrt.runtime.memory import HighLevelRequest, MemoryState, MemoryUpdate, begin_call, build_memory
from memrt.runtime.memory.sampling import Sampling
from memrt.runtime.memory.state import forget_oldest
from memrt.runtime.policy.cancellation import Cancel
from memrt.runtime.policy.frame_features import Picture
from memrt.runtime.policy.keyframe_images import KeyframeImages, current_image
from memrt.runtime.policy.remote.vlm import RemoteVlm
from memrt.runtime.policy.vlm import AnsweredBy, Reply, Vlm
from memrt.runtime.policy.vlm_session import PromptTooLongError, VlmSession
from memrt.runtime.ready_engines import ReadyEngines
from memrt.runtime.types import Observation


@dataclass(frozen=True, slots=True)
class HighLevelResult:
    """One call's outcome. `held`: `subgoal` is still the last one (`MemoryUpdate`). Times are durations.

    `request` is what the VLM was asked, `reply` its words: with both, a call can be repeated and compared. Where it is
    also served elsewhere, `answered_by` says whose words they are and `missed` why they are not the remote's; what a
    server does not tell is None. `counts` are the things that a reader of the run should know of, by name; zeros are
    left out.
    """

    state: MemoryState
    subgoal: str
    held: bool
    request: HighLevelRequest
    reply: str
    prefill_ns: int | None
    decode_ns: int | None
    vision_ns: int | None
    new_tokens: int | None
    reused_tokens: int | None
    answered_by: AnsweredBy = ""
    missed: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


class HighLevelPolicy:
    """A bundle's VLM behind its memory. Implements the loop's `HighLevel`; one thread owns it."""

    def __init__(self, bundle: Bundle, threads: int = 1, *, engines: ReadyEngines | None = None) -> None:
        """Open the bundle's `hl` engines with `threads` computing threads; `engines` as for `VlmSession.open`.

        Where the policy's VLM is served elsewhere, they answer in its place. Raises MemrtError when the bundle has no
        high level, its engines must be built first, or its files do not belong together; and as `RemoteVlm.open` does.
        """
        settings = bundle.policy.high_level
        session: Vlm | None = None
        if settings.remote is None or settings.vlm_on_board:
            session = VlmSession.open(bundle, threads, engines=engines)
        vlm = session if settings.remote is None else RemoteVlm.open(bundle.policy, settings.remote, session)
        assert vlm is not None, "a policy without a remote VLM has one on board"
        self._use(bundle.policy, vlm)

    @classmethod
    def of(cls, policy: PolicyConfig, vlm: Vlm) -> HighLevelPolicy:
        """The same from a VLM that is open already."""
        self = cls.__new__(cls)
        self._use(policy, vlm)
        return self

    @classmethod
    def from_folder(cls, policy: PolicyConfig, folder: Path, threads: int = 1) -> HighLevelPolicy:
        """The same from an `hl` folder that is not in a bundle yet."""
        return cls.of(policy, VlmSession.from_folder(folder, threads))

    def _use(self, policy: PolicyConfig, session: Vlm) -> None:
        self._settings, self._on_new_goal = policy.high_level, policy.memory.on_new_goal
        self.memory = build_memory(policy.memory)
        self._session = session
        keyframes = policy.memory.keyframes
        self._sampling = Sampling.of(keyframes) if keyframes is not None else None
        self._images = KeyframeImages(keyframes, self._settings.frame_size, session) if keyframes is not None else None

    def initial(self) -> MemoryState:
        """The memory at the start of an episode; what an earlier episode left in the K/V cache is forgotten.

        An episode's bits then depend on nothing that ran before. Vision features come back bit for bit and are kept,
        but not those of a keyframe memory: a frame that comes back as JPEG has other pixels than at first.
        """
        self._session.forget_prefix()
        if self._images is not None:
            self._session.forget()
            self._images.clear()
        return self.memory.initial()

    def next_call_ns(self, state: MemoryState, t_ns: int) -> int:
        """The first time at or after `t_ns` that lies on the memory's sampling grid, where it has one."""
        if self._sampling is None or state.start_ns is None:
            return t_ns
        return self._sampling.next_call_ns(state.start_ns, t_ns)

    def looks_at_ns(self, state: MemoryState, t_ns: int) -> tuple[int, ...]:
        """The times of the recent frames that a call with an observation of `t_ns` asks for; none for text memories."""
        if self._sampling is None:
            return ()
        start_ns = t_ns if state.start_ns is None else state.start_ns
        return tuple(self._sampling.t_ns(start_ns, tick) for tick in self._sampling.recent_ticks(start_ns, t_ns))

    def call(
        self, goal: str, observation: Observation, state: MemoryState, *, cancelled: Cancel | None = None
    ) -> HighLevelResult:
        """The next subgoal and memory, from the goal, what the cameras see or saw lately, and the last memory.

        Raises Cancelled when `cancelled` says so before the answer is complete, Unanswered when nobody answers in time,
        MemrtError when a camera is missing.
        """
        state = begin_call(self.memory, state, goal, self._on_new_goal)
        if self._images is None:
            return self._call_with_current_image(goal, observation, state, cancelled)
        try:
            return self._call_with_keyframes(self._images, goal, observation, state, cancelled)
        finally:
            self._images.release()

    def read_ahead(
        self,
        goal: str,
        observation: Observation,
        state: MemoryState,
        moment_ns: int,
        *,
        cancelled: Cancel | None = None,
    ) -> None:
        """Read what is known of the coming call at `moment_ns`: its keyframes, and its recent frames so far.

        Nothing is changed but what is computed already, frame features and K/V rows. Only for a memory that looks at
        frames over time, in an episode that has begun. Raises as `call` does.
        """
        start_ns = state.start_ns
        if self._images is None or start_ns is None or state.goal != goal:
            return
        state = replace(state, votes=state.votes.only(self._images.store))
        try:
            here, to_come = self._images.look_ahead(observation, start_ns, moment_ns)
            request = self.memory.request(state, goal, (*here, *to_come))
            known = [self._images.picture(tick) for tick in (*request.keyframes, *here)]
            self._session.read_ahead(request.system, request.user, known, cancelled=cancelled)
        finally:
            self._images.release()

    def _call_with_current_image(
        self, goal: str, observation: Observation, state: MemoryState, cancelled: Cancel | None
    ) -> HighLevelResult:
        """A list of subgoals may outgrow the context in an episode without end: then the oldest are left out."""
        image, left_out = current_image(observation, self._settings.camera), 0
        while True:
            request = self.memory.request(state, goal)
            try:
                reply = self._ask(request, [image], cancelled)
                break
            except PromptTooLongError:
                state, left_out = forget_oldest(state), left_out + 1
                if self.memory.request(state, goal) == request:
                    raise
        result = _result(request, reply, self.memory.update(state, reply.text, goal))
        return replace(result, counts={**result.counts, "subgoals left out": left_out}) if left_out else result

    def _call_with_keyframes(
        self,
        images: KeyframeImages,
        goal: str,
        observation: Observation,
        state: MemoryState,
        cancelled: Cancel | None,
    ) -> HighLevelResult:
        before, start_ns = state, observation.t_ns if state.start_ns is None else state.start_ns
        state = replace(state, start_ns=start_ns, votes=state.votes.only(images.store))
        recent = images.look(observation, start_ns)
        request = self.memory.request(state, goal, recent)
        pictures = [images.picture(tick) for tick in (*request.keyframes, *request.recent)]
        reply = self._ask(request, pictures, cancelled)
        update = self.memory.update(state, reply.text, goal, recent)
        votes = images.follow(update.state.votes)
        result = _result(request, reply, replace(update, state=replace(update.state, votes=votes)))
        counts = {
            "keyframes given up": votes.thinned - before.votes.thinned,
            "recent frames missing": len(self.looks_at_ns(state, observation.t_ns)) - len(recent),
        }
        return replace(result, counts={**result.counts, **{name: count for name, count in counts.items() if count}})

    def _ask(self, request: HighLevelRequest, images: Sequence[Picture], cancelled: Cancel | None) -> Reply:
        budget = self._settings.max_new_tokens
        return self._session.generate(request.system, request.user, images, budget, cancelled=cancelled)

    @property
    def remote_down(self) -> str:
        """Why a VLM that is served elsewhere could not be reached when it was opened, "" when it was."""
        return self._session.down if isinstance(self._session, RemoteVlm) else ""

    @property
    def held_bytes(self) -> dict[str, int]:
        """Host memory of what is kept between calls, by kind: bounded, whatever the episode's length."""
        keyframes = {} if self._images is None else {"keyframes": self._images.store.nbytes}
        return self._session.held_bytes | keyframes

    def close(self) -> None:
        """Release the engines."""
        self._session.close()


def _result(request: HighLevelRequest, reply: Reply, update: MemoryUpdate) -> HighLevelResult:
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
        answered_by=reply.answered_by,
        missed=reply.missed,
        counts=reply.counts,
    )
