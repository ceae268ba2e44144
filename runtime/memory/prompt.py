"""Fills a policy's templates (`MemoryConfig`) with the goal and with what is remembered."""

from __future__ import annotations

from memrt.runtime.config import MemoryConfig
from memrt.runtime.keyframes_config import KeyframesConfig
from memrt.runtime.memory.plain_text import prompt_text
from memrt.runtime.memory.state import HighLevelRequest, MemoryState

_HISTORY_LINE = "{history}"


def render(config: MemoryConfig, state: MemoryState, goal: str) -> HighLevelRequest:
    """The request for one call. Remembered text cannot smuggle in a second `<image>`, nor a turn."""
    history = _history_line(config, state)
    lines = [line for line in config.user.split("\n") if line != _HISTORY_LINE or history is not None]
    user = "\n".join(lines).format_map(
        {
            "goal": prompt_text(goal),
            "history": prompt_text(history or ""),
            "action_memory": prompt_text(state.action_memory),
            "spatial_memory": prompt_text(state.spatial_memory),
        }
    )
    return HighLevelRequest(system=config.system, user=user)


def render_keyframes(
    config: MemoryConfig, texts: KeyframesConfig, goal: str, keyframes: tuple[int, ...], recent: tuple[int, ...]
) -> HighLevelRequest:
    """The request that shows the frames at these raw ticks."""
    user = config.user.format_map(
        {
            "goal": prompt_text(goal),
            "keyframes": _images(texts.keyframe_text, len(keyframes)) or texts.no_keyframes_text,
            "recent": _images(texts.recent_text, len(recent)),
        }
    )
    return HighLevelRequest(config.system, user, keyframes, recent)


def _images(text: str, count: int) -> str:
    return "".join(text.format_map({"number": number}) for number in range(1, count + 1))


def _history_line(config: MemoryConfig, state: MemoryState) -> str | None:
    """The line in place of `{history}`, or None when it is dropped."""
    shown = config.history or config.kind == "history"
    if not state.history and (shown or config.keep_initial_history):
        return config.user_initial_history
    if not shown:
        return None
    numbered = enumerate(state.history, start=state.history_dropped + 1)
    return config.user_history.format_map({"subgoals": "; ".join(f"{n}. {subgoal}" for n, subgoal in numbered)})
