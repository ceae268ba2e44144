"""A link whose answers come at times that the test sets, on a clock that only the test moves."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from memrt.runtime.clock import NS_PER_MS, VirtualClock
from memrt.runtime.policy.cancellation import check
from memrt.runtime.policy.remote.chat import Completion
from memrt.runtime.policy.remote.link import Question
from memrt.runtime.policy.remote.transport import Missed
from memrt.runtime.policy.vlm import Generation

MS = NS_PER_MS


@dataclass
class ScriptedLink:
    """Each question is ended `after_ms` its asking with the outcome beside it; None: never. Time passes in waits."""

    script: list[tuple[float, Completion | Missed] | None] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        self.clock = _Clock(self)
        self._late = 0
        self._under_way: tuple[Question, int, Completion | Missed] | None = None

    def ask(self, body) -> Question:
        self.bodies.append(body("model"))
        question = Question(body, 0.0)
        self._under_way = None
        if (planned := self.script.pop(0)) is not None:
            self._under_way = question, self.clock.now_ns() + round(planned[0] * MS), planned[1]
        return question

    def take_late(self) -> int:
        late, self._late = self._late, 0
        return late

    def close(self) -> None:
        self.closed = True

    def end_until(self, now_ns: int) -> int:
        """End what ends by `now_ns`; the time at which it did, or `now_ns`."""
        if self._under_way is None or self._under_way[1] > now_ns:
            return now_ns
        (question, ended_ns, outcome), self._under_way = self._under_way, None
        self._late += not question.end(outcome, ended_ns) and isinstance(outcome, Completion)
        return ended_ns


class _Clock(VirtualClock):
    def __init__(self, link: ScriptedLink) -> None:
        super().__init__(1_000_000 * MS)
        self._link = link

    def wait_until(self, t_ns: int, wake: threading.Event) -> None:
        """To `t_ns`, or to when a question ends before it."""
        if not wake.is_set():
            self.advance(max(0, self._link.end_until(t_ns) - self.now_ns()))

    def pass_ms(self, ms: float) -> None:
        self.advance(round(ms * MS))
        self._link.end_until(self.now_ns())


@dataclass
class OnBoard:
    """A VLM on board that says so, and counts what it is told."""

    text: str = "on board"
    takes_ms: float = 50.0
    clock: VirtualClock | None = None
    asked: int = 0
    ahead: int = 0
    forgotten: list[str] = field(default_factory=list)
    closed: bool = False

    def generate(self, system: str, user: str, images: Sequence, budget: int, *, cancelled=None) -> Generation:
        check(cancelled)
        self.asked += 1
        if self.clock is not None:
            self.clock.advance(round(self.takes_ms * MS))
        return Generation(self.text, 3, 90, 0, True, 1, 2, 3)

    def read_ahead(self, system: str, user: str, images: Sequence, *, cancelled=None) -> int:
        self.ahead += 1
        return 7

    def features(self, image):
        raise AssertionError("nobody asks for features")

    def forget_prefix(self) -> None:
        self.forgotten.append("prefix")

    def forget(self) -> None:
        self.forgotten.append("all")

    @property
    def held_bytes(self) -> dict[str, int]:
        return {"K/V": 10}

    def close(self) -> None:
        self.closed = True
