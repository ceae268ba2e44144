"""What every memory task is made of: a seeded layout, a goal, a running step, an outcome decided from physics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from memrt.sim.objects import COLOURS, Button, Container, Cube, SceneLayout
from memrt.sim.scene import Scene

SubgoalStyle = Literal["simple", "grounded"]
Difficulty = Literal["easy", "medium", "hard"]
Skill = Literal["pick", "place", "drop", "carry", "put", "hover", "wait", "press"]

DIFFICULTIES: tuple[Difficulty, ...] = ("easy", "medium", "hard")
EPISODE_CAP = 1300  # control steps, RoboMME
ORDINALS = ("first", "second", "third", "fourth", "fifth")
NUMBERS = ("one", "two", "three", "four", "five")

LIFTED = 0.05  # height above its rest at which a held object counts as picked up [m]
RESTING = 0.006  # an object this close to its resting height lies on the table [m]
CLEAR = 0.09  # the hand's height at which a place is over and the next step begins [m]
MOVED = 0.012  # an object displaced by more than this is pointed at anew [m]
RELEASED = 0.003  # a button's travel below which it can be pressed again [m]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an episode stands. `reason` says why it ended."""

    status: Literal["running", "success", "failure"] = "running"
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing that follows can change the outcome."""
        return self.status != "running"


RUNNING = Outcome()


@dataclass(frozen=True, slots=True)
class Step:
    """What has to be done next: the oracle's subgoal as data, for the expert and for wording.

    pick `thing` up · place it on `to` · drop it into `to` · carry it over `to` · put it down here or over `to` ·
    hover over `thing` · wait over it · press it. `ordinal` counts from 1 whatever the task counts.
    """

    skill: Skill
    thing: str
    ordinal: int = 1
    to: str = ""


class Task(ABC):
    """One episode. `update` runs once per control step; nothing else changes a task's state.

    A task says how it is generated, what is due (`step`), in which words (`words`), and watches the physics (`watch`).
    It may move objects itself (`Scene.put`), in `begin` and in `watch` only.
    """

    name: ClassVar[str]
    timed: ClassVar[bool] = False  # whether a call late is too late
    repetitions: int  # how often the counted action is due (N)
    outcome: Outcome = RUNNING
    control_steps: int = 0

    def __init__(self, seed: int, difficulty: Difficulty | None = None) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        self.difficulty: Difficulty = difficulty or DIFFICULTIES[int(rng.integers(3))]
        self.layout: SceneLayout = self.generate(rng)
        self._pointed_step: Step | None = None
        self._pointed_at = np.zeros(3)
        self._down: set[str] = set()

    @abstractmethod
    def generate(self, rng: np.random.Generator) -> SceneLayout:
        """Draw what varies between episodes, `repetitions` included; returns where the objects stand at first."""

    @property
    @abstractmethod
    def goal(self) -> str:
        """The instruction given to the policy, in the benchmark's phrasing."""

    @property
    @abstractmethod
    def step(self) -> Step:
        """What is due now."""

    @property
    @abstractmethod
    def segment(self) -> int:
        """Index of the running step among the steps of an episode in which nothing goes wrong."""

    @property
    @abstractmethod
    def segments(self) -> int:
        """How many steps such an episode has."""

    @abstractmethod
    def words(self, step: Step) -> str:
        """A step as subgoal, with `{at}` where the grounded wording has its ` <row, col>`."""

    @abstractmethod
    def watch(self, scene: Scene) -> None:
        """Advance the state by what physics shows after one control step; end the episode with `succeed` or `fail`."""

    def begin(self, scene: Scene) -> None:
        """Prepare the scene, before the first control step; most tasks have nothing to prepare."""
        return

    def update(self, scene: Scene) -> None:
        """Look at the physics after one control step."""
        if self.outcome.ended:
            return
        self.control_steps += 1
        self.watch(scene)
        if self.control_steps >= EPISODE_CAP:
            self.fail(f"not finished within {EPISODE_CAP} control steps")
        self._point(scene)

    @property
    def progress(self) -> float:
        """The share of the steps that are done, 0 to 1; 1 for a success only. A dropped object takes some away."""
        return 1.0 if self.outcome.status == "success" else min(self.segment, self.segments - 1) / self.segments

    def subgoal(self, scene: Scene, style: SubgoalStyle) -> str:
        """The running step in words; grounded wording carries `<row, col>` of the front image."""
        self._point(scene)
        row, col = scene.pixel(self._pointed_at)
        return self.words(self.step).format(at=f" <{row}, {col}>" if style == "grounded" else "")

    def describe(self, scene: Scene) -> str:
        """The objects in sight with their front-image pixels, and the gripper's state; a highlight counts while shown.

        Grounding pre-training and the labels of spatial memories read it.
        """
        cubes = sorted(self.layout.of(Cube), key=lambda cube: list(COLOURS).index(cube.colour))
        others = [thing for thing in self.layout.objects if not isinstance(thing, Cube)]
        seen = [
            (thing.words, scene.pixel(scene.position(thing.name)))
            for thing in (*cubes, *others)
            if self.in_sight(scene, thing.name)
        ]
        order = list(dict.fromkeys(words for words, _ in seen))
        # Objects that look alike come in the picture's own order, row by row: nothing else tells them apart.
        parts = [_pointed(*each) for each in sorted(seen, key=lambda each: (order.index(each[0]), each[1]))]
        opening = float(scene.data.qpos[scene.finger_index].sum())
        held = self.held(scene)
        state = f"holding the {self.layout[held].words}" if held else ("open" if opening > 0.06 else "closed")
        parts.append(_pointed("gripper", scene.pixel(scene.tcp_position())) + f" {state}")
        return "; ".join(parts)

    def in_sight(self, scene: Scene, name: str) -> bool:
        """Whether an object can be seen in the front image when the arm is not in the way."""
        return scene.shown(name)

    def succeed(self, reason: str) -> None:
        """End the episode, unless it has ended."""
        if not self.outcome.ended:
            self.outcome = Outcome("success", reason)

    def fail(self, reason: str) -> None:
        """End the episode, unless it has ended."""
        if not self.outcome.ended:
            self.outcome = Outcome("failure", reason)

    def held(self, scene: Scene) -> str:
        """The cube or container between both finger pads, or ""."""
        movable = (thing.name for thing in self.layout.objects if isinstance(thing, Cube | Container))
        return next((name for name in movable if scene.pads_touching(name) == 2), "")

    def lifted(self, scene: Scene, name: str) -> bool:
        """Whether an object is held clear of the table."""
        return scene.position(name)[2] >= self.layout[name].height + LIFTED and scene.pads_touching(name) == 2

    def left_alone(self, scene: Scene, name: str) -> bool:
        """Whether an object rests on the table, no finger touches it and the hand has gone up."""
        resting = abs(scene.position(name)[2] - self.layout[name].height) < RESTING
        return resting and scene.pads_touching(name) == 0 and scene.tcp_position()[2] >= CLEAR

    def just_pressed(self, scene: Scene) -> list[str]:
        """The buttons that went down since the last control step; call it once per control step."""
        pressed = []
        for button in self.layout.of(Button):
            if button.name not in self._down and scene.pressed(button.name):
                self._down.add(button.name)
                pressed.append(button.name)
            elif scene.data.joint(button.name).qpos[0] < RELEASED:
                self._down.discard(button.name)
        return pressed

    def _point(self, scene: Scene) -> None:
        """Fix the pixels of a step when it begins; an object that was pushed aside is pointed at anew."""
        step = self.step
        where = scene.position(step.to or step.thing)
        pushed = (
            step.skill == "pick"
            and where[2] < self.layout[step.thing].height + RESTING
            and np.hypot(*(where - self._pointed_at)[:2]) > MOVED
        )
        if step != self._pointed_step or pushed:
            self._pointed_step, self._pointed_at = step, where


def _pointed(name: str, pixel: tuple[int, int]) -> str:
    return f"{name} <{pixel[0]}, {pixel[1]}>"
