"""A bundle against this computer: what it was exported for, what it needs, whether it was proven here, who vouches.

Sources: runtime/README.md ("Engines, and the proof"), configs/targets, runtime/cpu_fit.py (VNNI), runtime/signing.
"""

from __future__ import annotations

from memrt.runtime.bench.hardware import GIB, memory_fields
from memrt.runtime.doctor.finding import Finding, error, fine, judged, unknown, warning
from memrt.runtime.doctor.memory import MEMINFO
from memrt.runtime.doctor.snapshot import BundleFacts, Snapshot
from memrt.runtime.doctor.system import jetson_release, processor

FILES = (MEMINFO,)
HEADROOM = 1.5  # memory over the weights' size: activations, K/V, ONNX Runtime's prepacked copies


def examine(snapshot: Snapshot) -> list[Finding]:
    """Findings about the bundle; none where none was named."""
    bundle = snapshot.bundle
    if bundle is None:
        return []
    if bundle.refused:
        cost = "memrt does not run it"
        return [error("files", bundle.refused, cost, f"memrt verify {bundle.path} # after copying it again")]
    findings = [fine("files", "complete, every SHA-256 as in the manifest"), _target(snapshot, bundle)]
    findings += [_instructions(snapshot, bundle), _fits(snapshot, bundle), _proof(snapshot, bundle)]
    return [*findings, _signature(snapshot, bundle)]


def _physical(snapshot: Snapshot) -> bool:
    return snapshot.robot is not None and not snapshot.robot.simulated


def _target(snapshot: Snapshot, bundle: BundleFacts) -> Finding:
    about, sm = f"target `{bundle.target}`", snapshot.cuda.sm if snapshot.cuda is not None else None
    if bundle.backend == "onnxruntime":
        return fine(about, "runs on any CPU")
    wanted = f"GPUs of compute capability {', '.join(f'{n // 10}.{n % 10}' for n in bundle.sm)}"
    if sm is None:
        return unknown(about, f"for {wanted}; no GPU to compare with")
    if not bundle.sm or sm in bundle.sm:
        return fine(about, f"this GPU, compute capability {sm // 10}.{sm % 10}")
    found, cost = f"for {wanted}; this one's is {sm // 10}.{sm % 10}", "its engines do not load here"
    return error(about, found, cost, "memrt export POLICY.yaml --target TARGET -o BUNDLE # for this GPU")


def _instructions(snapshot: Snapshot, bundle: BundleFacts) -> Finding:
    about = f"precision {bundle.precision}"
    if not bundle.full_range or not processor(snapshot).saturates:
        return fine(about, "as fast here as where it was exported, core for core")
    found = f"made for VNNI, which this processor lacks: {', '.join(bundle.full_range)}"
    cost = "they run in exact int8 kernels that are slower"
    return warning(about, found, cost, "memrt export POLICY.yaml --reduced-range -o BUNDLE")


def _fits(snapshot: Snapshot, bundle: BundleFacts) -> Finding:
    about, needed = "size", bundle.engine_bytes * HEADROOM
    available, where = memory_fields(snapshot.text(MEMINFO)).get("MemAvailable"), "available"
    if bundle.backend != "onnxruntime" and snapshot.cuda is not None and not jetson_release(snapshot):
        available, where = snapshot.cuda.memory, "on the GPU"  # a Jetson's GPU uses the computer's memory
    if available is None:
        return unknown(about, f"no {MEMINFO}")
    found = f"engines of {bundle.engine_bytes / GIB:.2f} GiB, {available / GIB:.1f} GiB {where}"
    if needed <= available:
        return fine(about, found)
    cost = "memory runs out while the engines are opened: the run ends before it begins"
    mend = "memrt export POLICY.yaml --precision int4 -o BUNDLE # or end other programs"
    return warning(about, found, cost, mend)


def _proof(snapshot: Snapshot, bundle: BundleFacts) -> Finding:
    if bundle.proven:
        return fine("proof", "proven on this device")
    found = bundle.unproven or "not yet proven on this device"
    cost = "a physical robot is not armed by it; whether its engines compute here what was exported is not known"
    return judged(_physical(snapshot), "proof", found, cost, f"memrt build {bundle.path}")


def _signature(snapshot: Snapshot, bundle: BundleFacts) -> Finding:
    if bundle.signed:
        return fine("signature", bundle.signature)
    if not _physical(snapshot):
        return fine("signature", f"{bundle.signature}; a simulated robot asks for none")
    cost = "nobody vouches for what it does: a physical robot refuses it unless it is told --allow-unsigned"
    mend = (
        f"memrt sign {bundle.path} --key KEY # where it was exported",
        "sudo install -D -m 644 KEY.pub -t /etc/memrt/keys # here, once",
    )
    return error("signature", bundle.signature, cost, *mend)
