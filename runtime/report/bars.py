"""Bars for a report, as inline SVG: no script, colours from the page's own light and dark style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

ROW = 20  # pixels per bar
LABEL, TRACK, VALUE = 300, 500, 180  # pixels: names, bars, figures
SHADES = 5  # `--s0` to `--s4` of the style


def bars(rows: Sequence[tuple[str, float, str]], *, title: str, worst: int = 1) -> str:
    """Horizontal bars of (name, value >= 0, figure); the first `worst` are highlighted, the longest fills the track."""
    longest = max((value for _, value, _ in rows), default=0.0) or 1.0
    height, width = ROW * len(rows) + 4, LABEL + TRACK + VALUE
    lines = [open_svg(width, height, title)]
    for index, (name, value, figure) in enumerate(rows):
        top = index * ROW + 2
        colour = "var(--worst)" if index < worst else "var(--bar)"
        length = max(1.0, TRACK * min(value / longest, 1.0))
        lines.append(
            f"<g><title>{escape(f'{name}: {figure}')}</title>"
            f'<text x="{LABEL - 8}" y="{top + 14}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{LABEL}" y="{top + 3}" width="{length:.1f}" height="{ROW - 6}" rx="2" fill="{colour}"/>'
            f'<text class="soft" x="{LABEL + length + 6:.1f}" y="{top + 14}">{escape(figure)}</text></g>'
        )
    return "".join([*lines, "</svg>"])


def columns(rows: Sequence[tuple[str, float, str]], *, title: str, highlighted: frozenset[str] = frozenset()) -> str:
    """One column per (name, value >= 0, figure) in the given order: where along the engine the damage is done."""
    longest = max((value for _, value, _ in rows), default=0.0) or 1.0
    width, height = LABEL + TRACK + VALUE, 110
    step = width / max(len(rows), 1)
    lines = [open_svg(width, height, title)]
    for index, (name, value, figure) in enumerate(rows):
        tall = max(1.0, (height - 6) * min(value / longest, 1.0))
        colour = "var(--worst)" if name in highlighted else "var(--bar)"
        lines.append(
            f'<rect x="{index * step:.2f}" y="{height - tall:.1f}" width="{max(step - 1, 0.6):.2f}" '
            f'height="{tall:.1f}" fill="{colour}"><title>{escape(f"{name}: {figure}")}</title></rect>'
        )
    return "".join([*lines, "</svg>"])


def stack(parts: Mapping[str, float], *, title: str, full: float | None = None, limit: float | None = None) -> str:
    """One bar made of parts, against `full` (default: their sum), with a mark at `limit`."""
    width, height = LABEL + TRACK + VALUE, 30
    full = max(full or 0.0, limit or 0.0, sum(parts.values())) or 1.0
    lines = [open_svg(width, height, title), f'<rect width="{width}" height="18" y="6" rx="3" fill="var(--line)"/>']
    left = 0.0
    for index, (name, value) in enumerate(parts.items()):
        length = width * value / full
        lines.append(
            f'<rect x="{left:.2f}" y="6" width="{length:.2f}" height="18" fill="{shade(index)}">'
            f"<title>{escape(f'{name}: {value / full:.1%}')}</title></rect>"
        )
        left += length
    if limit is not None:
        x = width * limit / full
        lines.append(f'<line x1="{x:.2f}" x2="{x:.2f}" y1="0" y2="{height}" stroke="var(--ink)" stroke-width="2"/>')
    return "".join([*lines, "</svg>"])


def legend(names: Sequence[str]) -> str:
    """The colours of `stack`, by name."""
    keys = (f'<span class="key" style="background:{shade(i)}"></span>{escape(n)}' for i, n in enumerate(names))
    return f'<p class="soft">{"".join(keys)}</p>'


def shade(index: int) -> str:
    """The colour of the part with this index."""
    return f"var(--s{index % SHADES})"


def open_svg(width: int, height: int, title: str) -> str:
    """The opening tag of a picture that shrinks with its page."""
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title, quote=True)}">'
    )
