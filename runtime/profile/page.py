"""A profile as one page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from memrt.runtime.loop.stages import STAGES
from memrt.runtime.profile.document import TIMELINE_S
from memrt.runtime.profile.plots import Curve, Lane, percentile_plot, timeline
from memrt.runtime.profile.protocol import OFF, ON
from memrt.runtime.report.bars import legend
from memrt.runtime.report.page import html_page, pairs, section
from memrt.runtime.report.tables import megabytes, table

PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")


def page(document: Mapping[str, Any]) -> str:
    """HTML of a profile's JSON document (`memrt.runtime.profile.document`)."""
    title = f"Profile of {document['policy']} on {document['hardware']['cpu']}"
    return html_page(
        title,
        [
            _head(document),
            *(f'<div class="banner">{escape(remark)}.</div>' for remark in document["remarks"]),
            section("Budget", _verdict(document["verdict"])),
            section("Latency", _latency(document)),
            section("High level on against off", _comparison(document["comparison"])),
            section("Distributions", _distributions(document["windows"])),
            section("Timeline", _timeline(document["windows"])),
            section("Rates, misses, amounts", _rates(document["conditions"])),
            section("Windows", _windows(document["windows"])),
            section("Protocol", pairs(document["protocol"])),
            section("Computer", pairs({**document["hardware"], "versions": document["versions"]})),
        ],
    )


def _head(document: Mapping[str, Any]) -> str:
    return (
        f"<h1>{escape(document['policy'])}</h1>\n"
        f'<p class="soft">{escape(document["precision"])}, robot <strong>{escape(document["robot"])}</strong>, '
        f"measured on {escape(document['hardware']['cpu'])} ({escape(document['measured_on'])}); engines ready in "
        f"{document['engines_ready_s']:.2f} s, memory {megabytes(document['memory']['resident_bytes'])}, "
        f"peak {megabytes(document['memory']['peak_bytes'])}</p>"
    )


def _verdict(verdict: Mapping[str, Any]) -> str:
    words = {True: '<span class="good">met</span>', False: '<span class="bad">not met</span>', None: "not measured"}
    rows = [
        (*(escape(line[key]) for key in ("what", "asked", "found")), words[line["met"]], escape(line["advice"]))
        for line in verdict["lines"]
    ]
    said = "What the policy's rates ask for is met." if verdict["met"] else "This computer does not keep the budget."
    return f"<p><strong>{said}</strong></p>" + table(("demand", "asked", "found", "", "what to try"), rows)


def _latency(document: Mapping[str, Any]) -> str:
    rows = [
        (escape(stage), escape(condition), str(found["count"]), *(f"{found[p]:.2f}" for p in PERCENTILES))
        for stage, condition, found in by_stage(document["conditions"])
    ]
    note = (
        '<p class="soft">Milliseconds, both repetitions together. With fewer than 1000 calls p99.9 is close to max.</p>'
    )
    return note + table(("stage", "condition", "#calls", *(f"#{p}" for p in PERCENTILES)), rows)


def by_stage(conditions: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, float]]]:
    """(stage, condition, percentiles), each stage's conditions side by side."""
    for stage in sorted({stage for condition in conditions.values() for stage in condition["stages"]}):
        for name, condition in conditions.items():
            if stage in condition["stages"]:
                yield stage, name, condition["stages"][stage]


def comparison_cells(found: Mapping[str, Any]) -> tuple[str, ...]:
    """(stage, percentile, on, off, difference, noise, verdict) in words; two repetitions as `a / b`."""
    judged = {True: "real", False: "within the noise", None: ""}[found["real"]]
    ratio = f" ({found['ratio']:.2f}x)" if found["ratio"] is not None else ""
    return (
        found["stage"],
        found["percentile"],
        " / ".join(f"{value:.2f}" for value in found["on"]),
        " / ".join(f"{value:.2f}" for value in found["off"]),
        "" if found["difference"] is None else f"{found['difference']:+.2f}{ratio}",
        "" if found["noise"] is None else f"{found['noise']:.2f}",
        judged,
    )


def _comparison(comparison: Sequence[Mapping[str, Any]]) -> str:
    rows = [tuple(escape(cell) for cell in comparison_cells(found)) for found in comparison]
    heads = ("stage", "", "#on, 1st / 2nd", "#off, 1st / 2nd", "#on - off", "#A/A", "")
    return (
        '<p class="soft">Milliseconds. Each condition was measured twice, in alternating order. A/A is how far a '
        "condition is from itself: a difference between the conditions counts as real only if it is larger.</p>"
        + table(heads, rows)
    )


def _distributions(windows: Sequence[Mapping[str, Any]]) -> str:
    stages = sorted({stage for window in windows for stage in window["stages"]})
    plots = []
    for stage in stages:
        curves = [
            Curve(
                f"{window['condition']}, repetition {window['repetition']}",
                (ON, OFF).index(window["condition"]),
                window["repetition"] > 1,
                window["histograms_ms"][stage],
                window["stages"][stage]["max"],
            )
            for window in windows
            if stage in window["stages"]
        ]
        plots.append(percentile_plot(stage, curves))
    note = '<p class="soft">Dashed: the second repetition. What lies between a line and its dashed twin is noise.</p>'
    return legend([ON, OFF]) + note + f'<div class="plots">{"".join(plots)}</div>'


def _timeline(windows: Sequence[Mapping[str, Any]]) -> str:
    lanes = []
    for window in windows[:2]:
        for track in sorted({row[0] for row in window["timeline"]}):
            spans = [(name, start, length) for of, name, start, length in window["timeline"] if of == track]
            lanes.append(Lane(f"{window['condition']}: {track}", spans))
    used = [stage for stage in STAGES if any(name == stage for lane in lanes for name, _, _ in lane.spans)]
    note = (
        f'<p class="soft">The first {TIMELINE_S:g} s of one window of each. All is in trace.json: ui.perfetto.dev.</p>'
    )
    return legend(used) + note + timeline(lanes, used, TIMELINE_S)


def _rates(conditions: Mapping[str, Any]) -> str:
    return "".join(
        f"<h3>{escape(name)}</h3>"
        + pairs({"rates per s": found["rates_hz"], "misses": found["misses"], "amounts per call": found["amounts"]})
        for name, found in conditions.items()
    )


def _windows(windows: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for window in windows:
        ends = "; ".join(f"seed {e['seed']}: {e['ended']} ({e['seconds']:.1f} s)" for e in window["episodes"])
        lateness = window["control_lateness_ms"] or {}
        late = ", ".join(f"{name} {value:.3f}" for name, value in lateness.items())
        rows.append(
            (
                f"{escape(window['condition'])}, {window['repetition']}",
                f"{window['seconds']:.1f}",
                escape(ends),
                escape(late),
                megabytes(window["memory"]["resident_bytes"]),
                escape(", ".join(f"{what} {megabytes(held)}" for what, held in window["memory"]["held_bytes"].items())),
            )
        )
    return table(
        ("window", "#seconds", "episodes", "control lateness [ms]", "#memory", "of it kept between calls"), rows
    )
