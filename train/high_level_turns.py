"""Recorded calls as a policy has them: what it is shown of the past, and what it is to answer.

Every policy sees the same calls in the same order; only what it is shown of the past and asked to keep differs. So each
draw takes the same random numbers whatever the policy is.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memrt.runtime.config import MemoryConfig, load_policy
from memrt.runtime.memory.keyframe_reply import KeyframeReply, format_keyframe_reply, parse_keyframe_reply
from memrt.runtime.policy.chat import IMAGE_PLACEHOLDER
from memrt.train.high_level_calls import VISIT, Draw, call_draw
from memrt.train.high_level_data import EVERY, Calls, ExampleSource, mixture
from memrt.train.high_level_recall import COORDINATE, as_remembered, pointed_at, shown_in
from memrt.train.high_level_text import Example, Pixel
from memrt.train.labels.scene_text import read_scene
from memrt.train.labels.turns import training_turn
from memrt.train.retelling import draw_telling
from memrt.train.retelling.words import SPATIAL, before_the_next_step

RETOLD_SHARE = 0.75  # calls shown with other counts than the recorded ones
MISSED_SHARE = 0.25  # visits of a cube shown as if no call had noticed yet that the one before was over
SETTLED_SHARE = 0.2  # calls shown with the memory already up to date: HL calls need not meet the transitions
JITTER_PX = 2  # of coordinates inside a shown memory, so that the policy does not lean on exact ones
# Of the draws of words without a picture, where other tasks have 1: what is due in these follows from up to six numbers
# and three colours, or from a place in a list. A base that knew the others' by heart still told 9 % of BinFill's wrong.
TOLD_OFTEN = {"BinFill": 4.0, "PickHighlight": 2.0}
BACK_ON_TARGET = "Cube on the target"  # train/labels/spatial_layouts.py
STEP_IS_OVER, STEP_GOES_ON = "(The step is over.) ", "(The step goes on.) "


def read_calls(policies: Iterable[str], folders: Sequence[Path]) -> Calls:
    """Recorded calls with all that the chats of `policies` need."""
    return Calls.load(*folders, memories=[load_policy(policy).memory for policy in policies])


@dataclass(frozen=True, slots=True)
class TurnWriter:
    """Writes the chats of one policy about recorded calls."""

    settings: MemoryConfig
    calls: Calls

    @staticmethod
    def of_policy(policy: str, calls: Calls) -> TurnWriter:
        """`policy` is the name or path of a policy's YAML."""
        return TurnWriter(load_policy(policy).memory, calls)

    def recorded(self, index: int) -> Example:
        """The call as it was recorded."""
        return self._example(index, self.calls.records[index])

    def draw(self, index: int, rng: random.Random) -> Example:
        """The call with counts, memory and coordinates varied."""
        retold, settle = rng.random(), rng.random()
        telling, jitter = random.Random(rng.random()), random.Random(rng.random())
        missed = rng.random()
        record: dict[str, Any] = dict(self.calls.records[index])
        if missed < MISSED_SHARE:
            record |= self._missed(index)
        if retold < RETOLD_SHARE:
            kind = self.settings.kind
            record = draw_telling(record, telling, remembers=kind != "memoryless", past_seen=kind == "keyframes")
        if settle < SETTLED_SHARE:
            seen = {name: [record[name][1]] * 2 for name in SPATIAL if name in record}
            record |= {"previous_segment": record["segment"], **seen}
        return self._example(index, record, jitter)

    def _missed(self, index: int) -> dict[str, Any]:
        """What of a visit's record changes if the end of the visit before was missed; nothing for other steps.

        The recorded calls notice it at once (sim/record.py), and a policy that once did not would never again. Only a
        memory of the side that the cube came from tells, and only until it is back on the target.
        """
        record = self.calls.records[index]
        segment, visit = record["segment"], str(record["subgoal_simple"]).startswith(VISIT)
        if not self.settings.spatial or not visit or record["previous_segment"] != segment:
            return {}
        if str(record["spatial_simple"][1]).startswith(BACK_ON_TARGET):
            return {}
        earlier = index
        while earlier > 0 and self.calls.records[earlier]["segment"] == segment:
            earlier -= 1
        last = self.calls.records[earlier]
        if last["episode"] != record["episode"] or not str(last["subgoal_simple"]).startswith(VISIT):
            return {}
        seen = {name: [last[name][1], record[name][1]] for name in SPATIAL if name in record}
        return {"previous_segment": last["segment"], **seen}

    def can_be_told(self, index: int) -> bool:
        """Whether words can stand for the call's picture: nothing is pointed at, and words hold all that counts.

        Which cubes are highlighted has been seen, not done: only a spatial memory holds it. What spatial memories hold
        of other tasks changes with what is done.
        """
        settings, record = self.settings, self.calls.records[index]
        if settings.kind != "language" or settings.subgoal_style != "simple":
            return False
        seen = record["task"] == "PickHighlight"
        return settings.spatial == seen and (not seen or record["spatial_simple"][0] == record["spatial_simple"][1])

    def draw_told(self, index: int, rng: random.Random) -> Example:
        """As `draw`, with what the picture shows of the step under way said in its place."""
        example = self.draw(index, rng)
        shown = STEP_IS_OVER if example.over else STEP_GOES_ON
        return Example((), example.system, example.user.replace(IMAGE_PLACEHOLDER, shown), example.reply)

    def _example(self, index: int, record: dict[str, Any], jitter: random.Random | None = None) -> Example:
        if self.settings.kind == "keyframes":
            return self._pictures(index, record)
        vary = None if jitter is None else lambda before, after: _jitter(before, after, jitter)
        request, reply = training_turn(self.settings, record, vary)
        reply = as_remembered(request.user, reply)
        if self.settings.kind == "memoryless":
            return Example((index,), request.system, request.user, reply)
        watched, beside = _compared(record)
        sides = _travelling(record) if self.settings.spatial and record.get("task") == "StopCube" else None
        known = (watched, beside, _over(record), sides, self._shown((index,), reply))
        return Example((index,), request.system, request.user, reply, *known)

    def _pictures(self, index: int, record: dict[str, Any]) -> Example:
        """A chat about keyframes and recent frames, which are those of the same episode's calls."""
        turn, recorded = record["keyframe_turn"], self.calls.records[index]
        images = tuple(index + (step - recorded["step"]) // EVERY for step in turn.images)
        named = parse_keyframe_reply(turn.reply)
        assert named is not None
        subtask = str(record[f"subgoal_{self.settings.subgoal_style}"])
        reply = format_keyframe_reply(KeyframeReply(subtask, named.positions))
        user = turn.request.user.replace(recorded["goal"], record["goal"])
        return Example(images, turn.request.system, user, reply, *_compared(record), shown=self._shown(images, subtask))

    def _shown(self, images: Sequence[int], reply: str) -> tuple[int, Pixel] | None:
        """Which image shows what the subgoal points at, and where, if that looks like others in the newest one."""
        pointed = pointed_at(reply)
        return shown_in([str(self.calls.records[image]["scene"]) for image in images], *pointed) if pointed else None


def _compared(record: Mapping[str, Any]) -> tuple[Pixel | None, Pixel | None]:
    """The pixel of what the step is about that was under way before the call, and of what it has to be seen beside.

    None for a step that names nothing, and for the hand. Who waits for a cube watches it, beside its target.
    """
    step = _followed(record)
    if step.startswith(VISIT):
        return _travelling(record) or (None, None)
    found = COORDINATE.search(step)
    return (int(found[1]), int(found[2])) if found else None, None


def _followed(record: Mapping[str, Any]) -> str:
    """The grounded subgoal that was under way before the call."""
    segment, before = int(record["segment"]), int(record["previous_segment"])
    history = record.get("history_grounded", ())
    return str(history[before] if 0 <= before < min(segment, len(history)) else record.get("subgoal_grounded", ""))


def _over(record: Mapping[str, Any]) -> bool | None:
    """Whether the step is over that was under way before the call; None where nothing was."""
    return before_the_next_step(record) if int(record["previous_segment"]) >= 0 else None


def _travelling(record: Mapping[str, Any]) -> tuple[Pixel, Pixel] | None:
    """StopCube: the pixels of the cube that travels and of the target."""
    scene = read_scene(str(record.get("scene", "")))
    target, cubes = scene.one("target"), scene.cubes()
    return (cubes[0][1], target) if target and cubes else None


def told_source(writers: Sequence[TurnWriter], calls: Calls, indices: Sequence[int]) -> ExampleSource | None:
    """Chats with words for the picture: what to conclude, without looking. None where no policy remembers in words."""
    draws: list[tuple[float, ExampleSource]] = []
    for task, of_task in calls.by_task(indices).items():
        for writer in writers:
            if told := [index for index in of_task if writer.can_be_told(index)]:
                draws.append((TOLD_OFTEN.get(task, 1.0), _told_by(writer, call_draw(calls, told))))
    return mixture(draws) if draws else None


def _told_by(writer: TurnWriter, draw_call: Draw) -> ExampleSource:
    return lambda rng: writer.draw_told(draw_call(rng), rng)


def call_source(policy: str, calls: Calls, indices: list[int]) -> ExampleSource:
    """Draws recorded calls as `policy` has them."""
    writer, draw_call = TurnWriter.of_policy(policy, calls), call_draw(calls, indices)
    return lambda rng: writer.draw(draw_call(rng), rng)


def _jitter(before: str, after: str, rng: random.Random) -> tuple[str, str]:
    """Move each coordinate that `before` mentions by up to JITTER_PX, in both texts alike: a memory is carried over."""
    for coordinate in sorted({match[0] for match in COORDINATE.finditer(before)}):
        row, col = (int(value) + rng.randint(-JITTER_PX, JITTER_PX) for value in coordinate[1:-1].split(", "))
        moved = f"<{min(max(row, 0), 255)}, {min(max(col, 0), 255)}>"
        before, after = before.replace(coordinate, moved), after.replace(coordinate, moved)
    return before, after
