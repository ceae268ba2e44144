"""A policy's weights to a bundle: export, calibrate, quantise, gate, write. Nothing is written unless all gates pass.

The stages work in a folder beside the output, which becomes the bundle in one step at the end. The same weights,
calibration set and versions of the tools give the same bytes.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memrt.calib.calibration_set import ROLES, CalibrationSet, load_calibration_set, reference_set
from memrt.calib.observations import WORDINGS
from memrt.export.cpu_record import cpu_record, with_reduced_range
from memrt.export.engine_build import Part, build_engine, canonicalise_file
from memrt.export.gates import ANSWERS, CHAIN, GRIPPER, answer_agreement, gate, gripper_agreement
from memrt.export.report import ExportRecord, record_of_export, write_report
from memrt.export.target import Target, load_target
from memrt.runtime.bundle import Bundle, write_bundle
from memrt.runtime.config import PolicyConfig, load_policy, resolve_weights
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import EngineRecord, sha256_of

Progress = Callable[[str], None]
# Judges a finished bundle by its fp32 twin; returns the gate's record (its name under "gate") or raises `MemrtError`.
BehaviourGate = Callable[[Path, Path], dict[str, Any]]

# Whose versions decide the bytes of a bundle.
TOOLS = ("torch", "transformers", "peft", "onnx", "onnxscript", "onnxruntime", "numpy")


def export_policy(
    policy: str | Path,
    out: str | Path,
    *,
    precision: str = "int8",
    weights_root: str | Path | None = None,
    calibration: str | Path | None = None,
    target: str | Path = "cpu",
    reduced_range: bool = False,
    behaviour: BehaviourGate | None = None,
    progress: Progress | None = None,
    threads: int = 1,
) -> Bundle:
    """Export `policy` (a YAML, or a packaged policy's name) to the bundle folder `out`.

    `weights_root` is where the policy's weights lie by name, by default the reference weights; `calibration` is the
    folder of a recorded set, by default the reference set. `reduced_range` keeps static int8 weights in 7 bits, for x86
    CPUs without VNNI. `behaviour` compares the finished bundle with one exported
    in fp32 before it gets its name (`memrt.export.sim_gate`, `memrt.export.episodes_gate`). An older bundle at `out` is
    replaced. `progress` is told one line per stage. Raises `MemrtError` for missing inputs and for every gate that
    fails.
    """
    export = _Export(
        policy=exportable(load_policy(policy)),
        precision=precision,
        target=with_reduced_range(load_target(target)) if reduced_range else load_target(target),
        weights_root=Path(weights_root) if weights_root is not None else reference_weights(),
        recorded=load_calibration_set(calibration or reference_set()),
        behaviour=behaviour,
        progress=progress or (lambda line: None),
        threads=threads,
    )
    return export.run(Path(out).expanduser())


def exportable(policy: PolicyConfig) -> PolicyConfig:
    """The policy itself. Raises MemrtError for one that runs on another policy's bundle."""
    remote = policy.high_level.remote
    if remote is not None and not remote.holds:
        raise MemrtError(
            f"policy `{policy.name}`, whose VLM is served elsewhere",
            expected="a policy with weights of its own, or `on_board: hold`",
            found=f"`on_board: {remote.on_board}`, whose bundle it runs on",
            fix=f"export `{remote.on_board}`",
        )
    return policy


def reference_weights() -> Path:
    """Where the reference policies' weights lie."""
    import memrt.train

    return Path(next(iter(memrt.train.__path__))) / "reference" / "weights"


class _Export:
    """One run of `export_policy`; its stages in order."""

    def __init__(
        self,
        *,
        policy: PolicyConfig,
        precision: str,
        target: Target,
        weights_root: Path,
        recorded: CalibrationSet,
        behaviour: BehaviourGate | None,
        progress: Progress,
        threads: int,
    ) -> None:
        target.check(precision)
        if behaviour is not None and precision == "fp32":
            raise MemrtError(
                "nothing to compare in behaviour",
                expected="a quantised precision, which is compared with fp32",
                found=precision,
                fix="leave out --gate, or choose another precision",
            )
        self._behaviour, self._weights_root = behaviour, weights_root
        self._policy, self._precision, self._target = policy, precision, target
        self._recorded, self._progress, self._threads = recorded, progress, threads
        self._weights = self._resolve(weights_root)
        self._engines: dict[str, EngineRecord] = {}
        self._gates: dict[str, Any] = {}

    def run(self, out: Path) -> Bundle:
        """All stages; the staging folder is removed whatever happens."""
        out.parent.mkdir(parents=True, exist_ok=True)
        with _folder(out.parent, f".{out.name}.staging.") as root, _folder(None, "memrt-export-") as work:
            (staging := root / "bundle").mkdir()
            self._low_level(staging, work)  # first: its chain gate refuses most often, and it takes a tenth of the time
            if "high_level" in self._weights:
                self._high_level(staging, work)
            if self._behaviour is not None:
                staging = self._judge_behaviour(self._write(staging, root / "candidate").path, root / "fp32")
            write_report(staging, self._record())
            self._progress(f"writing {out}")
            return self._write(staging, out)

    def _write(self, staging: Path, destination: Path) -> Bundle:
        return write_bundle(
            staging,
            destination,
            policy=self._policy,
            precision=self._precision,  # type: ignore[arg-type]  # checked against the target's literals
            engines=self._engines,
            sources=self._sources(),
            target=self._target.name,
            cpu=cpu_record(self._target, self._static_int8()),
        )

    def _static_int8(self) -> list[str]:
        if self._precision != "int8":
            return []
        return sorted(set(self._engines) - set(self._target.int8_settings().blockwise))

    def _judge_behaviour(self, candidate: Path, reference: Path) -> Path:
        """Hold the bundle `candidate` to an fp32 one, exported to `reference` for it; returns `candidate`."""
        assert self._behaviour is not None
        self._progress("behaviour gate: exporting the fp32 bundle to compare with")
        _Export(
            policy=self._policy,
            precision="fp32",
            target=self._target,
            weights_root=self._weights_root,
            recorded=self._recorded,
            behaviour=None,
            progress=self._progress,
            threads=self._threads,
        ).run(reference)
        record = self._behaviour(candidate, reference)
        self._gates[record["gate"]] = record
        return candidate

    def _record(self) -> ExportRecord:
        """What the bundle's report shows."""
        return record_of_export(self._policy.name, self._precision, self._target.name, self._engines, self._sources())

    def _high_level(self, staging: Path, work: Path) -> None:
        from memrt.calib.chats import chats
        from memrt.export import high_level_export
        from memrt.export.context_room import check_context
        from memrt.export.vlm_graphs import export_vlm, load_vlm

        weights, adapter = self._weights["high_level"], self._weights.get("adapter")
        self._progress(f"high level: exporting {weights.name}" + (f" + {adapter.name}" if adapter else ""))
        policy = self._policy.high_level
        config = export_vlm(
            weights, adapter, staging / "hl", capacity=policy.context_tokens, image_sizes=[policy.frame_size]
        )
        check_context(self._policy, config, (staging / "hl" / "tokenizer.json").read_text(), self._recorded)
        for path in sorted((staging / "hl").glob("*.onnx")):
            canonicalise_file(path)
        model = load_vlm(weights, adapter)
        recorded = {role: chats(self._recorded, self._policy, role) for role in ROLES}
        answers = high_level_export.torch_answers(model, staging / "hl", recorded["gate"])
        self._progress(f"high level: reading {sum(map(len, recorded.values()))} recorded calls")
        taps = {
            role: high_level_export.tap(staging / "hl", samples, work / "hl" / role, self._threads)
            for role, samples in recorded.items()
        }
        self._build(high_level_export.parts(model, config, taps["calibration"], taps["gate"]), staging)
        found = high_level_export.engine_answers(staging / "hl", recorded["gate"], self._threads)
        self._gates[ANSWERS] = answer_agreement(self._precision, answers, found)
        self._progress(f"high level: {self._gates[ANSWERS]['identical_tokens']:.2%} of the answers' tokens identical")

    def _low_level(self, staging: Path, work: Path) -> None:
        from memrt.export.low_level_export import LowLevelExport

        weights = self._weights["low_level"]
        self._progress(f"low level: exporting {weights.name}")
        export = LowLevelExport(self._policy, weights, staging / "ll", self._recorded, self._threads)
        samples = {role: self._recorded.low_level(role) for role in ROLES}
        chunks = export.torch_chunks(samples["gate"])
        self._progress(f"low level: reading {sum(map(len, samples.values()))} recorded observations")
        # Ranges hold for every wording, so that policies with one action expert get the same engines; gates judge ours.
        ranged = export.tap(samples["calibration"], work / "ll" / "calibration", WORDINGS)
        self._build(export.parts(ranged, export.tap(samples["gate"], work / "ll" / "gate")), staging)
        found = export.engine_chunks(samples["gate"])
        self._gates[CHAIN] = gate(CHAIN, self._precision, chunks.arm, found.arm)
        self._gates[GRIPPER] = gripper_agreement(self._precision, chunks.closed, found.closed)
        self._progress(f"low level: action chunks within relative L2 {self._gates[CHAIN]['relative_l2']:.1e}")

    def _build(self, parts: list[Part], staging: Path) -> None:
        for part in parts:
            record = build_engine(part, staging, self._precision, self._target, threads=self._threads)
            self._engines[part.name] = record
            self._progress(
                f"{part.name}: {record.precision}, {record.gate['bytes'] / 1e6:.1f} MB, "
                f"cosine {record.gate['cosine']:.6f}, relative L2 {record.gate['relative_l2']:.1e}"
            )

    def _resolve(self, root: Path) -> dict[str, Path]:
        """The folders of the weights this policy needs, checked for existence before any work."""
        named = {"low_level": self._policy.low_level.weights}
        if self._policy.high_level.source == "vlm":
            named["high_level"] = self._policy.high_level.weights
            if self._policy.high_level.adapter:
                named["adapter"] = self._policy.high_level.adapter
        folders = {part: resolve_weights(name, root) for part, name in named.items()}
        for part, folder in folders.items():
            if not folder.is_dir():
                raise MemrtError(
                    f"no weights for {part} of policy `{self._policy.name}`",
                    expected=f"the folder {folder}",
                    found="nothing there",
                    fix="name the folder that holds them with --weights, or train them (memrt train)",
                )
        return folders

    def _sources(self) -> dict[str, Any]:
        return {
            "weights": {part: _hashes(folder) for part, folder in sorted(self._weights.items())},
            "calibration": self._recorded.manifest(),
            "gates": self._gates,
            "target": self._target.name,
            "tools": {name: importlib.metadata.version(name) for name in TOOLS},
        }


@contextmanager
def _folder(parent: Path | None, prefix: str) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    path.chmod(0o755)  # mkdtemp's 0700 would stay with the bundle that the folder becomes
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint folder, by its path in it."""
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}
