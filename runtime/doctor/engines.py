"""The libraries that run engines: ONNX Runtime, TensorRT, TensorRT for RTX.

Sources: ONNX Runtime, "Install ONNX Runtime" (one of its packages per environment: they share the folder
`onnxruntime`); NVIDIA, "TensorRT for RTX: support matrix" (SM 75, 86, 89, 120, 121); JetPack's packages `tensorrt` and
`python3-libnvinfer`, which a virtual environment sees with --system-site-packages only.
"""

from __future__ import annotations

from memrt.runtime.doctor.finding import Finding, error, fine, judged
from memrt.runtime.doctor.snapshot import Snapshot
from memrt.runtime.doctor.system import jetson_release
from memrt.runtime.engine.tensorrt_builder import AHEAD_OF_TIME_SMS

PACKAGES = ("memrt", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13", "mujoco")
RTX = ("tensorrt-rtx-cu12", "tensorrt-rtx-cu13")


def examine(snapshot: Snapshot) -> list[Finding]:
    """Findings about the libraries."""
    return [_onnxruntime(snapshot), *_tensorrt(snapshot)]


def _onnxruntime(snapshot: Snapshot) -> Finding:
    about = "ONNX Runtime"
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if name in snapshot.packages]
    if len(installed) == 2:
        cost = "they overwrite each other's files: which one runs, and whether it loads at all, is chance"
        mend = ("pip uninstall -y onnxruntime onnxruntime-gpu", "pip install 'memrt[cpu]'")
        return error(about, "onnxruntime and onnxruntime-gpu, which share one folder", cost, *mend)
    wrong = snapshot.bundle is None or snapshot.bundle.backend in ("", "onnxruntime")
    if not installed or snapshot.providers is None:
        found = "not installed" if not installed else f"{installed[0]} is installed, but does not load"
        remedy = "pip install 'memrt[cpu]'" if not installed else "python -c 'import onnxruntime' # says why"
        return judged(wrong, about, found, "no bundle for CPUs runs, the reference policies neither", remedy)
    if "CPUExecutionProvider" not in snapshot.providers:
        cost = "memrt runs ONNX files by that provider only (GPUs by TensorRT)"
        mend = (f"pip uninstall -y {installed[0]}", "pip install 'memrt[cpu]'")
        return judged(wrong, about, "no CPUExecutionProvider", cost, *mend)
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in snapshot.providers)
    return fine(about, f"{snapshot.packages[installed[0]]} ({providers})")


def _tensorrt(snapshot: Snapshot) -> list[Finding]:
    """Only where a GPU could use one of the two."""
    if snapshot.cuda is None:
        return []
    sm = snapshot.cuda.sm
    backend = snapshot.bundle.backend if snapshot.bundle is not None else ""
    rtx = backend == "tensorrt_rtx" or (backend != "tensorrt" and sm in AHEAD_OF_TIME_SMS)
    about = "TensorRT for RTX" if rtx else "TensorRT"
    installed = [name for name in (RTX if rtx else ("tensorrt",)) if name in snapshot.packages]
    if installed:
        return [fine(about, snapshot.packages[installed[0]])]
    if rtx:
        mend: tuple[str, ...] = ("pip install 'memrt[rtx]'",)
    elif jetson_release(snapshot):
        mend = (
            "sudo apt-get install -y tensorrt python3-libnvinfer",
            "python3 -m venv --upgrade --system-site-packages .venv # memrt's own, so that it sees them",
        )
    else:
        mend = ("pip install 'memrt[tensorrt]'",)
    wrong = backend.startswith("tensorrt")
    return [judged(wrong, about, "not installed", "no bundle for this GPU can be built or run", *mend)]
