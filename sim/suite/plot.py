"""The suite's rates as one SVG, a panel per task: bars with Wilson's interval, and what the sources published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from memrt.runtime.report.bars import open_svg
from memrt.runtime.report.page import STYLE

Report = Mapping[str, Any]

COLUMNS = 2  # panels beside each other
ROW, BAR = 18, 10  # pixels per policy, and of its bar
LABEL, TRACK, VALUE = 150, 240, 56  # pixels: names, bars, figures
HEAD, AXIS, GAP = 26, 20, 18
MARK = 4.5  # half a diamond's diagonal, pixels
PANEL = LABEL + TRACK + VALUE
TICKS = (0.0, 0.5, 1.0)


def suite_svg(report: Report) -> str:
    """The picture of the report's first precision and mode; a document of its own that needs nothing beside it."""
    first = report["cells"][0]
    cells = [c for c in report["cells"] if (c["precision"], c["mode"]) == (first["precision"], first["mode"])]
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    policies = list(dict.fromkeys(cell["policy"] for cell in cells))
    tall = HEAD + ROW * len(policies) + AXIS
    rows = -(-len(tasks) // COLUMNS)
    columns = min(COLUMNS, len(tasks))
    width, height = columns * (PANEL + GAP) + GAP, rows * (tall + GAP) + GAP + 2 * ROW
    opening = open_svg(width, height, "success rates of the memory suite").replace(
        "<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1
    )
    parts = [
        opening,
        f"<style>{STYLE.read_text(encoding='utf-8')}</style>",
        f'<rect width="{width}" height="{height}" fill="var(--page)"/>',
    ]
    published = {row["policy"]: row["rates"] for row in report["published"]["rows"] if row["policy"]}
    by = {(cell["task"], cell["policy"]): cell for cell in cells}
    for index, task in enumerate(tasks):
        x = GAP + index % COLUMNS * (PANEL + GAP)
        y = GAP + index // COLUMNS * (tall + GAP)
        mine = [(policy, by.get((task, policy)), published.get(policy, {}).get(task)) for policy in policies]
        parts.append(f'<g transform="translate({x},{y})">{_panel(task, mine)}</g>')
    parts += [_legend(height - 2 * ROW, report, first), "</svg>\n"]
    return "\n".join(parts)


def _panel(task: str, rows: Sequence[tuple[str, Report | None, float | None]]) -> str:
    bottom = HEAD + ROW * len(rows)
    parts = [f'<text x="{LABEL}" y="14" style="font-weight:600">{escape(task)}</text>']
    for tick in TICKS:
        x = LABEL + TRACK * tick
        parts.append(f'<line x1="{x}" x2="{x}" y1="{HEAD - 4}" y2="{bottom}" stroke="var(--line)"/>')
        parts.append(f'<text class="soft" x="{x}" y="{bottom + 14}" text-anchor="middle">{100 * tick:.0f} %</text>')
    for index, (policy, cell, other) in enumerate(rows):
        top = HEAD + index * ROW
        parts.append(f'<text x="{LABEL - 8}" y="{top + 13}" text-anchor="end">{escape(policy)}</text>')
        parts += _bar(cell, top)
        if other is not None:
            parts.append(_diamond(LABEL + TRACK * other, top + ROW / 2, f"published: {100 * other:.1f} %"))
    return "\n".join(parts)


def _bar(cell: Report | None, top: float) -> list[str]:
    middle, figure_x = top + ROW / 2, LABEL + TRACK + 10
    if cell is None or cell["success_rate"] is None:
        return [f'<text class="soft" x="{figure_x}" y="{top + 13}">–</text>']
    rate, (low, high) = cell["success_rate"], cell["wilson95"]
    told = f"{cell['policy']}: {100 * rate:.0f} % of {cell['episodes']}, 95 %: {100 * low:.0f}–{100 * high:.0f} %"
    left, right = LABEL + TRACK * low, LABEL + TRACK * high
    return [
        f'<g><title>{escape(told)}</title><rect x="{LABEL}" y="{top + (ROW - BAR) / 2}" '
        f'width="{max(1.0, TRACK * rate):.1f}" height="{BAR}" rx="2" fill="var(--bar)"/>'
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}" stroke="var(--ink)" stroke-width="1.5"/>'
        f"</g>",
        f'<text class="soft" x="{figure_x}" y="{top + 13}">{100 * rate:.0f} %</text>',
    ]


def _diamond(x: float, y: float, told: str) -> str:
    points = f"{x:.1f},{y - MARK} {x + MARK:.1f},{y} {x:.1f},{y + MARK} {x - MARK:.1f},{y}"
    return (
        f'<polygon points="{points}" fill="var(--page)" stroke="var(--s1)" stroke-width="2">'
        f"<title>{escape(told)}</title></polygon>"
    )


def _legend(y: float, report: Report, kind: Report) -> str:
    mode = {"lockstep": "lock-step", "realtime": "real time"}[kind["mode"]]
    ours = f"memrt, {kind['precision']}, {mode}, with Wilson’s 95 % interval"
    return (
        f'<rect x="{GAP}" y="{y}" width="24" height="{BAR}" rx="2" fill="var(--bar)"/>'
        f'<text x="{GAP + 32}" y="{y + 10}">{escape(ours)}</text>'
        + _diamond(GAP + 12, y + ROW + 5, "published")
        + f'<text x="{GAP + 32}" y="{y + ROW + 10}">{escape(report["published"]["note"])}</text>'
    )
