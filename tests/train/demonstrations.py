"""Random demonstrations of every task, from its own state machine and its own words; no physics, no pictures.

A demonstration is what the recorder writes at its calls: some subgoals are too short for any call to see them, cubes
are dropped and picked up again.
"""

import random

from memrt.sim.objects import Cube
from memrt.sim.tasks import make_task
from memrt.sim.tasks.containers import LOWERING_STEPS

HELD = ("drop", "place", "carry", "put")  # skills that begin with something in the hand


class Demonstrator:
    """Moves a task on without physics: `advance` completes its running step, `drop` loses what is held."""

    def __init__(self, name, seed, difficulty=None):
        self.task = make_task(name, seed, difficulty)
        self.random = random.Random(seed)
        self.pixels = {}
        if name == "BinFill":
            self._choose()

    @property
    def finished(self):
        return self.task.outcome.ended

    def subgoals(self):
        """The running step in both styles; an object has its pixel until it is moved."""
        step = self.task.step
        place = step.to or step.thing
        self.pixels.setdefault(place, (self.random.randrange(256), self.random.randrange(256)))
        at = " <{}, {}>".format(*self.pixels[place])
        return self.task.words(step).format(at=""), self.task.words(step).format(at=at)

    def advance(self):
        task, step = self.task, self.task.step
        self.pixels.pop(step.thing if step.skill == "pick" else "", None)
        {
            "BinFill": self._bin_fill,
            "PickXtimes": self._pick_x_times,
            "SwingXtimes": self._swing_x_times,
            "StopCube": self._stop_cube,
            "ButtonUnmask": self._containers,
            "ButtonUnmaskSwap": self._containers,
            "PickHighlight": self._pick_highlight,
        }[task.name](task, step)

    def drop(self):
        """The same pick is due again; visits and what was put back stay."""
        task = self.task
        if task.step.skill not in HELD:
            return
        if task.name == "PickXtimes":
            task.picks -= 1
        elif task.name == "BinFill":
            task.carried = ""
        elif task.name == "PickHighlight":
            task.current = ""
        elif task.name == "SwingXtimes":
            task.holding = False

    def _choose(self):
        due = [cube.name for cube in self.task.layout.of(Cube) if cube.colour == self.task.due]
        self.task._next = self.random.choice(due) if due else ""

    def _pick_x_times(self, task, step):
        task.picks += step.skill == "pick"
        task.places += step.skill == "place"
        if step.skill == "press":
            task.succeed("")

    def _bin_fill(self, task, step):
        if step.skill == "press":
            task.succeed("")
        elif step.skill == "pick":
            task.carried = step.thing
        else:
            task.in_bin[task.layout[step.thing].colour] += 1
            task.carried = ""
            self._choose()

    def _swing_x_times(self, task, step):
        task.holding = step.skill in ("pick", "carry")
        task.visits += step.skill == "carry"
        if step.skill == "press":
            task.succeed("")

    def _stop_cube(self, task, step):
        if step.skill == "press":
            task.succeed("")
        elif step.skill == "hover":
            task.ready = True
        else:
            while task.visits < step.ordinal and not task.pressing:
                task.control_steps += 1

    def _containers(self, task, step):
        if step.skill == "press":
            task.pressed.append(step.thing)
            task._lowering._steps = dict.fromkeys(task._lowering._steps, LOWERING_STEPS)
            if task.name == "ButtonUnmaskSwap":
                task._swapping._finished = len(task.swaps)
        task.picked += step.skill == "pick"
        task.put_down += step.skill == "put"
        if task.picked == len(task.named):
            task.succeed("")

    def _pick_highlight(self, task, step):
        if step.skill == "press":
            task.pressed_at = 0
            if step.ordinal == 2:
                task.succeed("")
        elif step.skill == "pick":
            task.current = step.thing
        else:
            task.put_back.append(task.current)
            task.current = ""


def faultless(name, seed, difficulty=None):
    """The goal and the grounded subgoals of an episode in which nothing goes wrong."""
    demonstrator = Demonstrator(name, seed, difficulty)
    subgoals = []
    while not demonstrator.finished:
        subgoals.append(demonstrator.subgoals()[1])
        demonstrator.advance()
    return demonstrator.task.goal, subgoals


def recorded(name, seed, difficulty=None, drop_share=0.2, longest=3):
    """The calls of an episode as `sim/record.py` labels them, without scenes: 0 to `longest` to a subgoal."""
    demonstrator = Demonstrator(name, seed, difficulty)
    draw = random.Random(f"{name}/{seed}")
    texts, calls, previous = {}, [], -1
    unseen = True
    while not demonstrator.finished:
        count = draw.randint(int(unseen), longest)  # two subgoals together last longer than from one call to the next
        unseen = count == 0
        for _ in range(count):
            segment = demonstrator.task.segment
            texts[segment] = demonstrator.subgoals()
            history = [texts.get(earlier, ("", "")) for earlier in range(segment)]
            calls.append(
                {
                    "goal": demonstrator.task.goal,
                    "segment": segment,
                    "previous_segment": previous,
                    "subgoal_simple": texts[segment][0],
                    "subgoal_grounded": texts[segment][1],
                    "history_simple": [simple for simple, _ in history],
                    "history_grounded": [grounded for _, grounded in history],
                }
            )
            previous = segment
        if draw.random() < drop_share:
            demonstrator.drop()
        else:
            demonstrator.advance()
    return calls
