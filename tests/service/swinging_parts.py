"""A service of a kinematic arm and a policy that swings it: everything but engines, link and systemd."""

from __future__ import annotations

import threading
from contextlib import contextmanager

from kinematic import DT_NS, KinematicRobot, SwingHighLevel, SwingLowLevel
from manager import eventually

from memrt.runtime.clock import NS_PER_S, MonotonicClock
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.service.control import Request
from memrt.runtime.service.health import Check
from memrt.runtime.service.notify import Notifier
from memrt.runtime.service.parts import Loaded
from memrt.runtime.service.server import PolicyService

# A busy computer is late for what these tests are not about.
PATIENT = {"camera_stale_ns": 20 * NS_PER_S, "camera_lost_ns": 20 * NS_PER_S, "subgoal_time_to_live_ns": 60 * NS_PER_S}


class Recorded:
    def __init__(self) -> None:
        self.observer, self.looked, self.record = None, 0, None

    def look(self, say) -> None:
        self.looked += 1

    def finish(self, record):
        self.record = record
        return {"messages": self.looked}


class SwingingParts:
    """`sessions` are the robots of all sessions, in their order. `away`: why the robot cannot be reached."""

    robot_name, bundle_path = "swing", "/bundles/swing"

    def __init__(self, **settings) -> None:
        values = {"dt_ns": DT_NS, "horizon": 16, "execute": 8, "every_steps": 16, "cameras": ("front",)}
        self.settings = LoopSettings(**(values | PATIENT | settings))
        self.high_level, self.low_level = SwingHighLevel(), SwingLowLevel()
        self.sessions: list[KinematicRobot] = []
        self.recordings: list[Recorded] = []
        self.goal, self.away, self.camera_works, self.refused = "swing", "", True, None
        self.closed = 0

    def load(self) -> Loaded:
        if self.refused is not None:
            raise self.refused
        return Loaded(
            high_level=self.high_level,
            low_level=self.low_level,
            settings=self.settings,
            goal=self.goal,
            bundle="0" * 64,
            policy="swing",
            device="a test",
            proofs=(Check(what="engine swing", asked="the same", found="the same", met=True),),
        )

    @contextmanager
    def connect(self):
        if self.away:
            raise MemrtError("robot", expected="an answer", found=self.away, fix="switch it on")
        robot = KinematicRobot(MonotonicClock(), swings=10**6)
        robot.camera_works = self.camera_works
        self.sessions.append(robot)
        yield robot
        self.closed += 1

    def goal_of(self, robot) -> str:
        return ""

    def record(self, goal: str) -> Recorded:
        self.recordings.append(Recorded())
        return self.recordings[-1]


class Running:
    """A context manager: the service in a thread of its own, and what it says."""

    def __init__(self, parts: SwingingParts, notifier: Notifier | None = None, hang_s: float = 60.0) -> None:
        self.parts, self.lines = parts, []
        self.service = PolicyService(
            parts, notifier or Notifier(), MonotonicClock(), hang_s=hang_s, health_calls=5, say=self.lines.append
        )
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.service.quit()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.service.run()
        except BaseException as error:
            self.error = error

    def ask(self, verb: str, goal: str | None = None) -> None:
        self.service.answer(Request(verb, goal))

    def status(self):
        return self.service.status()

    def reaches(self, phase: str) -> bool:
        return eventually(lambda: self.status()["phase"] == phase)

    def ended(self) -> bool:
        return eventually(lambda: not self._thread.is_alive())
