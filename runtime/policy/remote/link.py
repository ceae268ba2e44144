"""Asks a served VLM in a thread of its own: whoever asked waits for as long as it wants, and goes on without.

One question is under way at a time. One that nobody waits for any more runs on until the next is asked, so that it is
known how late the server is; its answer is dropped and counted.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from memrt.runtime.clock import Clock
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.remote.chat import COMPLETIONS, MODELS, Completion, chosen_model, completion, model_names
from memrt.runtime.policy.remote.transport import Missed, Transport
from memrt.runtime.remote_config import RemoteConfig, endpoint_of

CONNECT_S = 5.0  # at most, of a question's time: a host that is switched off answers nothing at all
GREETING_S = 5.0  # for the list of models, before the run
PATIENCE = 3.0  # deadlines after which a late answer is not waited for any more
JOIN_S = 1.0  # a thread that the resolver of host names holds up longer is left behind; it ends with the process

Body = Callable[[str], bytes]  # a request's JSON, from the model's name


class Question:
    """One question under way. `done` is set when it has ended; until then the asker may `abandon` it."""

    def __init__(self, body: Body, until_s: float) -> None:
        self.body, self.until_s = body, until_s
        self.done = threading.Event()
        self.outcome: Completion | Missed | None = None
        self.ended_ns = 0
        self._lock = threading.Lock()
        self._abandoned = False

    def end(self, outcome: Completion | Missed, now_ns: int) -> bool:
        """The link: it has ended. False when nobody waits for it any more."""
        with self._lock:
            if not self._abandoned:
                self.outcome, self.ended_ns = outcome, now_ns
                self.done.set()
            return not self._abandoned

    def abandon(self) -> bool:
        """The asker: it is not waited for any more. False when it had ended by then."""
        with self._lock:
            if self.outcome is None:
                self._abandoned = True
            return self._abandoned


class Link:
    """One server. `ask` and `close` belong to one thread."""

    def __init__(self, config: RemoteConfig, policy: str, clock: Clock) -> None:
        """`policy` is the name of the policy, which a served model may bear. Raises MemrtError for a missing key."""
        self._config, self._policy, self._clock = config, policy, clock
        self._transport = Transport(endpoint_of(config.endpoint), _headers(config), CONNECT_S)
        self._model: str | None = None
        self._changed = threading.Condition()
        self._waiting: Question | None = None
        self._current: Question | None = None
        self._late = 0
        self._quit = False
        self._thread = threading.Thread(target=self._work, name="remote high level", daemon=True)

    def greet(self) -> None:
        """Before the first question: is there such a server, and has it the model?

        Raises Missed when it is not there or not well, which may pass, and MemrtError for what never will.
        """
        try:
            self._choose_model(time.monotonic() + GREETING_S)
        except Missed as missed:
            fault = _fault(missed, self._config)
            if fault is not None:
                raise fault from missed
            raise

    def ask(self, body: Body) -> Question:
        """Send a question. The one before is given up, if it is still under way."""
        question = Question(body, time.monotonic() + PATIENCE * self._config.deadline_s)
        with self._changed:
            if not self._thread.is_alive():
                self._thread.start()
            if self._current is not None:
                self._transport.abort()
            overtaken, self._waiting = self._waiting, question
            self._changed.notify_all()
        if overtaken is not None:
            overtaken.end(Missed("late", "overtaken by the next question"), self._clock.now_ns())
        return question

    def take_late(self) -> int:
        """How many answers came too late since the last look."""
        with self._changed:
            late, self._late = self._late, 0
            return late

    def close(self) -> None:
        """Give up what is under way and end the thread. Does not wait for the server."""
        with self._changed:
            self._quit = True
            self._transport.abort()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        else:
            self._transport.close()

    def _work(self) -> None:
        while (question := self._next()) is not None:
            outcome: Completion | Missed
            try:
                outcome = self._answer(question)
            except Missed as missed:
                outcome = missed
            except Exception as error:  # whatever it is: another one answers, and the next question is asked
                outcome = Missed("unreadable", repr(error))
            awaited = question.end(outcome, self._clock.now_ns())
            with self._changed:
                self._current = None
                self._late += not awaited and isinstance(outcome, Completion)
        self._transport.close()

    def _next(self) -> Question | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._quit)
            self._current, self._waiting = self._waiting, None
            return None if self._quit else self._current

    def _answer(self, question: Question) -> Completion:
        model = self._model or self._choose_model(question.until_s)
        return completion(self._transport.post(COMPLETIONS, question.body(model), question.until_s))

    def _choose_model(self, until_s: float) -> str:
        served = model_names(self._transport.get(MODELS, until_s))
        self._model = chosen_model(self._config.model, self._policy, served)
        if self._model is None:
            wanted = self._config.model or f"{self._policy}, or one model alone"
            raise Missed("refused", f"no model {wanted}; served: {', '.join(served) or 'none'}", _NO_MODEL)
        return self._model


_NO_MODEL = 404
_KEY_REFUSED = (401, 403)
_NOT_HERE = (301, 302, 303, 307, 308, 404, 405, 410)


def _fault(missed: Missed, config: RemoteConfig) -> MemrtError | None:
    """What a miss at the first look says about the settings; None where the server is merely not there or not well."""
    if missed.status in _KEY_REFUSED:
        key = f"the key in ${config.api_key_env}" if config.api_key_env else "no key"
        expected, fix = f"to be let in with {key}", "name the variable that holds the key in `remote.api_key_env`"
    elif missed.status in _NOT_HERE or missed.kind == "unreadable":
        expected = "an OpenAI-compatible server that lists the wanted model at /models"
        fix = "correct `remote.endpoint` (as a rule it ends in /v1) or `remote.model`"
    else:
        return None
    return MemrtError(f"high level at {config.endpoint}", expected=expected, found=missed, fix=fix)


def _headers(config: RemoteConfig) -> dict[str, str]:
    headers = {"Accept": "application/json", "User-Agent": "memrt"}
    if config.api_key_env:
        key = os.environ.get(config.api_key_env, "")
        if not key or not key.isascii() or not key.isprintable():
            raise MemrtError(
                f"high level at {config.endpoint}",
                expected=f"its key in the environment variable {config.api_key_env}",
                found="nothing there" if not key else "something that is no key",
                fix=f"export {config.api_key_env}=…, or remove `remote.api_key_env`",
            )
        headers["Authorization"] = f"Bearer {key}"
    return headers
