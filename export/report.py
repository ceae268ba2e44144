"""The report of an export: `report.json` for programs, `report.html` for people; both travel in the bundle.

What is measured in seconds or in the exporter's own memory stays out: the same input must give the same bytes. Those
figures are printed by the command.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from memrt.export.gate_thresholds import REHEARSAL
from memrt.export.plan import Plan
from memrt.export.report_page import page
from memrt.export.sensitivity import LayerDamage
from memrt.runtime.manifest import NOT_YET_PROVEN, EngineRecord

JSON_FILE, HTML_FILE = "report.json", "report.html"
SCHEMA_VERSION = 1


class SchemeTotal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The weights of one engine that are stored in one scheme; `bytes` as stored."""

    tensors: int
    elements: int
    bytes: int


class EngineReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine. `gates`: what each measured, by name, with its `threshold` inside; `audit`: what the precision audit
    counted; `damages`: what rounding each weight costs, where it was measured.
    """

    name: str
    file: str
    scheme: str
    compute: str
    bytes: int
    weights: dict[str, SchemeTotal] = {}
    gates: dict[str, dict[str, Any]] = {}
    audit: dict[str, Any] = {}
    damages: tuple[LayerDamage, ...] = ()


class Proof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one aspect, and where it was found out: `where` is `CPU`, `simulated`, a device, or nowhere."""

    what: str
    where: str
    how: str


class ExportRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a report shows, as plain data.

    `sources`: checkpoint, adapter, interpolation, calibration set, with their hashes. `gates`: of chains, answers and
    behaviour. `verdict`: `MemoryVerdict.to_dict()` of the target. `tools`: versions. All values must be plain JSON and
    independent of the time and the place of the export.
    """

    name: str
    target: str
    precision: str
    sources: dict[str, Any]
    engines: tuple[EngineReport, ...]
    gates: dict[str, dict[str, Any]] = {}
    plan: Plan | None = None
    verdict: dict[str, Any] = {}
    proofs: tuple[Proof, ...] = ()
    tools: dict[str, str] = {}
    random_weights: bool = False


def write_report(folder: str | Path, record: ExportRecord) -> dict[str, Any]:
    """Write `report.json` and `report.html` to `folder`; returns the JSON document. Equal records give equal bytes."""
    root, document = Path(folder), as_document(record)
    root.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    (root / JSON_FILE).write_text(text, encoding="ascii")
    (root / HTML_FILE).write_text(page(document), encoding="utf-8")
    return document


def as_document(record: ExportRecord) -> dict[str, Any]:
    """The record as plain JSON values; a figure that is not finite becomes its name, which JSON can hold."""
    document: dict[str, Any] = _plain(msgspec.to_builtins(record))
    proofs = document["proofs"] or [msgspec.to_builtins(proof) for proof in usual_proofs(record)]
    label = {"label": REHEARSAL} if record.random_weights else {}
    return {"schema_version": SCHEMA_VERSION, **document, "proofs": proofs, **label}


def usual_proofs(record: ExportRecord) -> tuple[Proof, ...]:
    """What an export on a workstation without the target's device knows, judged by the gates that were run."""
    weights = "on random weights, a rehearsal" if record.random_weights else "on recorded inputs"
    found = [Proof(what="numbers of every engine", where="CPU", how=f"ONNX Runtime against torch, {weights}")]
    if "sim" in record.gates:
        found.append(Proof(what="success in closed loop", where="simulated", how="matched seeds, paired with fp32"))
    if "episodes" in record.gates:
        found.append(Proof(what="subgoals and actions", where="CPU", how="recorded episodes, beside the fp32 bundle"))
    if not {"sim", "episodes"} & record.gates.keys():
        found.append(Proof(what="behaviour", where="nowhere", how="no --gate sim or --gate episodes was run"))
    found.append(Proof(what="engines on the robot's computer", where="nowhere", how=NOT_YET_PROVEN))
    return tuple(found)


def record_of_export(
    name: str,
    precision: str,
    target: str,
    engines: Mapping[str, EngineRecord],
    sources: Mapping[str, Any],
) -> ExportRecord:
    """The record of an export of the reference path, from what its bundle's manifest says."""
    return ExportRecord(
        name=name,
        target=target,
        precision=precision,
        sources={key: value for key, value in sources.items() if key not in ("gates", "tools", "target")},
        engines=tuple(_engine_report(engine, record) for engine, record in sorted(engines.items())),
        gates=dict(sources.get("gates", {})),
        tools=dict(sources.get("tools", {})),
    )


def _engine_report(name: str, record: EngineRecord) -> EngineReport:
    gate = dict(record.gate)
    size, audit, fp32 = gate.pop("bytes", 0), gate.pop("quantisation", {}), gate.pop("fp32", None)
    gate.pop("golden", None)
    gates = {record.precision: gate} | ({} if fp32 is None else {"fp32 graph": fp32})
    return EngineReport(
        name=name,
        file=record.file,
        scheme=record.precision,
        compute="fp32",
        bytes=size,
        weights=_weights(audit) if audit else {},
        gates=gates,
        audit=audit,
    )


def _weights(audit: Mapping[str, Any]) -> dict[str, SchemeTotal]:
    """Weights of matrix products by type, from a `QuantisationReport`; scales are not counted there."""
    quantised, kept = audit["weights_quantised"], audit["weights_total"] - audit["weights_quantised"]
    totals = {"int8": SchemeTotal(tensors=audit["nodes_quantised"], elements=quantised, bytes=quantised)}
    if kept:
        totals["fp32"] = SchemeTotal(tensors=len(audit["nodes_kept_fp32"]), elements=kept, bytes=4 * kept)
    return totals


def _plain(value: Any, key: str = "") -> Any:
    """Keys sorted, but for a plan's `keep`: there the first pattern that matches decides."""
    if isinstance(value, dict):
        names = list(value) if key == "keep" else sorted(value)
        return {str(name): _plain(value[name], str(name)) for name in names}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value
