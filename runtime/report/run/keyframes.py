"""A keyframe memory over time: which frames had votes, which of them the VLM is shown, which were given up."""

from __future__ import annotations

from typing import Any

import msgspec

from memrt.runtime.keyframes_config import KeyframesConfig
from memrt.runtime.memory.keyframes import KeyframeVotes
from memrt.runtime.memory.sampling import Sampling
from memrt.runtime.recording.messages import FrameRef, HighLevelRequest
from memrt.runtime.report.run.clip import FrameKey
from memrt.runtime.report.run.document import Keyframe, Keyframes, KeyframeState
from memrt.runtime.report.run.told import Told

MAX_PICTURES = 400  # about 2.5 kB each
MAX_RESERVE = 24  # frames of a state beside those that are shown: the newest


class KeyframeHistory:
    """Reads the votes of a run. `pictures` are the frames whose pixels the page needs, by number."""

    def __init__(self, told: Told) -> None:
        config = (told.about("memory") or {}).get("keyframes")
        self._told = told
        self._sampling = Sampling.of(msgspec.convert(config, KeyframesConfig)) if config else None
        self._seen: dict[int, FrameKey] = {}  # by time
        self._numbers: dict[int, int] = {}  # of the frames that had votes, by tick
        self._frames: list[Keyframe] = []
        self._states: list[KeyframeState] = []
        self._votes: dict[int, int] = {}
        self.pictures: dict[FrameKey, int] = {}
        self.start_ns = 0

    def read(self) -> Keyframes | None:
        """None for another memory, or a recording that does not say how its ticks are counted."""
        if self._sampling is None:
            return None
        camera = self._sampling.config.views[-1]  # MemER's views end with the one from outside
        for request, answer, memory in self._told.calls:
            self._look(request, camera)
            if memory is not None and isinstance(memory.state, dict):
                self._take(request, memory.state, self._told.seconds(self._told.answered_ns(request, answer)))
        return Keyframes(frames=self._frames, states=self._states)

    def _look(self, request: HighLevelRequest, camera: str) -> None:
        """Which frame showed which moment: what was asked for, else what the observation itself held."""
        seen = request.observation
        named = [ref for ref in seen.frames if ref.camera == camera]
        for ref in named:
            self._seen.setdefault(seen.t_ns, (ref.camera, ref.index))
        for look in seen.history or ():
            if look.camera == camera and isinstance(look.frame, FrameRef):
                self._seen[look.t_ns] = (look.frame.camera, look.frame.index)

    def _take(self, request: HighLevelRequest, state: dict[str, Any], t_s: float) -> None:
        assert self._sampling is not None
        votes = msgspec.convert(state["votes"], KeyframeVotes)
        self.start_ns = int(state["start_ns"] or 0)
        counts = {tick: n for c in votes.clusters for tick, n in zip(c.ticks, c.votes, strict=True)}
        voted = [tick for tick, count in counts.items() if count > self._votes.get(tick, 0)]
        for tick in voted:
            self._number(tick, t_s)
        for tick in self._votes.keys() - counts.keys():
            number = self._numbers[tick]
            self._frames[number] = msgspec.structs.replace(self._frames[number], dropped_s=t_s)
        self._votes = counts
        shown = votes.clusters[-self._sampling.settings.keyframes :]
        medians = [c.median(self._sampling.settings.median) for c in shown]
        reserve = [tick for tick in counts if tick not in medians][-MAX_RESERVE:]
        recent = self._sampling.recent_ticks(self.start_ns, request.observation.t_ns)
        self._states.append(
            KeyframeState(
                start_s=t_s,
                events=[
                    (self._numbers[tick], sum(c.votes) + c.forgotten) for tick, c in zip(medians, shown, strict=True)
                ],
                reserve=[(self._numbers[tick], counts[tick]) for tick in reserve],
                voted=[self._numbers[tick] for tick in voted],
                recent=[(self._seconds(tick), self._picture(tick)) for tick in recent],
            )
        )

    def _number(self, tick: int, t_s: float) -> None:
        """Note a frame's first vote; one that was given up and is voted for again begins anew."""
        number = self._numbers.get(tick)
        if number is None or self._frames[number].dropped_s is not None:
            self._numbers[tick] = len(self._frames)
            picture = self._picture(tick)
            self._frames.append(Keyframe(t_s=self._seconds(tick), voted_s=t_s, dropped_s=None, image=picture))

    def _seconds(self, tick: int) -> float:
        assert self._sampling is not None
        return self._told.seconds(self._sampling.t_ns(self.start_ns, tick))

    def _picture(self, tick: int) -> int | None:
        assert self._sampling is not None
        key = self._seen.get(self._sampling.t_ns(self.start_ns, tick))
        if key is None or (key not in self.pictures and len(self.pictures) == MAX_PICTURES):
            return None
        return self.pictures.setdefault(key, len(self.pictures))
