"""Recorded episodes as a policy would have lived them: its own calls, each with what the ones before left behind.

The runtime's memory is carried from call to call and given the labelled reply each time. So what a call is shown - the
history, the memories, what was committed, the keyframes - is what the runtime shows after those replies, whatever the
policy's kind; nothing about it is written here a second time.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Protocol

from memrt.runtime.config import MemoryConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory import HighLevelRequest, build_memory
from memrt.runtime.memory.keyframe_reply import KeyframeReply, format_keyframe_reply
from memrt.runtime.memory.parser import Reply, format_reply
from memrt.runtime.memory.sampling import Sampling
from memrt.train.labels import Style, label, spatial_memories
from memrt.train.labels.keyframes import EpisodeKeyframes

CALL_EVERY = 16  # control steps from one call to the next (report, section 4.2)
RECORDED_HZ = 20.0  # control rate of the recorded episodes

Sample = Mapping[str, Any]  # a line of a data set's `high_level/samples.jsonl`


class MemoryLabels(Protocol):
    """Who words the memories: one text for each of an episode's `calls`, which are numbers of its samples in order."""

    def action(self, style: Style, episode: Sequence[Sample], calls: Sequence[int]) -> list[str]:
        """The action memories m_t."""
        ...

    def spatial(self, style: Style, episode: Sequence[Sample], calls: Sequence[int]) -> list[str]:
        """The spatial memories s_t."""
        ...


class RuleLabels:
    """The memories written by rule: deterministic, without any model."""

    def action(self, style: Style, episode: Sequence[Sample], calls: Sequence[int]) -> list[str]:
        """See `train/labels/action.py`."""
        chosen = [episode[call] for call in calls]
        return [label(str(s["goal"]), s[f"history_{style}"], style, str(s[f"subgoal_{style}"])) for s in chosen]

    def spatial(self, style: Style, episode: Sequence[Sample], calls: Sequence[int]) -> list[str]:
        """See `train/labels/spatial.py`; every recorded description is read, also those between the calls."""
        scenes = [str(sample["scene"]) for sample in episode]
        after = spatial_memories(str(episode[0]["goal"]), scenes, style)
        return [after[call] for call in calls]


@dataclass(frozen=True, slots=True)
class Turn:
    """One call: what the VLM is asked, what it should answer, and whose images it sees.

    `sample` is the call's own number among the samples; `images` are the numbers of those whose front frames stand for
    the `<image>`s of `request.user`, in order.
    """

    sample: int
    images: tuple[int, ...]
    request: HighLevelRequest
    reply: str


def turns(
    config: MemoryConfig, samples: Sequence[Sample], labels: MemoryLabels | None = None, phases: Sequence[int] = (0,)
) -> Iterator[Turn]:
    """The calls of all episodes in `samples`, episode by episode.

    Calls come every `CALL_EVERY` control steps. Those of an episode begin at its first step, as at rollout; with other
    `phases` (control steps, 0 to CALL_EVERY - 1) again at each of them, as if the policy had been started a little
    later. Raises MemrtError for a policy without high level and for frames that were not recorded.
    """
    first = 0
    for _, group in groupby(samples, key=lambda sample: (sample.get("task"), sample["episode"])):
        episode = list(group)
        for turn in _episode_turns(config, episode, labels or RuleLabels(), phases):
            yield replace(turn, sample=turn.sample + first, images=tuple(first + image for image in turn.images))
        first += len(episode)


def _episode_turns(
    config: MemoryConfig, episode: Sequence[Sample], labels: MemoryLabels, phases: Sequence[int]
) -> Iterator[Turn]:
    memory, goal = build_memory(config), str(episode[0]["goal"])
    number = {int(sample["step"]): index for index, sample in enumerate(episode)}
    moments = EpisodeKeyframes(episode) if config.keyframes else None
    for phase in phases:
        state = memory.initial()
        steps = [step for step in sorted(number) if step % CALL_EVERY == phase]
        texts = _texts(config, episode, [number[step] for step in steps], labels)
        for step, text in zip(steps, texts, strict=True):
            recent = _recent(config, step, number)
            request = memory.request(state, goal, recent)
            reply = text if moments is None else format_keyframe_reply(KeyframeReply(text, moments.positions(recent)))
            state = memory.update(state, reply, goal, recent).state
            images = (*request.keyframes, *request.recent) or (step,)
            yield Turn(number[step], tuple(number[image] for image in images), request, reply)


def _texts(config: MemoryConfig, episode: Sequence[Sample], calls: Sequence[int], labels: MemoryLabels) -> list[str]:
    """The reply to each call; for keyframes the subgoal alone, since positions depend on the frames shown."""
    style = config.subgoal_style
    subgoals = [str(episode[call][f"subgoal_{style}"]) for call in calls]
    if config.kind != "language":
        return subgoals
    action = labels.action(style, episode, calls)
    spatial = labels.spatial(style, episode, calls) if config.spatial else [None] * len(calls)
    return [format_reply(Reply(*reply)) for reply in zip(subgoals, action, spatial, strict=True)]


def _recent(config: MemoryConfig, step: int, recorded: Container[int]) -> tuple[int, ...]:
    """The raw ticks that a call shows as recent frames, which are control steps here; none without keyframes."""
    if config.keyframes is None:
        return ()
    if config.keyframes.raw_rate_hz != RECORDED_HZ:
        raise MemrtError(
            "keyframes of recorded episodes",
            expected=f"`raw_rate_hz: {RECORDED_HZ}`, the rate of the recording",
            found=config.keyframes.raw_rate_hz,
            fix="train a policy with this rate",
        )
    ticks = Sampling.of(config.keyframes).settings.recent_ticks(max(0, step - config.keyframes.lag))
    missing = [tick for tick in ticks if tick not in recorded]
    if missing:
        raise MemrtError(
            "keyframes of recorded episodes",
            expected=f"a front frame of each of the control steps {list(ticks)}",
            found=f"none of {missing}",
            fix="record the episodes anew, or choose a stride that the recording has frames for",
        )
    return ticks
