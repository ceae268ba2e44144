"""What `memrt profile` prints: the budget, where the time goes, and what the high level costs the low level."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from memrt.runtime.profile.page import PERCENTILES, by_stage, comparison_cells

WIDTH = 120  # columns, where stdout is no terminal that has a width of its own
_MET = {True: Text("met", "green"), False: Text("NOT MET", "bold red"), None: Text("not measured", "dim")}


def print_report(document: Mapping[str, Any], folder: Path) -> None:
    """Tables on stdout."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(_verdict(document["verdict"]))
    for line in document["verdict"]["lines"]:
        if line["advice"]:
            console.print(f"{line['what']}: {line['advice']}", style="yellow", markup=False, highlight=False)
    for remark in document["remarks"]:
        console.print(f"note: {remark}", style="dim", markup=False, highlight=False)
    console.print(_latency(document["conditions"]))
    console.print(_comparison(document["comparison"]))
    for name, found in document["conditions"].items():
        console.print(_rates(name, found), markup=False, highlight=False)
    memory = document["memory"]
    console.print(
        f"engines ready in {document['engines_ready_s']:.2f} s; memory {memory['resident_bytes'] / 1e6:.0f} MB, "
        f"peak {memory['peak_bytes'] / 1e6:.0f} MB; load before {document['hardware']['load_before']}",
        markup=False,
        highlight=False,
    )
    console.print(f"{folder}: profile.html, profile.json, trace.json (ui.perfetto.dev)", markup=False, highlight=False)


def _verdict(verdict: Mapping[str, Any]) -> Table:
    title = "budget: met" if verdict["met"] else "budget: NOT MET"
    table = _table(title, "demand", "asked", "found", "")
    for line in verdict["lines"]:
        table.add_row(line["what"], line["asked"], line["found"], _MET[line["met"]])
    return table


def _latency(conditions: Mapping[str, Any]) -> Table:
    table = _table("latency [ms], both repetitions", "stage", "high level", *(f"#{p}" for p in ("calls", *PERCENTILES)))
    last = ""
    for stage, condition, found in by_stage(conditions):
        figures = (f"{found[percentile]:.2f}" for percentile in PERCENTILES)
        name = "" if stage == last else stage
        table.add_row(name, condition.removeprefix("high level "), str(found["count"]), *figures)
        last = stage
    return table


def _comparison(comparison: list[Mapping[str, Any]]) -> Table:
    heads = ("stage", "", "#on, 1st / 2nd", "#off, 1st / 2nd", "#on - off", "#A/A", "")
    table = _table("high level on against off [ms]", *heads)
    for found in comparison:
        if found["off"]:
            table.add_row(*comparison_cells(found))
    return table


def _rates(name: str, found: Mapping[str, Any]) -> str:
    rates, misses = found["rates_hz"], found["misses"]
    parts = [f"{what} {value:.2f}/s" for what, value in rates.items() if value]
    if misses["control_ticks"] is not None:
        parts.append(f"control ticks missed {misses['control_ticks_missed']} of {misses['control_ticks']}")
    parts.append(f"late chunks {misses['late_chunks']}, starved {misses['starved_ms']:.0f} ms")
    parts += [f"{what} {amount['p50']:.0f} (p50)" for what, amount in found["amounts"].items()]
    return f"{name}: {', '.join(parts)}"


def _table(title: str, *heads: str) -> Table:
    """A head that begins with `#` is a column of figures."""
    table = Table(title=Text(title), title_justify="left", header_style="dim", box=None, pad_edge=False)
    for head in heads:
        figures = head.startswith("#")
        table.add_column(head.lstrip("#"), justify="right" if figures else "left", no_wrap=figures or head == heads[0])
    return table
