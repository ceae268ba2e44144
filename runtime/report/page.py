"""The frame of a report's page: title, style, sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from memrt.runtime.report.tables import flat, table

STYLE = Path(__file__).with_name("style.css")


def html_page(title: str, sections: Sequence[str]) -> str:
    """A whole HTML document; `sections` are HTML already."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def section(title: str, body: str) -> str:
    """A heading and a card with `body`, which is HTML already."""
    return f'<section>\n<h2>{escape(title)}</h2>\n<div class="card">{body}</div>\n</section>'


def pairs(values: Mapping[str, Any]) -> str:
    """Nested values, one row for each."""
    rows = [(escape(name), escape(value)) for name, value in flat(values)]
    return table(("", "%"), rows) if rows else '<p class="soft">nothing recorded</p>'
