"""The suite's table in Markdown, from its JSON report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]
_MODE = {"lockstep": "lock-step", "realtime": "real time"}


def markdown(report: Report) -> str:
    """One table per precision and mode, the sources' below the first, paired differences, then what played it."""
    cells: Sequence[Report] = report["cells"]
    kinds = list(dict.fromkeys((cell["precision"], cell["mode"]) for cell in cells))
    parts = ["# Memory suite"]
    for index, (precision, mode) in enumerate(kinds):
        ours = [cell for cell in cells if (cell["precision"], cell["mode"]) == (precision, mode)]
        parts += [f"## Success, {precision}, {_MODE[mode]}", _rates(ours)]
        parts += _notes(ours)
        if index == 0:
            parts += _published(report["published"], _names(ours, "task"))
    parts += _differences(report["differences"])
    parts += ["## Played by", _provenance(report)]
    return "\n\n".join(parts) + "\n"


def _rates(cells: Sequence[Report]) -> str:
    tasks, policies = _names(cells, "task"), _names(cells, "policy")
    by = {(cell["policy"], cell["task"]): cell for cell in cells}
    best = {
        task: max((by[p, task]["success_rate"] or 0.0 for p in policies if _competes(p) and (p, task) in by), default=0)
        for task in tasks
    }
    rows = []
    for policy in policies:
        mine = [by.get((policy, task)) for task in tasks]
        rates = [cell["success_rate"] for cell in mine if cell and cell["success_rate"] is not None]
        mean = f"{_percent(sum(rates) / len(rates))} %" if len(rates) == len(tasks) > 1 else "–"
        shown = [_rate(cell, best[task] if _competes(policy) else None) for task, cell in zip(tasks, mine, strict=True)]
        rows.append([f"`{policy}`", *shown, mean])
    return _table(["policy", *tasks, "mean"], rows)


def _rate(cell: Report | None, best: float | None) -> str:
    if cell is None or cell["success_rate"] is None:
        return "–"
    rate, (low, high) = cell["success_rate"], cell["wilson95"]
    text = f"{_percent(rate)} %"
    return f"{f'**{text}**' if rate == best and rate > 0 else text} ({_percent(low)}–{_percent(high)})"


def _competes(policy: str) -> bool:
    """The oracles are ceilings, not contestants."""
    return not policy.startswith("oracle") and not policy.startswith("expert")


def _notes(cells: Sequence[Report]) -> list[str]:
    counts = sorted({cell["episodes"] for cell in cells if cell["episodes"]})
    if not counts:
        said = ["Nothing was played."]
    else:
        episodes = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        said = [f"{episodes} episodes per cell; Wilson's 95 % interval in brackets; best policy of a task in bold."]
    borrowed = [cell["policy"] for cell in cells if cell["borrowed_low_level"]]
    if borrowed:
        who = ", ".join(f"`{policy}`" for policy in dict.fromkeys(borrowed))
        said.append(f"{who}: the low level of another policy's bundle.")
    unfinished = sum(bool(cell["episodes"] and cell["missing"]) for cell in cells)
    if unfinished:
        said.append(f"{unfinished} cells are not complete.")
    notes = [" ".join(said)]
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        if "why" in cell:
            policies = reasons.setdefault(cell["why"], [])
            if cell["policy"] not in policies:
                policies.append(cell["policy"])
    lines = [f"- {', '.join(f'`{p}`' for p in policies)}: {why}" for why, policies in reasons.items()]
    return [*notes, "\n".join(lines)] if lines else notes


def _published(published: Report, tasks: Sequence[str]) -> list[str]:
    rows = [
        [row["name"], f"`{row['policy']}`" if row["policy"] else "", *(_decimal(row["rates"][task]) for task in tasks)]
        for row in published["rows"]
    ]
    sources = "; ".join(dict.fromkeys(row["source"] for row in published["rows"]))
    return [
        f"### For comparison, {published['note']}",
        _table(["policy", "of the kind of", *tasks], rows),
        f"Success in %. Sources: {sources}.",
    ]


def _differences(rows: Sequence[Report]) -> list[str]:
    titles = {
        "policy": "Between policies",
        "precision": "Between precisions",
        "mode": "Between real time and lock-step",
    }
    parts = []
    for what, title in titles.items():
        chosen = [row for row in rows if row["of"] == what]
        if not chosen:
            continue
        tasks = _names(chosen, "task")
        lines: dict[str, dict[str, Report]] = {}
        for row in chosen:
            lines.setdefault(_pair(row, what), {})[row["task"]] = row
        body = [[name, *(_difference(found.get(task)) for task in tasks)] for name, found in lines.items()]
        parts += [f"## {title}", _table(["difference", *tasks], body)]
    if parts:
        parts.append(
            "Points of success on the same seeds, with Tango's 95 % interval of paired rates; bold where it excludes 0."
        )
    return parts


def _pair(row: Report, what: str) -> str:
    if what == "policy":
        about = "" if (row["precision"], row["mode"]) == ("int8", "lockstep") else f", {row['precision']}, {_mode(row)}"
        return f"`{row['policy']}` − `{row['minus']}`{about}"
    if what == "precision":
        return f"`{row['policy']}`, {row['precision']} − {row['minus']}, {_mode(row)}"
    return f"`{row['policy']}`, {row['precision']}"


def _mode(row: Report) -> str:
    return _MODE[row["mode"]]


def _difference(row: Report | None) -> str:
    if row is None:
        return "–"
    text = f"{_signed(row['difference'])} ({_signed(row['low'])} to {_signed(row['high'])})"
    return f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text


def _provenance(report: Report) -> str:
    def listed(value: Any) -> str:
        return " and ".join(map(str, value)) if isinstance(value, list) else str(value)

    played = ", ".join(f"{name} {listed(value)}" for name, value in report["versions"].items())
    where = ", ".join(listed(value) for value in report["hardware"].values())
    lines = [f"{played}; {where}." if played else "Nothing was played.", ""]
    bundles = {
        (cell["bundle"], cell["bundle_sha256"]): None for cell in report["cells"] if cell["bundle"] and cell["episodes"]
    }
    lines += [f"- bundle `{name}`: `{sha256}`" for name, sha256 in bundles]
    seeds = {_seeds(cell["seeds"]): None for cell in report["cells"] if cell["episodes"]}
    lines += [f"- seeds {text}" for text in seeds]
    return "\n".join(lines)


def _seeds(runs: Sequence[Sequence[int]]) -> str:
    return ", ".join(f"{first}–{last}" if first != last else f"{first}" for first, last in runs)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _names(rows: Iterable[Report], key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in rows))


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f}"


def _decimal(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _signed(fraction: float) -> str:
    points = round(100 * fraction)
    return "0" if points == 0 else f"{points:+d}".replace("-", "−")
