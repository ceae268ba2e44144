"""What has changed between two versions of a text, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from memrt.runtime.report.run.document import Change

MAX_WORDS = 600  # of what differs between two texts: comparing takes up to the square of it
_WORD = re.compile(r"\w+|\s+|[^\w\s]")


def changes(before: str, after: str) -> list[Change]:
    """`after` with its new words marked, and those of `before` that are gone.

    Where the texts differ in more than `MAX_WORDS`, all between their common beginning and end is marked.
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    same = list(map(str.__eq__, old, new))
    begin = same.index(False) if False in same else len(same)
    rest = min(len(old), len(new)) - begin
    end = next((k for k in range(rest) if old[-1 - k] != new[-1 - k]), rest)
    middle = _compared(old[begin : len(old) - end], new[begin : len(new) - end])
    parts: list[Change] = [("=", "".join(new[:begin])), *middle, ("=", "".join(new[len(new) - end :]))]
    return _without_lone_spaces([part for part in parts if part[1]])


def _compared(old: list[str], new: list[str]) -> list[Change]:
    if len(old) > MAX_WORDS or len(new) > MAX_WORDS:
        return [("-", "".join(old)), ("+", "".join(new))]
    found: list[Change] = []
    for what, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what == "equal":
            found.append(("=", "".join(new[k:m])))
        else:
            found += [("-", "".join(old[i:j])), ("+", "".join(new[k:m]))]
    return found


def _without_lone_spaces(found: list[Change]) -> list[Change]:
    """A space between two changes belongs to them: otherwise every word of a rewritten sentence is marked alone."""
    merged: list[Change] = []
    for index, (what, text) in enumerate(found):
        inside = 0 < index < len(found) - 1 and found[index - 1][0] != "=" and found[index + 1][0] != "="
        if what == "=" and text.isspace() and inside:
            merged += [("-", text), ("+", text)]
        else:
            merged.append((what, text))
    return _runs(merged)


def _runs(parts: list[Change]) -> list[Change]:
    """Between two kept texts first all that is gone, then all that is new."""
    joined: list[Change] = []
    gone = new = ""
    for what, text in [*parts, ("=", "")]:  # the last one ends what is pending
        if what == "-":
            gone += text
        elif what == "+":
            new += text
        else:
            pieces: list[Change] = [("-", gone), ("+", new), ("=", text)]
            joined += [piece for piece in pieces if piece[1]]
            gone = new = ""
    return joined
