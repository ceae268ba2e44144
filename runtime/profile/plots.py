"""The pictures of a profile, as inline SVG: latency by percentile, and when which stage ran."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from memrt.runtime.report.bars import open_svg, shade

WIDTH, HEIGHT = 470, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 24, 22  # margins, pixels
SHOWN = ((0.0, "0"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99"))
LANE, LANE_LABEL, TIMELINE_WIDTH = 18, 230, 980


@dataclass(frozen=True, slots=True)
class Curve:
    """One window's latencies of one stage: [lowest value ms, count] ascending, and the largest [ms]."""

    name: str
    shade: int
    dashed: bool
    histogram: Sequence[Sequence[float]]
    largest: float


def percentile_plot(stage: str, curves: Sequence[Curve]) -> str:
    """Latency over percentile; every nine is as wide as the one before, so that the tail can be seen."""
    most = max(sum(count for _, count in curve.histogram) for curve in curves)
    x_end = max(1.0, math.log10(most))
    y_end = _ceiling(max(curve.largest for curve in curves))
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(fraction: float) -> float:
        return LEFT + across * min(-math.log10(max(1.0 - fraction, 1e-12)), x_end) / x_end

    def y(value: float) -> float:
        return TOP + up * (1.0 - value / y_end)

    parts = [
        open_svg(WIDTH, HEIGHT, f"{stage}: latency by percentile"),
        f'<text x="{LEFT}" y="14">{escape(stage)} [ms]</text>',
    ]
    for value in (0.0, y_end / 2, y_end):
        parts.append(_line(LEFT, y(value), WIDTH - RIGHT, y(value)))
        parts.append(f'<text class="soft" x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for fraction, name in SHOWN:
        if -math.log10(1.0 - fraction) <= x_end:
            parts.append(_line(x(fraction), TOP, x(fraction), HEIGHT - BOTTOM))
            parts.append(
                f'<text class="soft" x="{x(fraction):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{name}</text>'
            )
    for curve in curves:
        total = sum(count for _, count in curve.histogram)
        seen, points = 0.0, []
        for low, count in curve.histogram:
            points += [(x(seen / total), y(low)), (x((seen + count) / total), y(low))]
            seen += count
        points.append((points[-1][0], y(curve.largest)))
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        dashes = ' stroke-dasharray="4 3"' if curve.dashed else ""
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{shade(curve.shade)}" stroke-width="1.6"{dashes}>'
            f"<title>{escape(curve.name)}</title></polyline>"
        )
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True, slots=True)
class Lane:
    """One row of a timeline: (what, start ms, duration ms)."""

    name: str
    spans: Sequence[tuple[str, float, float]]


def timeline(lanes: Sequence[Lane], stages: Sequence[str], seconds: float) -> str:
    """When which stage ran, the lanes one above the other; a colour for each of `stages`."""
    height, across = len(lanes) * LANE + 26, TIMELINE_WIDTH - LANE_LABEL - 10
    parts = [open_svg(TIMELINE_WIDTH, height, "timeline of the calls")]

    def x(t_ms: float) -> float:
        return LANE_LABEL + across * min(t_ms / 1000 / seconds, 1.0)

    for second in range(math.floor(seconds) + 1):
        parts.append(_line(x(second * 1000), 0, x(second * 1000), height - 20))
        parts.append(
            f'<text class="soft" x="{x(second * 1000):.1f}" y="{height - 6}" text-anchor="middle">{second} s</text>'
        )
    for row, lane in enumerate(lanes):
        top = row * LANE
        parts.append(f'<text x="{LANE_LABEL - 8}" y="{top + 13}" text-anchor="end">{escape(lane.name)}</text>')
        for name, start_ms, duration_ms in lane.spans:
            left, right = x(start_ms), x(start_ms + duration_ms)
            fill = shade(stages.index(name)) if name in stages else "var(--line)"
            parts.append(
                f'<rect x="{left:.2f}" y="{top + 2}" width="{max(right - left, 0.6):.2f}" height="{LANE - 4}" '
                f'fill="{fill}"><title>{escape(f"{lane.name}, {name}: {duration_ms:.2f} ms")}</title></rect>'
            )
    return "".join([*parts, "</svg>"])


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="var(--line)"/>'


def _ceiling(value: float) -> float:
    """The next of 1, 2, 4, 5 and 10 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 10, 20) if step * power >= value)
