"""Tables of a report's page: cells are HTML already, figures are aligned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a head that begins with `#` marks a column of figures, `%` one of hashes and long values."""
    classes = [{"#": ' class="number"', "%": ' class="hash"'}.get(head[:1], "") for head in heads]
    names = [head.lstrip("#%") for head in heads]
    top = "".join(f"<th{c}>{escape(n)}</th>" for c, n in zip(classes, names, strict=True)) if any(names) else ""
    body = "".join(
        f"<tr>{''.join(f'<td{c}>{cell}</td>' for c, cell in zip(classes, row, strict=True))}</tr>\n" for row in rows
    )
    head = f"<thead><tr>{top}</tr></thead>\n" if top else ""
    return f"<table>\n{head}<tbody>\n{body}</tbody>\n</table>"


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as (path, text); lists are joined."""
    for key, value in sorted(values.items()):
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}: ")
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(in_digits, value))
        else:
            yield name, in_digits(value)


def megabytes(size: float) -> str:
    """Bytes in MB or GB (powers of ten)."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def in_digits(value: Any) -> str:
    """A value as a report shows it: six digits, powers of ten for the very small and the very large."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.2e}"
    return f"{value:.6g}"
