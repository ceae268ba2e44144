"""What has changed between two versions of a text, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from memrt.runtime.report.run.document import Change

MAX_WORDS = 2_000  # of a text that is compared: comparing takes up to the square of it
_WORD = re.compile(r"\w+|\s+|[^\w\s]")


def changes(before: str, after: str) -> list[Change]:
    """`after` with its new words marked, and those of `before` that are gone. Texts beyond `MAX_WORDS` change whole."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    if before == after or len(old) > MAX_WORDS or len(new) > MAX_WORDS:
        parts: list[Change] = [("=", after)] if before == after else [("-", before), ("+", after)]
        return [part for part in parts if part[1]]
    found: list[Change] = []
    for what, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what == "equal":
            found.append(("=", "".join(new[k:m])))
            continue
        if i < j:
            found.append(("-", "".join(old[i:j])))
        if k < m:
            found.append(("+", "".join(new[k:m])))
    return _without_lone_spaces(found)


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
    for what, text in [*parts, ("=", "")]:
        if what == "-":
            gone += text
        elif what == "+":
            new += text
        else:
            pieces: list[Change] = [("-", gone), ("+", new), ("=", text)]
            joined += [piece for piece in pieces if piece[1]]
            gone = new = ""
    return joined
