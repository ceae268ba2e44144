"""Memory labels from a large model behind any OpenAI-compatible endpoint, as the compressed-memory report makes them.

The prompts are the report's (appendix A.1, `prompts.yaml`). An answer that breaks its rules is asked for again: models
do not always count words. What was answered is kept in a file, so that a run that was interrupted goes on where it was,
and running again changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import yaml

from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.coordinates import find_coordinates
from memrt.runtime.policy.remote.chat import COMPLETIONS, completion, messages
from memrt.runtime.policy.remote.transport import Missed, Transport
from memrt.runtime.remote_config import endpoint_of
from memrt.runtime.strict_config import FieldError
from memrt.train.labels.chains import Sample
from memrt.train.labels.spatial import SPATIAL_WORD_LIMIT
from memrt.train.labels.wording import WORD_LIMIT, Style

PROMPTS = Path(__file__).parent / "prompts.yaml"
# Report, appendix A: how its generator is called, and the completion budget of A.1.3.
REPORTS_BODY: dict[str, Any] = {"temperature": 1.0, "reasoning_effort": "low", "max_completion_tokens": 600}
CONNECT_S = 10.0
LONGEST_PAUSE_S = 30.0
PASSING = frozenset({408, 409, 429})  # of the HTTP statuses below 500: another attempt may succeed
_TAGS = ("<mem>", "</mem>", "<spatial_mem>", "</spatial_mem>", "<image>")


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Where the memories are worded, and how patiently. `body` adds to the report's or, with None, takes from it."""

    url: str  # http(s)://host[:port]/v1
    model: str
    key_env: str = ""  # the environment variable that holds the key, which no file should
    body: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 60.0
    attempts: int = 6


class EndpointLabels:
    """Asks for every memory. Any number of threads may use it, each with a connection of its own."""

    def __init__(
        self,
        settings: EndpointSettings,
        kept: Path,
        front: Callable[[Sample], bytes],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`kept` is the file of answers, made when it is missing; `front` gives a sample's front image as PNG.

        Raises MemrtError for an address that cannot be asked and for a key that is not in the environment.
        """
        self._settings, self._front, self._pause = settings, front, pause
        try:
            self._endpoint = endpoint_of(settings.url)
        except FieldError as error:
            raise MemrtError("--endpoint", expected=error.expected, found=error.found, fix=error.fix) from error
        self._headers = _authorization(settings.key_env)
        self._prompts = yaml.safe_load(PROMPTS.read_text(encoding="utf-8"))
        self._answers = KeptAnswers(kept)
        self._own = threading.local()

    def action(self, style: Style, episode: Sequence[Sample], calls: Sequence[int]) -> list[str]:
        """One text for each list of completed subgoals; it is carried forward while that list stands."""
        prompts, memories = self._prompts["action"], []
        for call in calls:
            history = [text for text, _ in groupby(filter(None, episode[call][f"history_{style}"]))]
            told = "; ".join(f"{number}. {text}" for number, text in enumerate(history, start=1))
            user = prompts["user"].format(goal=episode[0]["goal"], history=told or prompts["nothing_before"])
            seen = {user[c.start : c.stop] for c in find_coordinates(user)}
            check = Check(WORD_LIMIT[style], seen)
            memories.append(self._ask(messages(prompts["system"][style], user, ()), check))
        return memories

    def spatial(self, style: Style, episode: Sequence[Sample], calls: Sequence[int]) -> list[str]:
        """One text for each image, each asked for with the one before; the same prompt in both styles."""
        prompts, memories = self._prompts["spatial"], []
        prior = prompts["nothing_before"]
        for call in calls:
            user = prompts["user"].format(goal=episode[0]["goal"], prior=prior)
            url = f"data:image/png;base64,{base64.b64encode(self._front(episode[call])).decode('ascii')}"
            memories.append(self._ask(messages(prompts["system"], user, (url,)), Check(SPATIAL_WORD_LIMIT)))
            prior = prompts["prior"].format(spatial_memory=memories[-1])
        return memories

    def _ask(self, turns: Sequence[Mapping[str, Any]], check: Check) -> str:
        wanted = {**REPORTS_BODY, **self._settings.body, "model": self._settings.model, "messages": turns}
        body = msgspec.json.encode({key: value for key, value in wanted.items() if value is not None})
        key = hashlib.sha256(body).hexdigest()
        known = self._answers.get(key)
        return known if known is not None else self._answers.keep(key, self._answer(body, check))

    def _answer(self, body: bytes, check: Check) -> str:
        fault = ""
        for attempt in range(self._settings.attempts):
            try:
                text = " ".join(completion(self._post(body)).text.split())
            except Missed as missed:
                if missed.status is not None and missed.status < 500 and missed.status not in PASSING:
                    raise self._failed(missed, "correct the address, the model's name, the key or --body") from missed
                fault = str(missed)
                self._pause(min(2.0**attempt, LONGEST_PAUSE_S))
                continue
            fault = check.fault(text)
            if not fault:
                return text
        raise self._failed(f"{fault}, {self._settings.attempts} times", "run the same again: finished labels are kept")

    def _post(self, body: bytes) -> bytes:
        if not hasattr(self._own, "transport"):
            self._own.transport = Transport(self._endpoint, self._headers, CONNECT_S)
        answer: bytes = self._own.transport.post(COMPLETIONS, body, time.monotonic() + self._settings.timeout_s)
        return answer

    def _failed(self, found: object, fix: str) -> MemrtError:
        return MemrtError(
            f"memory label from {self._settings.url}",
            expected="an answer that keeps the report's rules",
            found=found,
            fix=fix,
        )


@dataclass(frozen=True, slots=True)
class Check:
    """The report's rules that a program can check; `seen` are the coordinates that an answer may repeat, None any."""

    word_limit: int
    seen: Collection[str] | None = None

    def fault(self, text: str) -> str:
        """What is wrong with an answer, "" when nothing is."""
        if not text:
            return "an empty answer"
        if not text.isascii():
            return f"not ASCII: {text!r:.80}"
        if len(text.split()) >= self.word_limit:
            return f"{len(text.split())} words, not under {self.word_limit}"
        if any(tag in text for tag in _TAGS):
            return f"a tag inside: {text!r:.80}"
        written = {text[c.start : c.stop] for c in find_coordinates(text)}
        if self.seen is not None and not written <= set(self.seen):
            return f"coordinates that were not seen: {', '.join(sorted(written - set(self.seen)))}"
        return ""


class KeptAnswers:
    """Answers by what was asked, in a file that grows line by line; a line that was cut off is not one."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        self._path, self._lock = path, threading.Lock()
        self._known: dict[str, str] = {}
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self._known[str(entry["key"])] = str(entry["text"])
            except (ValueError, KeyError, TypeError):
                continue
        if text and not text.endswith("\n"):
            self._append("")

    def get(self, key: str) -> str | None:
        """The answer, None while there is none."""
        with self._lock:
            return self._known.get(key)

    def keep(self, key: str, text: str) -> str:
        """Keep an answer unless there is one; returns the one that is kept."""
        with self._lock:
            if key not in self._known:
                self._append(json.dumps({"key": key, "text": text}))
                self._known[key] = text
            return self._known[key]

    def _append(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def _authorization(key_env: str) -> dict[str, str]:
    if not key_env:
        return {}
    key = os.environ.get(key_env, "").strip()
    if not key:
        raise MemrtError(
            f"key for the endpoint, ${key_env}",
            expected="the key in this environment variable",
            found="nothing",
            fix=f"export {key_env}=..., or give another --key-env",
        )
    return {"Authorization": f"Bearer {key}"}
