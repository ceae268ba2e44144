"""What the loop's threads share: one lock, the subgoal, the memory, and whether the robot may be followed at all.

Threading rule: every attribute is read and written with `lock` held, except `quit`, which is an event, and `cameras`,
which has a lock of its own.
Nothing slow happens under the lock: handing a chunk to the robot is a copy into a socket.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from memrt.runtime.loop.camera_watch import CameraWatch
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.scheduler import SubgoalBoard
from memrt.runtime.memory.state import MemoryState, commit


class Shared:
    """The blackboard of one run.

    `epoch` grows with every hold and every resume: a chunk computed in another epoch than the present one is never
    sent, so that nothing thought of before a stop moves the robot after it. `goal_changes` grows with every new goal.
    `low_level_since_ns` is when the low-level call that is under way began, None while there is none.
    """

    def __init__(self, record: RunRecord, memory: Any, cameras: Iterable[str]) -> None:
        self.lock = threading.RLock()
        self.quit = threading.Event()
        self.cameras = CameraWatch(cameras)
        self._wakes: list[threading.Event] = []
        self.record = record
        self.board = SubgoalBoard()
        self.memory = memory
        self.following = False
        self.epoch = 0
        self.goal_changes = 0
        self.low_level_since_ns: int | None = None
        self.hold_reason = ""
        self._hold_asked = ""
        self._confirmed = False
        self._error: BaseException | None = None

    def subscribe(self) -> threading.Event:
        """A worker's own event, set whenever it should decide again: a new subgoal, a hold, a resume, the end."""
        event = threading.Event()
        with self.lock:
            self._wakes.append(event)
        return event

    def wake_workers(self) -> None:
        """Let every worker decide again now."""
        with self.lock:
            for event in self._wakes:
                event.set()

    def ask_hold(self, reason: str) -> None:
        """From a worker: let the supervisor bring the robot to rest. The first reason stands."""
        with self.lock:
            self._hold_asked = self._hold_asked or reason

    @property
    def hold_asked(self) -> bool:
        """Whether the supervisor is about to hold because a worker asked: until then nothing more is computed."""
        with self.lock:
            return bool(self._hold_asked)

    def fail(self, error: BaseException) -> None:
        """From a worker: a policy raised. The run ends with this error. The first one stands."""
        with self.lock:
            self._error = self._error or error

    def take_hold_request(self) -> str:
        """The reason a worker asked for a hold, once."""
        with self.lock:
            reason, self._hold_asked = self._hold_asked, ""
            return reason

    @property
    def wanted(self) -> tuple[int, int]:
        """Names the question that the high level should be answering; another one supersedes it."""
        with self.lock:
            return self.epoch, self.goal_changes

    def superseded(self, wanted: tuple[int, int]) -> bool:
        """Whether the answer to the question `wanted` is of no use any more."""
        return self.quit.is_set() or self.wanted != wanted

    def set_goal(self, goal: str) -> bool:
        """From now on the high level is asked about `goal`; False when it was already."""
        with self.lock:
            if goal == self.record.goal:
                return False
            self.record.goal = goal
            self.goal_changes += 1
        self.wake_workers()
        return True

    def confirm_subgoal(self) -> None:
        """An operator says that the current subgoal has succeeded: the high level's next call knows."""
        with self.lock:
            self._confirmed = True

    def memory_for_a_call(self) -> Any:
        """The memory, with what was confirmed since the last call. Only a memory of success minds."""
        with self.lock:
            if self._confirmed and isinstance(self.memory, MemoryState):
                self.memory = commit(self.memory)
            self._confirmed = False
            return self.memory

    @property
    def error(self) -> BaseException | None:
        """What a worker failed with."""
        with self.lock:
            return self._error

    def begin_hold(self, reason: str) -> None:
        """No chunk leaves from now on."""
        with self.lock:
            self.following = False
            self.hold_reason = reason
            self.epoch += 1
        self.wake_workers()

    def begin_following(self, now_ns: int, epoch: int) -> bool:
        """Chunks may leave again, unless a hold came in since `epoch` was read: then nothing changes, and False."""
        with self.lock:
            if self.epoch != epoch:
                return False
            self.following = True
            self.hold_reason = self._hold_asked = ""
            self.epoch += 1
            self.board.start(now_ns)
        self.wake_workers()
        return True
