"""The texts that a policy remembered, from version to version."""

from __future__ import annotations

from typing import Any

from memrt.runtime.memory.coordinates import without_coordinates
from memrt.runtime.report.run.document import Memory
from memrt.runtime.report.run.told import Told
from memrt.runtime.report.run.words import changes

_NOT_REMEMBERED = frozenset({"subgoal", "goal", "start_ns", "votes", "history", "history_dropped"})


def memories(told: Told, end_s: float) -> list[Memory]:
    """One entry for every memory or subgoal that differs from the one before."""
    shows_history = _shows_history(told)
    versions: list[tuple[float, str, dict[str, str]]] = []
    for request, answer, memory in told.calls:
        if memory is not None:
            texts = texts_of(memory.state, history=shows_history)
            if not versions or versions[-1][1:] != (answer.subgoal, texts):
                versions.append((told.seconds(told.answered_ns(request, answer)), answer.subgoal, texts))
    found, before, row = [], dict[str, str](), ("", dict[str, str]())
    for index, (start_s, subgoal, texts) in enumerate(versions):
        plain = without_coordinates(subgoal), {name: without_coordinates(text) for name, text in texts.items()}
        ends = versions[index + 1][0] if index + 1 < len(versions) else end_s
        parts = {
            name: changes(before.get(name, "") if index else texts.get(name, ""), texts.get(name, ""))
            for name in dict.fromkeys((*texts, *before))
        }
        found.append(Memory(start_s=start_s, end_s=ends, subgoal=subgoal, parts=parts, boundary=plain != row))
        before, row = texts, plain
    return found


def texts_of(state: Any, *, history: bool) -> dict[str, str]:
    """Every text of a memory by its name, empty ones left out; of the history one line per subgoal, if asked for."""
    if not isinstance(state, dict):
        return {}
    texts = {
        name.removesuffix("_memory"): str(value)
        for name, value in state.items()
        if name not in _NOT_REMEMBERED and isinstance(value, str | int | float) and value != ""
    }
    if history and state.get("history"):
        first = int(state.get("history_dropped") or 0) + 1
        lines = (f"{number}. {text}" for number, text in enumerate(state["history"], start=first))
        texts["history"] = "\n".join(lines)
    return texts


def _shows_history(told: Told) -> bool:
    """Whether the VLM is shown its own subgoals; a recording that does not say is looked at for other memories."""
    config = told.about("memory")
    if config:
        return bool(config["kind"] == "history" or config.get("history"))
    return not any(memory and texts_of(memory.state, history=False) for _, _, memory in told.calls)
