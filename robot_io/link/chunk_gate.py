"""Which chunks reach the robot: readable, of this session, new, in time, and only while it is running."""

from __future__ import annotations

from collections import Counter

from memrt.robot_io.action_spaces import ActionSpaces, RefusedChunkError
from memrt.robot_io.bounds import ArmBounds
from memrt.robot_io.driver import Driver
from memrt.robot_io.link.clock_sync import ARM_LIMIT_NS
from memrt.robot_io.link.receiving import InOrder, dropped
from memrt.robot_io.link.session import NodeSession
from memrt.robot_io.link.streams import Chunk, decode_chunk
from memrt.runtime.types import ActionSpace, FloatArray


class ChunkGate:
    """Passes chunks on to the driver, and counts those it does not. Nothing that comes in can do more than that."""

    def __init__(
        self,
        driver: Driver,
        session: NodeSession,
        spaces: ActionSpaces | None = None,
        bounds: ArmBounds | None = None,
    ) -> None:
        """Without `spaces` chunks must be of joint positions, without `bounds` only the driver judges them."""
        self._driver = driver
        self._spaces = spaces
        self._bounds = bounds
        self._session = session
        self._order = InOrder()
        self._followed_ns = 0
        self._counts: Counter[str] = Counter()
        self._last_refusal = ""
        self.dropped: Counter[str] = Counter()
        self.refused_in_a_row = 0
        self.revision = 0

    @property
    def spaces(self) -> tuple[ActionSpace, ...]:
        """The action spaces that the robot can be commanded in."""
        return self._spaces.known if self._spaces is not None else (ActionSpace.JOINT_POSITION,)

    def set_speed(self, speed: float) -> None:
        """The arm's limits of speed have another factor now."""
        for judge in (self._spaces, self._bounds):
            if judge is not None:
                judge.set_speed(speed)

    def begin_session(self) -> None:
        """Sequence numbers begin anew."""
        self.dropped += self._order.dropped
        self._order = InOrder()
        self.refused_in_a_row = 0

    def begin_to_follow(self, now_ns: int) -> None:
        """The robot was armed or resumed: what was sent before that is not followed after it."""
        self._followed_ns = now_ns
        self.refused_in_a_row = 0
        if self._bounds is not None:
            self._bounds.begin()

    def take(self, data: bytes, now_ns: int) -> None:
        """One message of the chunk channel."""
        chunk = decode_chunk(data)
        if not isinstance(chunk, Chunk):
            self.dropped[chunk] += 1
        elif chunk.session != self._session.session:
            self.dropped["foreign session"] += 1
        elif not self._order.accept(chunk.sequence):
            pass  # counted there
        elif not self._session.accepts_chunks(chunk.session):
            self._counts["chunks while not running"] += 1
        elif chunk.sent_ns < self._followed_ns - ARM_LIMIT_NS:  # so far may the client's idea of our clock be off
            self.dropped["sent before arming"] += 1
        elif now_ns > chunk.deadline_ns:
            self.dropped["past deadline"] += 1
            self.refused_in_a_row += 1
        else:
            self._push(chunk)

    def report(self) -> tuple[dict[str, float], dict[str, str]]:
        """Counts, and the last refusal in words."""
        bent = {} if self._bounds is None else self._bounds.counts
        counts = {**self._counts, **bent, **dropped("chunks", self.dropped + self._order.dropped)}
        texts = {"last refusal": self._last_refusal} if self._last_refusal else {}
        return {name: float(count) for name, count in counts.items()}, texts

    def _push(self, chunk: Chunk) -> None:
        try:
            targets = self._targets(chunk)
            if self._bounds is not None:
                targets = self._bounds.kept(targets, chunk.dt_ns, self._driver.planned(chunk.t0_ns))
            refusal = self._driver.push(targets, chunk.t0_ns, chunk.dt_ns, chunk.revision)
        except RefusedChunkError as error:
            refusal = str(error)
        if refusal:
            self.refused_in_a_row += 1
            self._counts["chunks refused"] += 1
            self._last_refusal = refusal
        else:
            self.refused_in_a_row = 0
            self.revision = chunk.revision
            self._counts["chunks accepted"] += 1

    def _targets(self, chunk: Chunk) -> FloatArray:
        """The chunk's joint targets. Raises RefusedChunkError."""
        if chunk.space not in self.spaces:
            raise RefusedChunkError(f"actions of space {chunk.space.name}")
        if self._spaces is None:
            return chunk.actions
        return self._spaces.targets(chunk.actions, chunk.space, chunk.t0_ns, chunk.dt_ns, self._driver.planned)
