"""Checkpoints of real size to a bundle: stream, quantise, prove, build, report. One engine's layer in memory at a time.

The order: everything that can be refused is refused first (checkpoints, plan, disk, the device's memory); then each
engine is streamed and proven by ONNX Runtime; then TensorRT engines are built, or recipes written; then the bundle gets
its name, in one step. An export that was interrupted goes on behind its last finished engine.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from memrt.calib.calibration_set import CalibrationSet, load_calibration_set, reference_set
from memrt.export.checkpoints.disk import check_disk
from memrt.export.chosen_plan import chosen_plan
from memrt.export.code_digest import code_digest
from memrt.export.cpu_record import cpu_record, with_reduced_range
from memrt.export.device_build import build_for_device
from memrt.export.gates import golden_file, write_golden
from memrt.export.halves import Halves, open_halves
from memrt.export.memory_verdict import EngineSize, MemoryVerdict, judge, require_fit
from memrt.export.pipeline import exportable
from memrt.export.plan import Plan, Scheme, plan_bytes
from memrt.export.report import EngineReport, ExportRecord, SchemeTotal, write_report
from memrt.export.reproducible import graph_bytes
from memrt.export.sensitivity import calibrate
from memrt.export.streaming.engine import BuildSettings, give_back_memory
from memrt.export.streaming.high_level import HighLevelStream
from memrt.export.streaming.low_level import LowLevelStream
from memrt.export.streaming.made import Made
from memrt.export.streaming.resume import WorkFolder
from memrt.export.target import Target, load_target
from memrt.export.tensorrt_build import scheme_bytes
from memrt.runtime.bundle import Bundle, write_bundle
from memrt.runtime.config import PolicyConfig, load_policy, policy_to_dict
from memrt.runtime.manifest import EngineRecord

Progress = Callable[[str], None]
TOOLS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy")
REAL_SIZE = "robomme_am_grounded"
SAMPLES = 4  # recorded moments per role: calibration and gate each stream this many through every layer
SMOOTHING = 0.5  # SmoothQuant's alpha for static activation ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be exported. Paths may be folders or `random:<name>`; None leaves the policy's own.

    Without a `policy` the packaged one of real size is taken, with the image size of the `checkpoint`. `adapter`,
    `pretrained`, `fine_tuned_share` belong to a VLM (MemER's interpolation), `norm_stats` and `tokenizer` to a π0.5
    that does not bring its own. `precision` stores all products of every engine in one scheme instead of the target's
    plan, `plan` is a file with another plan. `memory_gib` is the device's memory where the target has variants.
    `step_rtc` adds π0.5's step for chunks that begin with decided actions (weights trained with real-time chunking).
    `reduced_range` keeps static int8 weights in 7 bits.
    """

    out: Path
    policy: str | Path | None = None
    target: str | Path = "cpu"
    checkpoint: str | None = None
    adapter: str | None = None
    pretrained: str | None = None
    fine_tuned_share: float | None = None
    norm_stats: Path | None = None
    tokenizer: Path | None = None
    weights_root: Path | None = None
    precision: Scheme | None = None
    plan: Path | None = None
    calibration: Path | None = None
    samples: int = SAMPLES
    memory_gib: float | None = None
    threads: int = 1
    step_rtc: bool = False
    reduced_range: bool = False


@dataclass(slots=True)
class _Export:
    """One run; the stages in order."""

    request: Request
    progress: Progress
    policy: PolicyConfig = field(init=False)
    target: Target = field(init=False)
    halves: Halves = field(init=False)
    plan: Plan = field(init=False)
    recorded: CalibrationSet = field(init=False)

    def __post_init__(self) -> None:
        request = self.request
        self.policy = exportable(load_policy(request.policy or REAL_SIZE))
        self.target = load_target(request.target)
        if request.reduced_range:
            self.target = with_reduced_range(self.target)
        self.halves = open_halves(request, self.policy)
        if request.policy is None and self.halves.low_level is not None:
            size = self.halves.low_level.config.vision.image_size
            low_level = msgspec.structs.replace(self.policy.low_level, image_size=size)
            self.policy = msgspec.structs.replace(self.policy, low_level=low_level)
        self.plan = chosen_plan(self.target, self.halves.engines, request.precision, request.plan)
        self.recorded = load_calibration_set(request.calibration or reference_set())

    def run(self) -> Bundle:
        """Raises MemrtError for everything that is refused, before the output appears."""
        import torch

        torch.set_num_threads(self.request.threads)
        out = self.request.out
        work = WorkFolder(out, self._inputs())
        if work.resumed:
            self.progress("going on with an interrupted export")
        try:
            streams = self._streams(work)
            sizes = [size for stream in streams for size in stream.sizes()]
            tables = sum(stream.table_bytes for stream in streams)
            verdict = self._verdict(sizes, tables)
            check_disk(out.parent, _disk_bytes(sizes, tables))
            made: dict[str, Made] = {}
            gates: dict[str, Any] = {}
            while streams:  # a half that is done takes its tables and samples with it: TensorRT needs the memory
                stream = streams.pop(0)
                made |= {name: engine.golden_only() for name, engine in stream.run().items()}
                gates |= stream.gates
                del stream
                give_back_memory()
            bundle = self._finish(work, made, gates, verdict)
        except BaseException:
            work.release()
            raise
        work.remove()
        return bundle

    def _streams(self, work: WorkFolder) -> list[HighLevelStream | LowLevelStream]:
        settings = BuildSettings(
            plan=self.plan,
            tensorrt=self.target.backend != "onnxruntime",
            keep_fp32=self.target.fp32,
            smoothing=SMOOTHING,
            reduce_range=self.target.quantisation is not None and self.target.quantisation.reduce_range,
            random_weights=self.halves.random_weights,
            plan_file=self.request.out.with_name(f"{self.request.out.name}.plan.yaml"),
            threads=self.request.threads,
            step_rtc=self.request.step_rtc,
        )
        streams: list[HighLevelStream | LowLevelStream] = []
        halves, recorded = self.halves, self.recorded.thinned(self.request.samples)
        common = (recorded, work, settings, self.progress)
        if halves.low_level is not None:  # first: it is refused more often, and sooner
            streams.append(LowLevelStream(self.policy, halves.low_level, *common))
        if halves.high_level is not None:
            streams.append(HighLevelStream(self.policy, halves.high_level, halves.resize, *common))
        return streams

    def _verdict(self, sizes: Sequence[EngineSize], tables: int) -> MemoryVerdict | None:
        """Whether the engines fit the device together; None where the target states no memory."""
        memory = self.target.memory
        if memory is None:
            return None
        if self.request.memory_gib is not None:
            memory = memory.with_size(self.request.memory_gib)
        verdict = judge(sizes, memory, host_tables=tables)
        self.progress(verdict.table())
        require_fit(verdict)
        return verdict

    def _finish(
        self, work: WorkFolder, made: dict[str, Made], gates: dict[str, Any], verdict: MemoryVerdict | None
    ) -> Bundle:
        staging, records, reports = work.staging, {}, []
        for name, engine in made.items():
            plan = self.plan.engine(name)
            golden = golden_file(name)
            write_golden(staging / golden, engine.feeds, engine.expected[: len(engine.feeds)])
            device = build_for_device(name, engine, plan, self.target, work, self.progress)
            path = device.file if device is not None else engine.graph
            record = {**engine.record, "golden": golden, "bytes": graph_bytes(path)}
            if device is not None:
                record |= {"build": device.record}
            records[name] = EngineRecord(
                file=path.relative_to(staging).as_posix(),
                precision=plan.scheme,
                inputs=engine.inputs,
                outputs=engine.outputs,
                gate=record,
            )
            reports.append(self._report(name, engine, records[name]))
        _drop_proofs(made, records, staging)
        (staging / "plan.yaml").write_bytes(plan_bytes(self.plan))
        sources = self._sources(gates)
        write_report(
            staging,
            ExportRecord(
                name=self.policy.name,
                target=self.target.name,
                precision=self._precision(),
                sources={key: sources[key] for key in ("weights", "calibration")},
                engines=tuple(reports),
                gates=gates,
                plan=self.plan,
                verdict={} if verdict is None else verdict.to_dict(),
                tools=sources["tools"],
                random_weights=self.halves.random_weights,
            ),
        )
        self.progress(f"writing {self.request.out}")
        return write_bundle(
            staging,
            self.request.out,
            policy=self.policy,
            precision=self._precision(),  # type: ignore[arg-type]  # one of the plan's schemes, or mixed
            engines=records,
            sources=sources,
            target=self.target.name,
            cpu=cpu_record(self.target, [name for name, engine in made.items() if _has_int8(engine)]),
        )

    def _report(self, name: str, engine: Made, record: EngineRecord) -> EngineReport:
        plan = self.plan.engine(name)
        totals: dict[str, list[int]] = {}
        for product in engine.audit["products"]:
            found = totals.setdefault(product["scheme"], [0, 0, 0])
            for index, value in enumerate((1, product["elements"], product["nbytes"])):
                found[index] += value
        return EngineReport(
            name=name,
            file=record.file,
            scheme=plan.scheme,
            compute=plan.compute,
            bytes=record.gate["bytes"],
            weights={key: SchemeTotal(tensors=t, elements=e, bytes=b) for key, (t, e, b) in sorted(totals.items())},
            gates={
                plan.scheme: {k: v for k, v in engine.record.items() if k not in ("plan", "emulated")},
                "plan": engine.record["plan"],
                "emulated": engine.record["emulated"],
            },
            audit={"shares": engine.audit["shares"], "nbytes": engine.audit["nbytes"]},
            damages=tuple(calibrate(engine.damage, engine.record["relative_l2"])),
        )

    def _precision(self) -> str:
        """The one scheme of all engines, or `mixed`."""
        schemes = {self.plan.engine(name).scheme for name in self.halves.engines}
        return next(iter(schemes)) if len(schemes) == 1 else "mixed"

    def _inputs(self) -> dict[str, Any]:
        """All that the bundle's bytes depend on."""
        return {
            "policy": policy_to_dict(self.policy),
            "target": msgspec.to_builtins(self.target),
            "plan": plan_bytes(self.plan).decode(),
            "sources": self._sources({}),
            "code": code_digest(),
            "samples": self.request.samples,
            "step_rtc": self.request.step_rtc,
        }

    def _sources(self, gates: dict[str, Any]) -> dict[str, Any]:
        return {
            "weights": self.halves.fingerprints(),
            "calibration": {**self.recorded.manifest(), "samples_per_role": self.request.samples},
            "gates": gates,
            "target": self.target.name,
            "tools": {name: importlib.metadata.version(name) for name in TOOLS},
        }


def export_checkpoints(request: Request, progress: Progress | None = None) -> Bundle:
    """Export what `request` names; an older bundle at its output is replaced.

    Raises MemrtError for missing or foreign inputs, a device that is too small, and for every gate that fails.
    """
    return _Export(request, progress or (lambda line: None)).run()


def _has_int8(engine: Made) -> bool:
    return any(product["scheme"] == "int8" for product in engine.audit["products"])


def _disk_bytes(sizes: Sequence[EngineSize], tables: int) -> int:
    """The graphs' weights, once more for a proof or a built engine, the tables, and room for samples."""
    return 3 * sum(scheme_bytes(size.elements) for size in sizes) + tables + (1 << 30)


def _drop_proofs(made: dict[str, Made], records: dict[str, EngineRecord], staging: Path) -> None:
    """What only this computer needed: graphs for ONNX Runtime beside TensorRT's, and graphs of engines built here."""
    kept = {staging / record.file for record in records.values()}
    kept |= {staging / json.loads(path.read_bytes())["graph"] for path in staging.glob("recipe/*.json")}
    for engine in made.values():
        for path in {engine.graph, engine.proof} - kept:
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.data").unlink(missing_ok=True)
