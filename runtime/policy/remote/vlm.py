"""A served VLM with a deadline, and one on board that answers the same question when nothing came by then.

Memory does not know who answers. Each answer says it, and every miss is counted with its kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from memrt.runtime.clock import NS_PER_S, Clock, MonotonicClock
from memrt.runtime.config import PolicyConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.cancellation import Cancel, Cancelled, Unanswered
from memrt.runtime.policy.frame_features import FrameFeatures, Picture
from memrt.runtime.policy.remote.breaker import CircuitBreaker
from memrt.runtime.policy.remote.chat import Completion, messages, request
from memrt.runtime.policy.remote.link import Link, Question
from memrt.runtime.policy.remote.pictures import PictureUrls
from memrt.runtime.policy.remote.transport import Missed
from memrt.runtime.policy.vlm import AnsweredBy, Reply, Vlm
from memrt.runtime.remote_config import RemoteConfig

POLL_NS = 20_000_000  # between two looks whether the call is still wanted
COLD_CALLS = 2  # of a session on board, as in the loop's warm-up: the first pages weights in, the second allocates


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Who answered what. `missed` says why it was not the remote; the rest is what `Reply` asks for."""

    text: str
    answered_by: AnsweredBy
    missed: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    vision_ns: int | None = None
    prefill_ns: int | None = None
    decode_ns: int | None = None
    new_tokens: int | None = None
    reused_tokens: int | None = None


class RemoteVlm:
    """Implements `Vlm` with a server's, and another `Vlm` in its place when it is late. One thread owns it.

    `down` says why the server could not be reached before the first question, "" when it was.
    """

    def __init__(
        self, config: RemoteConfig, link: Link, on_board: Vlm | None, *, clock: Clock | None = None, down: str = ""
    ) -> None:
        """`on_board` None: nobody answers in its place, and a call that it misses raises Unanswered."""
        self._config, self._link, self._on_board = config, link, on_board
        self._clock, self.down = clock or MonotonicClock(), down
        self._deadline_ns = round(config.deadline_s * NS_PER_S)
        self._breaker = CircuitBreaker(config.misses_before_pause, round(config.longest_pause_s * NS_PER_S))
        self._urls = PictureUrls(config)
        self._trial: tuple[Question, int] | None = None  # in the background, and until when its answer counts
        self._cold_calls = COLD_CALLS

    @classmethod
    def open(cls, policy: PolicyConfig, config: RemoteConfig, on_board: Vlm | None) -> RemoteVlm:
        """Look for the server. One that is not there is no error where somebody answers in its place.

        Raises MemrtError for an endpoint, key or model that is wrong.
        """
        clock = MonotonicClock()
        link, down = Link(config, policy.name, clock), ""
        try:
            link.greet()
        except Missed as missed:
            down = str(missed)
            if on_board is None:
                raise MemrtError(
                    f"high level at {config.endpoint}",
                    expected="a server that answers, as `on_board: hold` leaves nobody else",
                    found=down,
                    fix="start it, or name the policy that answers in its place in `remote.on_board`",
                ) from missed
        return cls(config, link, on_board, clock=clock, down=down)

    def generate(
        self,
        system: str,
        user: str,
        images: Sequence[Picture],
        max_new_tokens: int,
        *,
        cancelled: Cancel | None = None,
    ) -> Answer:
        """The server's answer, or the one on board's where none came in time.

        Raises Unanswered where there is nobody on board, Cancelled and MemrtError as the session on board does.
        """
        try:
            return self._generate(system, user, images, max_new_tokens, cancelled)
        except Cancelled:
            # Where on its way a call ended is not recorded of the part that waits: what it left must not matter.
            self.forget_prefix()
            raise

    def read_ahead(self, system: str, user: str, images: Sequence[Picture], *, cancelled: Cancel | None = None) -> int:
        """Let the one on board read ahead while the server is left alone; else have the pictures ready to be sent."""
        if self._breaker.paused and self._on_board is not None:
            return self._on_board.read_ahead(system, user, images, cancelled=cancelled)
        for image in images:
            self._urls.url(image)
        return 0

    def features(self, image: Picture) -> FrameFeatures:
        """Those of the one on board. Raises MemrtError where there is none."""
        if self._on_board is None:
            raise MemrtError(
                "vision features", expected="a VLM on board", found="none", fix="set `memory.keyframes.keep: jpeg`"
            )
        return self._on_board.features(image)

    def forget_prefix(self) -> None:
        """As of the session on board."""
        if self._on_board is not None:
            self._on_board.forget_prefix()

    def forget(self) -> None:
        """As of the session on board; pictures are encoded anew."""
        self._urls.forget()
        if self._on_board is not None:
            self._on_board.forget()

    @property
    def held_bytes(self) -> dict[str, int]:
        """Host memory of what is kept between calls, by kind."""
        return (self._on_board.held_bytes if self._on_board is not None else {}) | {"pictures sent": self._urls.nbytes}

    def close(self) -> None:
        """Give up what is under way, and release the engines. Does not wait for the server."""
        self._link.close()
        if self._on_board is not None:
            self._on_board.close()

    def _generate(
        self, system: str, user: str, images: Sequence[Picture], max_new_tokens: int, cancelled: Cancel | None
    ) -> Answer:
        began_ns = self._clock.now_ns()
        self._end_trial(began_ns)
        choice = self._breaker.choose(began_ns)
        outcome: Completion | Missed = Missed("no connection", "left alone for now")
        left_alone = choice == "leave" or (choice == "try" and self._on_board is not None)
        if choice != "leave":
            turns = messages(system, user, [self._urls.url(image) for image in images])
            question = self._link.ask(partial(self._body, turns, max_new_tokens))
            if left_alone:
                self._trial = question, began_ns + self._deadline_ns
            else:
                outcome = self._wait(question, began_ns + self._deadline_ns, cancelled)
        counts = Counter({"remote: late answers dropped": self._link.take_late()})
        if isinstance(outcome, Completion):
            self._breaker.answered()
            self._warm_up(system, user, images, max_new_tokens, cancelled)
            counts["answered by remote"] += 1
            return Answer(text=outcome.text, answered_by="remote", counts=_seen(counts), new_tokens=outcome.tokens)
        if left_alone:
            counts["remote: left alone"] += 1
        else:
            counts[f"remote: {outcome.kind}"] += 1
            self._count_miss(counts)
        if self._on_board is None:
            raise Unanswered(str(outcome), _seen(counts))
        counts["answered on board"] += 1
        reply = self._on_board.generate(system, user, images, max_new_tokens, cancelled=cancelled)
        self._cold_calls -= self._cold_calls > 0
        return _on_board(reply, str(outcome), _seen(counts))

    def _body(self, turns: Sequence[Mapping[str, Any]], max_new_tokens: int, model: str) -> bytes:
        return request(model, turns, max_new_tokens, self._config.extra_body)

    def _wait(self, question: Question, deadline_ns: int, cancelled: Cancel | None) -> Completion | Missed:
        while not question.done.is_set() and (now_ns := self._clock.now_ns()) < deadline_ns:
            if cancelled is not None and cancelled():
                question.abandon()
                self._breaker.withdrawn()
                raise Cancelled
            self._clock.wait_until(min(deadline_ns, now_ns + POLL_NS), question.done)
        if question.abandon() or question.outcome is None:
            return Missed("late", f"no answer within {self._config.deadline_s:g} s")
        return question.outcome

    def _end_trial(self, now_ns: int) -> None:
        """What became of the question in the background, as far as it is known: an answer in time ends the pause."""
        if self._trial is None:
            return
        question, until_ns = self._trial
        if not question.done.is_set() and now_ns < until_ns:
            return
        self._trial = None
        answered = not question.abandon() and isinstance(question.outcome, Completion)
        if answered and question.ended_ns <= until_ns:
            self._breaker.answered()
        else:
            self._breaker.missed(now_ns)

    def _count_miss(self, counts: Counter[str]) -> None:
        was_paused = self._breaker.paused
        self._breaker.missed(self._clock.now_ns())
        counts["remote: pauses"] += self._breaker.paused and not was_paused

    def _warm_up(
        self, system: str, user: str, images: Sequence[Picture], max_new_tokens: int, cancelled: Cancel | None
    ) -> None:
        """Let the one on board answer the first questions too, unheard: when it is needed it must work, and at once."""
        if self._on_board is not None and self._cold_calls > 0:
            self._cold_calls -= 1
            self._on_board.generate(system, user, images, max_new_tokens, cancelled=cancelled)
            self._on_board.forget_prefix()


def _on_board(reply: Reply, missed: str, counts: Mapping[str, int]) -> Answer:
    return Answer(
        text=reply.text,
        answered_by="on board",
        missed=missed,
        counts={**reply.counts, **counts},
        vision_ns=reply.vision_ns,
        prefill_ns=reply.prefill_ns,
        decode_ns=reply.decode_ns,
        new_tokens=reply.new_tokens,
        reused_tokens=reply.reused_tokens,
    )


def _seen(counts: Counter[str]) -> dict[str, int]:
    return dict(+counts)
