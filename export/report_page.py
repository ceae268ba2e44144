"""The report of an export as one page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from memrt.export.report_gates import gate_rows
from memrt.export.sensitivity import natural
from memrt.runtime.report.bars import bars, columns, legend, stack
from memrt.runtime.report.page import html_page, pairs, section
from memrt.runtime.report.tables import megabytes, table

WORST_SHOWN = 12  # weights per engine in the list of those that hurt most


def page(document: Mapping[str, Any]) -> str:
    """HTML of a report's JSON document (`memrt.export.report.as_document`)."""
    title = f"{document['name']} for {document['target']}, {document['precision']}"
    sections = [
        _head(document),
        section("What is proven, and where", _proofs(document["proofs"])),
        section("Gates", _gates(document)),
        section("Engines", _engines(document["engines"])),
        *(section("What hurts most", body) for body in _damages(document["engines"])),
        *(section("Memory on the device", _memory(document["verdict"])) for _ in [0] if document["verdict"]),
        *(section("Plan", _plan(document["plan"])) for _ in [0] if document["plan"]),
        section("What was exported", pairs(document["sources"])),
        *(section("Precision audit", body) for body in _audits(document["engines"])),
        section("Tools", pairs(document["tools"])),
    ]
    return html_page(title, sections)


def _head(document: Mapping[str, Any]) -> str:
    size = sum(engine["bytes"] for engine in document["engines"])
    head = (
        f"<h1>{escape(document['name'])}</h1>\n"
        f'<p class="soft">exported for <strong>{escape(document["target"])}</strong> in '
        f"{escape(document['precision'])}: {len(document['engines'])} engines, {megabytes(size)}</p>"
    )
    if label := document.get("label"):
        head += (
            f'\n<div class="banner"><strong>{escape(label)}.</strong> The figures below show that the export works at '
            "this size. They say nothing about a trained policy.</div>"
        )
    return head


def _proofs(proofs: Sequence[Mapping[str, str]]) -> str:
    rows = [(escape(p["what"]), _place(p["where"]), escape(p["how"])) for p in proofs]
    return table(("aspect", "proven", "how"), rows)


def _place(where: str) -> str:
    if where == "nowhere":
        return '<span class="open">not yet</span>'
    return f'<span class="good">{escape(where)}</span>'


def _gates(document: Mapping[str, Any]) -> str:
    rows = list(gate_rows(document["gates"]))
    for engine in document["engines"]:
        rows += gate_rows(_unfolded(engine))
    heads = ("gate", "figure", "#measured", "#threshold", "#margin", "worst of")
    return (
        '<p class="soft">The worst sample decides. The margin is the share of the allowed deviation that is left.</p>'
        + table(heads, rows)
    )


def _unfolded(engine: Mapping[str, Any]) -> dict[str, Any]:
    """An engine's gates by full name; a gate inside another's record gets rows of its own."""
    gates = {}
    for name, gate in engine["gates"].items():
        gates[f"{engine['name']} {name}"] = gate
        for inner, record in gate.items():
            if isinstance(record, Mapping) and "threshold" in record:
                gates[f"{engine['name']} {name}, {inner}"] = record
    return gates


def _engines(engines: Sequence[Mapping[str, Any]]) -> str:
    schemes = sorted({scheme for engine in engines for scheme in engine["weights"]})
    heads = ("engine", "file", "scheme", "computes in", "#size", *(f"#{s} weights" for s in schemes))
    rows = []
    for engine in engines:
        cells = [escape(engine[key]) for key in ("name", "file", "scheme", "compute")]
        weights = [engine["weights"].get(scheme) for scheme in schemes]
        counts = ["" if w is None else f"{w['elements'] / 1e6:.2f} M, {megabytes(w['bytes'])}" for w in weights]
        rows.append((*cells, megabytes(engine["bytes"]), *counts))
    totals = {s: float(sum(e["weights"].get(s, {"bytes": 0})["bytes"] for e in engines)) for s in schemes}
    picture = stack(totals, title="bytes of weights by scheme") + legend(schemes) if len(schemes) > 1 else ""
    return picture + table(heads, rows)


def _damages(engines: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """One body, if any engine's damage was measured."""
    parts = []
    for engine in engines:
        damages = [d for d in engine["damages"] if isinstance(d["layer"], float | int)]
        if not damages:
            continue
        ranked = sorted(damages, key=lambda d: (-d["layer"], natural(d["weight"])))[:WORST_SHOWN]
        rows = [(f"{d['weight']} ({d['scheme']})", float(d["layer"]), _damage(d)) for d in ranked]
        ordered = sorted(damages, key=lambda d: natural(d["weight"]))
        along = [(d["weight"], float(d["layer"]), _damage(d)) for d in ordered]
        worst = frozenset(d["weight"] for d in ranked)
        parts.append(
            f"<h3>{escape(engine['name'])}</h3>"
            + bars(rows, title=f"{engine['name']}: weights that hurt most")
            + f'<p class="soft">All {len(along)} weights in the engine\'s order; the {len(rows)} above are marked.</p>'
            + columns(along, title=f"{engine['name']}: damage along the engine", highlighted=worst)
        )
    if parts:
        yield (
            '<p class="soft">Relative L2 error of a layer\'s output with one weight rounded and nothing else; in '
            "brackets what it contributes at the engine's end, where that is known.</p>" + "".join(parts)
        )


def _damage(damage: Mapping[str, Any]) -> str:
    chain = damage["chain"]
    return f"{damage['layer']:.2e}" + (f" ({chain:.2e})" if isinstance(chain, float | int) else "")


def _memory(verdict: Mapping[str, Any]) -> str:
    """A bar of what is needed against what is there, and the figures. Other verdicts are shown as pairs."""
    engines = verdict.get("engines")
    if not isinstance(engines, Mapping) or not {"needed", "available", "verdict"} <= verdict.keys():
        return pairs(verdict)
    kinds = sorted({kind for sizes in engines.values() for kind in sizes})
    parts = {kind: float(sum(sizes.get(kind, 0) for sizes in engines.values())) for kind in kinds}
    parts["runtime"] = float(verdict.get("runtime", 0))
    colour = {"fits": "good", "tight": "open"}.get(str(verdict["verdict"]), "bad")
    rows = [
        (escape(name), *(megabytes(sizes.get(k, 0)) for k in kinds), megabytes(sum(sizes.values())))
        for name, sizes in sorted(engines.items())
    ]
    advice = "".join(f"<p>{escape(str(line))}</p>" for line in verdict.get("advice", ()))
    return (
        f'<p><strong class="{colour}">{escape(str(verdict["verdict"]))}</strong>: '
        f"{megabytes(verdict['needed'])} needed, {megabytes(verdict['available'])} available (the mark).</p>"
        + stack(parts, title="memory needed on the device", limit=float(verdict["available"]))
        + legend(list(parts))
        + table(("engine", *(f"#{k}" for k in kinds), "#sum"), rows)
        + advice
    )


def _plan(plan: Mapping[str, Any]) -> str:
    rows = []
    for name, engine in sorted(plan["engines"].items()):
        kept = "<br>".join(f"<code>{escape(p)}</code> {escape(s)}" for p, s in engine["keep"].items()) or "nothing"
        rows.append((escape(name), escape(engine["scheme"]), escape(engine["compute"]), str(engine["block"]), kept))
    return table(("engine", "scheme", "computes in", "#block", "kept apart"), rows)


def _audits(engines: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """One body, if any engine was audited."""
    parts = [f"<h3>{escape(e['name'])}</h3>{pairs(e['audit'])}" for e in engines if e["audit"]]
    if parts:
        yield "".join(parts)
