"""The report: one JSON document and one page that stands alone, equal bytes for equal exports, nothing left out."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from memrt.export.gates import judge
from memrt.export.plan import EnginePlan, Plan, Scheme, uniform_plan
from memrt.export.report import EngineReport, ExportRecord, Proof, SchemeTotal, record_of_export, write_report
from memrt.export.report_gates import gate_rows
from memrt.export.sensitivity import LayerDamage
from memrt.runtime.engine.agreement import Agreement
from memrt.runtime.manifest import EngineRecord

VOID = {"meta", "rect", "line", "br"}


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps the text, the headings and what would be loaded from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def damage(index: int, layer: float) -> LayerDamage:
    return LayerDamage(
        weight=f"layers.{index}.down.weight", scheme="int4", product=0.1, layer=layer, elements=1000, chain=layer / 2
    )


def engine(**changes: Any) -> EngineReport:
    gate = judge("hl/decoder", "int4", Agreement(0.98, 0.2, "logits, sample 3", 8), random_weights=True)
    values: dict[str, Any] = {
        "name": "hl/decoder",
        "file": "hl/decoder.onnx",
        "scheme": "int4",
        "compute": "bf16",
        "bytes": 2_560_000_000,
        "weights": {
            "int4": SchemeTotal(tensors=144, elements=3_500_000_000, bytes=1_800_000_000),
            "bf16": SchemeTotal(tensors=1, elements=388_000_000, bytes=776_000_000),
        },
        "gates": {"int4": gate},
        "audit": {"layers": {"int4": 144, "bf16": 1}},
        "damages": tuple(damage(i, 0.01 * (i + 1)) for i in range(30)),
    }
    return EngineReport(**{**values, **changes})


def record(**changes: Any) -> ExportRecord:
    values: dict[str, Any] = {
        "name": "qwen3-vl-4b",
        "target": "rtx",
        "precision": "int4",
        "sources": {"checkpoint": "random:qwen3-vl-4b", "adapter": "<b>r16</b>", "interpolation": 0.5},
        "engines": (engine(),),
        "gates": {"hl/chain": judge("hl/chain", "int4", Agreement(0.97, 0.25, "logits, sample 1", 8))},
        "plan": uniform_plan({"hl/decoder": "int4"}, compute="bf16"),
        "verdict": {
            "verdict": "tight",
            "engines": {"hl/decoder": {"weights": 2_560_000_000, "kv": 600_000_000, "activations": 300_000_000}},
            "runtime": 600_000_000,
            "needed": 4_060_000_000,
            "available": 4_500_000_000,
            "advice": ["use a shorter context"],
        },
        "tools": {"torch": "2.13.0"},
        "random_weights": True,
    }
    return ExportRecord(**{**values, **changes})


def test_the_document_says_everything(tmp_path: Path) -> None:
    document = write_report(tmp_path, record())
    assert json.loads((tmp_path / "report.json").read_text()) == document
    assert document["label"] == "rehearsal: random weights"
    assert document["engines"][0]["damages"][0]["weight"] == "layers.0.down.weight"
    back = {key: value for key, value in document.items() if key not in ("schema_version", "label", "proofs")}
    assert msgspec.convert(back, ExportRecord) == record()
    assert [p["where"] for p in document["proofs"]] == ["CPU", "nowhere", "nowhere"]
    assert document["proofs"][-1]["how"] == "not yet proven on device"


def test_the_page_stands_alone_and_shows_it(tmp_path: Path) -> None:
    write_report(tmp_path, record())
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.outside == []
    assert "script" not in page.tags
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    for shown in (
        "rehearsal: random weights",
        "layers.29.down.weight (int4)",
        "3.00e-01 (1.50e-01)",
        "2.56 GB",
        "3500.00 M, 1.80 GB",
        "tight",
        "use a shorter context",
        "not yet proven on device",
        "<b>r16</b>",  # as text: the page escapes what it is given
        "logits, sample 3",
    ):
        assert shown in page.text, shown
    assert page.tags.count("svg") == 4  # weights by scheme, two of damage, memory


def test_a_gate_inside_a_gate_is_shown_too(tmp_path: Path) -> None:
    gate = judge("hl/decoder", "int4", Agreement(0.98, 0.2, "logits, sample 3", 8))
    inner = {"cosine": 0.99999, "relative_l2": 0.004, "threshold": {"cosine": 0.999, "relative_l2": 0.05}}
    write_report(tmp_path, record(engines=(engine(gates={"int4": {**gate, "plan": inner}}),)))
    text = Page((tmp_path / "report.html").read_text()).text
    assert "hl/decoder int4, plan" in text
    assert "92%" in text


def test_the_longest_bar_is_the_worst_weight(tmp_path: Path) -> None:
    write_report(tmp_path, record())
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    worst = re.search(r'<g><title>layers\.29.*?<rect [^>]*width="([\d.]+)"[^>]*fill="var\(--worst\)"', text)
    second = re.search(r'<g><title>layers\.28.*?<rect [^>]*width="([\d.]+)"[^>]*fill="var\(--bar\)"', text)
    assert worst is not None
    assert second is not None
    assert float(second[1]) / float(worst[1]) == pytest.approx(29 / 30, abs=1e-3)


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    shuffled = record(sources=dict(reversed(record().sources.items())))
    for folder, value in (("a", record()), ("b", shuffled)):
        write_report(tmp_path / folder, value)
    for name in ("report.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_order_of_a_plans_patterns_survives(tmp_path: Path) -> None:
    keep: dict[str, Scheme] = {"layers.9.*": "bf16", "layers.*": "int8", "head*": "fp32"}
    plan = Plan(engines={"hl/decoder": EnginePlan(scheme="int4", compute="bf16", keep=keep)})
    write_report(tmp_path, record(plan=plan))
    document = json.loads((tmp_path / "report.json").read_text())
    assert list(document["plan"]["engines"]["hl/decoder"]["keep"]) == list(keep)


def test_an_overflow_is_shown_and_not_drawn(tmp_path: Path) -> None:
    document = write_report(tmp_path, record(engines=(engine(damages=(damage(0, math.inf), damage(1, 0.1))),)))
    assert document["engines"][0]["damages"][0]["layer"] == "inf"
    assert "layers.1.down.weight" in Page((tmp_path / "report.html").read_text()).text


def test_what_was_not_measured_has_no_section(tmp_path: Path) -> None:
    bare = record(plan=None, verdict={}, engines=(engine(damages=(), audit={}),), random_weights=False)
    assert "label" not in write_report(tmp_path, bare)
    text = Page((tmp_path / "report.html").read_text()).text
    for section in ("Plan", "Memory on the device", "What hurts most", "Precision audit", "rehearsal: random weights."):
        assert section not in text
    assert "Gates" in text


def test_a_behaviour_gate_proves_behaviour(tmp_path: Path) -> None:
    lost = {"difference": 0.01, "paired95": [-0.02, 0.04], "only_reference": 1, "only_bundle": 0}
    sim = {"gate": "sim", "episodes": 100, "lost": lost, "threshold": {"most_lost": 0.10}}
    document = write_report(tmp_path, record(gates={"sim": sim}))
    assert {"simulated"} < {p["where"] for p in document["proofs"]}
    assert next(iter(gate_rows({"sim": sim})))[:4] == ("sim", "most lost", "0.04", "0.1")
    assert "60%" in next(iter(gate_rows({"sim": sim})))[4]
    own = (Proof(what="engines", where="RTX 4090", how="golden samples"),)
    assert write_report(tmp_path, record(proofs=own))["proofs"][0]["where"] == "RTX 4090"


@pytest.mark.parametrize(
    ("gate", "rows"),
    [
        (
            {"cosine": 0.998, "relative_l2": 0.2, "threshold": {"cosine": 0.99, "relative_l2": 0.1}},
            [("cosine", '<span class="good">80%</span>'), ("relative l2", '<span class="bad">-100%</span>')],
        ),
        ({"identical": 1.0, "floor": 1.0}, [("identical", '<span class="good">exact</span>')]),
        ({"identical_tokens": 0.9, "floor": 1.0}, [("identical tokens", '<span class="bad">missed</span>')]),
        ({"relative_l2": "inf", "threshold": {"relative_l2": 0.1}}, [("relative l2", '<span class="bad">none</span>')]),
    ],
)
def test_margins(gate: dict[str, Any], rows: list[tuple[str, str]]) -> None:
    assert [(row[1], row[4]) for row in gate_rows({"gate": gate})] == rows


def test_the_reference_path_reports_its_manifest(tmp_path: Path) -> None:
    gate = {
        "cosine": 0.999,
        "relative_l2": 0.02,
        "threshold": {"cosine": 0.995, "relative_l2": 0.1},
        "fp32": {"cosine": 1.0, "relative_l2": 1e-6},
        "quantisation": {
            "nodes_quantised": 4,
            "nodes_kept_fp32": ["action_out_proj/MatMul"],
            "weights_quantised": 900,
            "weights_total": 1000,
        },
        "golden": "golden/ll_step.npz",
        "bytes": 2_000_000,
    }
    engines = {"ll/step": EngineRecord(file="ll/step.onnx", precision="int8", inputs=(), outputs=(), gate=gate)}
    sources = {
        "weights": {"low_level": {"model.safetensors": "ab"}},
        "gates": {},
        "target": "cpu",
        "tools": {"onnx": "1"},
    }
    found = record_of_export("am_simple", "int8", "cpu", engines, sources)
    assert found.engines[0].weights["fp32"] == SchemeTotal(tensors=1, elements=100, bytes=400)
    assert found.engines[0].bytes == 2_000_000
    assert set(found.sources) == {"weights"}
    document = write_report(tmp_path, found)
    assert document["engines"][0]["gates"]["int8"]["relative_l2"] == 0.02
    assert "ll/step fp32 graph" in Page((tmp_path / "report.html").read_text()).text
