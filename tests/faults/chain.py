"""The real chain, as a user runs it: ring, driver, node, link, real-time loop; only the policies are scripted.

Times are the chain's own: pictures carry theirs, the loop's observer is told when the supervisor looked and when it
held, the control loop says for when each command is. So the tests hold on a computer that stalls: what must happen at
the first look after a deadline is compared with the looks there were, not with a wish.
"""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import numpy as np
import zmq
from arm_driver import Rig, eventually
from fault_policies import DT_NS, EXECUTE, HORIZON, PATIENT, Names, Notes, Swings

from memrt.robot_io.bounds import ArmBounds
from memrt.robot_io.link.endpoints import Endpoints
from memrt.robot_io.link.session import Reaction, Watchdog
from memrt.robot_io.link.sockets import open_socket
from memrt.robot_io.link.streams import State, decode_state
from memrt.runtime._core import SeamLimits
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.loop.realtime import RealtimeLoop
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.types import FloatArray, RobotMode

FR3 = SeamLimits.fr3()


class Camera:
    """Takes a picture of the arm every 50 ms, in a thread, until it is told to fail."""

    PERIOD_S = 0.05

    def __init__(self, driver) -> None:
        self._driver = driver
        self._index = 1
        self.dead, self.frozen = threading.Event(), threading.Event()
        self.frozen_since_ns = 0  # when the picture that it froze at was first shown
        self._picture = 0
        self._quit = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._quit.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._quit.wait(self.PERIOD_S):
            if self.dead.is_set():
                continue
            self._index += 1
            now_ns = time.monotonic_ns()
            if not self.frozen.is_set():
                self._picture, self.frozen_since_ns = self._index, now_ns
            image = np.full((4, 4, 3), self._picture % 251, np.uint8)
            self._driver.ring.write(image, self._index, now_ns)


class Chain:
    """Runs from construction until `close`. Watchdog and loop are patient but for the deadlines a test is about."""

    def __init__(
        self,
        folder: Path,
        *,
        watchdog: Watchdog | None = None,
        high_level: Names | None = None,
        observer: Notes | None = None,
        end_on_hold: bool = False,
        start: bool = True,
        bounds: ArmBounds | None = None,
        **changes,
    ) -> None:
        folder.mkdir()
        self.rig = Rig(folder, watchdog, bounds=bounds)
        self.driver, self.node = self.rig.driver, self.rig.node
        self.camera = Camera(self.driver)
        self.notes = observer or Notes()
        values = {"dt_ns": DT_NS, "horizon": HORIZON, "execute": EXECUTE, "every_steps": 2, "cameras": ("front",)}
        self.settings = LoopSettings(**(values | PATIENT | changes))
        self.high_level, self.low_level = high_level or Names(), Swings(self.settings.horizon)
        self.robot = self.rig.client()
        self.loop = RealtimeLoop(
            self.robot,
            self.high_level,
            self.low_level,
            "swing",
            self.settings,
            observer=self.notes,
            end_on_hold=end_on_hold,
        )
        self.error: BaseException | None = None
        self._runner = threading.Thread(target=self._run, daemon=True)
        if start:
            self._runner.start()

    def _run(self) -> None:
        try:
            self.loop.run()
        except BaseException as error:
            self.error = error

    def settle(self) -> Chain:
        """Wait until the arm moves. A hold because this computer stalled is resumed, as an operator would."""

        def moving() -> bool:
            assert self.loop.record.status == "running", self.loop.record.reason
            if self.hold and self.robot.mode is RobotMode.STOPPED:
                self.loop.resume()
            return not self.hold and not self.driver.at_rest() and self.driver.control.stats()["accepted"] > 2

        assert eventually(moving), self.hold
        return self

    def held(self, words: str) -> int:
        """Wait for the hold whose reason contains `words`; when it began."""
        assert eventually(lambda: words in self.hold), self.hold or self.loop.record.reason
        return max(
            t_ns for t_ns, name, arguments in list(self.notes.events) if name == "hold" and words in arguments["reason"]
        )

    def rested(self) -> float:
        """Wait until the robot says it is stopped and the arm is at rest; where its first joint is."""
        assert eventually(lambda: self.robot.mode is RobotMode.STOPPED and self.driver.at_rest())
        return self.first_joint()

    def ended(self) -> str:
        """Wait for the end of the run; its reason."""
        self._runner.join(30)
        assert not self._runner.is_alive()
        return self.loop.record.reason

    @property
    def hold(self) -> str:
        return self.loop.status().hold_reason

    @property
    def counts(self):
        return self.loop.record.counts

    def looks(self, begin_ns: int, end_ns: int) -> list[int]:
        """When the supervisor looked, between two times."""
        return [t_ns for t_ns, _, _ in list(self.notes.ticks) if begin_ns < t_ns < end_ns]

    def swinging(self) -> Chain:
        """Wait until the arm moves, and is so far from where it turns that it will move for half a second more."""
        self.settle()
        assert eventually(lambda: abs(self.first_joint()) < 0.1)
        return self

    def first_joint(self) -> float:
        return float(self.driver.proprioception()[1][0])

    def close(self) -> None:
        self.high_level.let_go.set()
        self.loop.quit()
        if self._runner.ident is not None:
            self._runner.join(30)
        self.camera.close()
        self.rig.close()


class Watched:
    """Samples the arm's commands in a thread: (time, joints), each with the time it was commanded for."""

    def __init__(self, driver) -> None:
        self._driver = driver
        self._samples: dict[int, FloatArray] = {}
        self._quit = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._quit.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._quit.wait(0.002):
            q, _, _, t_ns = self._driver.control.command()
            self._samples[t_ns] = q

    @property
    def path(self) -> tuple[FloatArray, FloatArray]:
        """Times [s] and joints [n, 7]."""
        times = sorted(self._samples)
        return np.array(times) / NS_PER_S, np.array([self._samples[t] for t in times])


class Looks:
    """What the node's watchdog saw: every look at the silence of its client [ns], and what it did about it."""

    def __init__(self, node) -> None:
        self.seen: list[tuple[int, Reaction]] = []
        session, check = node._session, node._session.check

        def noted(now_ns: int, driver_fault: str) -> Reaction:
            silence_ns, running = now_ns - session._heard_ns, session.mode is RobotMode.RUNNING
            reaction = check(now_ns, driver_fault)
            if running:
                self.seen.append((silence_ns, reaction))
            return reaction

        session.check = noted

    def first_after(self, silence_ns: int) -> tuple[int, Reaction]:
        """The first look, of those since the last message, at a longer silence."""
        newest: list[tuple[int, Reaction]] = []
        for look in reversed(self.seen):
            if newest and look[0] > newest[-1][0]:
                break
            newest.append(look)
        return next(look for look in reversed(newest) if look[0] > silence_ns)


class StateListener:
    """A second subscriber: every state that a node publishes, whoever commands it."""

    def __init__(self, endpoint: str) -> None:
        self.states: list[State] = []
        self._context = zmq.Context()
        address = Endpoints.of(endpoint).state
        self._socket = open_socket(self._context, zmq.SUB, address)
        self._socket.subscribe(b"")
        self._socket.connect(address)
        self._quit = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._quit.is_set():
            if self._socket.poll(20):
                state = decode_state(self._socket.recv())
                if isinstance(state, State):
                    self.states.append(state)

    def modes_since(self, t_ns: int) -> list[RobotMode]:
        """In order, each once for as long as it lasted."""
        modes = [state.mode for state in list(self.states) if state.sent_ns > t_ns]
        return [mode for mode, _ in itertools.groupby(modes)]

    def speed(self) -> float:
        """Of the fastest joint over the last 20 ms or more of the robot's own time [rad/s], NaN before."""
        *earlier, new = list(self.states)
        old = next((state for state in reversed(earlier) if state.t_ns <= new.t_ns - 20 * NS_PER_MS), None)
        if old is None:
            return np.nan
        return float(np.abs(new.proprioception - old.proprioception)[:-1].max()) / ((new.t_ns - old.t_ns) / NS_PER_S)

    def close(self) -> None:
        self._quit.set()
        self._thread.join()
        self._context.destroy(linger=0)


def largest_rates(times_s: FloatArray, joints: FloatArray) -> list[FloatArray]:
    """The largest speed, acceleration and jerk of each joint that a sampled path proves, [3][7].

    The k-th divided difference times k! is the mean of the k-th derivative over the samples, weighed with a B-spline,
    so it is at most the largest there was, wherever samples are missing.
    """
    found, differences = [], joints
    for order in (1, 2, 3):
        spans = times_s[order:] - times_s[:-order]
        differences = order * np.diff(differences, axis=0) / spans[:, None]
        found.append(np.abs(differences).max(axis=0))
    return found
