"""The GPU: whether there is one that the driver knows, and whether it may run at its full clock.

Sources: `nvidia-smi --help-query-gpu`; NVIDIA's "Driver Persistence" (1 to 3 s at a program's start without it), CUDA
release notes, "CUDA Driver Compatibility" (CUDA 12 needs driver 525, CUDA 13 driver 580), Jetson Linux Developer Guide
(jetson_clocks); Debian's and Ubuntu's pages on NVIDIA's driver.
"""

from __future__ import annotations

import re

from memrt.runtime.doctor.finding import Finding, fine, judged, unknown, warning
from memrt.runtime.doctor.snapshot import Snapshot, number
from memrt.runtime.doctor.system import distribution, jetson_release

FIELDS = (
    *("name", "driver_version", "persistence_mode", "pstate", "clocks.sm", "clocks.mem", "power.limit"),
    *("temperature.gpu", "compute_cap", "power.default_limit", "memory.total", "memory.used"),
)
PCI, DEVFREQ = "/sys/bus/pci/devices", "/sys/class/devfreq"
FILES = (f"{PCI}/*/vendor", f"{PCI}/*/class", *(f"{DEVFREQ}/*/{name}" for name in ("min_freq", "max_freq")))
COMMANDS = (("nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader"),)
NVIDIA, DISPLAY = "0x10de", "0x03"
HOT_C = 85  # GeForce cards cut their clocks from 83 °C on
# The first driver for each major version of CUDA that memrt's extras can bring.
LEAST_DRIVER = {"tensorrt-rtx-cu12": 525, "tensorrt-rtx-cu13": 580}


def examine(snapshot: Snapshot) -> list[Finding]:
    """Findings about the GPU."""
    if jetson_release(snapshot):
        return [_jetson_gpu(snapshot), _jetson_clocks(snapshot)]
    found = gpus(snapshot)
    return [finding for gpu in found for finding in _gpu(snapshot, gpu)] if found else [_none(snapshot)]


def gpus(snapshot: Snapshot) -> list[dict[str, str]]:
    """One entry per GPU that nvidia-smi knows; values are its own words."""
    rows = [[cell.strip() for cell in line.split(",")] for line in snapshot.printed("nvidia-smi").splitlines()]
    return [dict(zip(FIELDS, row, strict=True)) for row in rows if len(row) == len(FIELDS)]


def _none(snapshot: Snapshot) -> Finding:
    if snapshot.cuda is not None:  # nvidia-smi is missing, or too old for the question
        found = f"{snapshot.cuda.name}, compute capability {snapshot.cuda.sm / 10:g}; its settings are not to be seen"
        return fine("GPU", found)
    bundle, remote = snapshot.bundle, "memrt run --remote http://GPU_COMPUTER:8000/v1 # the VLM answers there"
    if _nvidia_card(snapshot):
        needed = bundle is not None and bundle.backend.startswith("tensorrt")
        said = " ".join(snapshot.outputs["nvidia-smi"].text.split())[:200] if "nvidia-smi" in snapshot.outputs else ""
        found = f"an NVIDIA card, but no working driver{': ' + said if said else ''}"
        return judged(needed, "GPU", found, "engines for the GPU cannot run", *_driver(snapshot), "sudo reboot")
    if bundle is not None and bundle.backend == "onnxruntime":
        return fine("GPU", "none, and this bundle needs none")
    cost = (
        "the reference policies run, real checkpoints do not keep up: one call of a π0.5 of real size in int8 took 9 s "
        "on two CPU cores"
    )
    needed = bundle is not None and bundle.backend.startswith("tensorrt")
    return judged(needed, "GPU", "none", cost, remote, "# or use a computer with an RTX card, or a Jetson")


def _nvidia_card(snapshot: Snapshot) -> bool:
    vendors = snapshot.matching(f"{PCI}/*/vendor")
    return any(
        vendor == NVIDIA and snapshot.text(f"{path.removesuffix('/vendor')}/class").startswith(DISPLAY)
        for path, vendor in vendors.items()
    )


def _driver(snapshot: Snapshot) -> tuple[str, ...]:
    if distribution(snapshot) == "ubuntu":
        return ("sudo ubuntu-drivers install",)
    # The real-time kernel's presence makes the module's build refuse (NVIDIA's conftest.sh) unless told.
    note = "# from `non-free`; on a real-time kernel with IGNORE_PREEMPT_RT_PRESENCE=1"
    return (f"sudo apt-get install -y linux-headers-$(uname -r) nvidia-driver {note}",)


def _gpu(snapshot: Snapshot, gpu: dict[str, str]) -> list[Finding]:
    name = gpu["name"]
    findings = [fine("GPU", f"{name}, compute capability {gpu['compute_cap']}, driver {gpu['driver_version']}")]
    findings.append(_version(snapshot, gpu))
    if gpu["persistence_mode"] == "Disabled":
        cost = "the driver lets go of the GPU between programs: each start of memrt waits 1 to 3 s more"
        findings.append(warning("driver persistence", "disabled", cost, "sudo nvidia-smi -pm 1"))
    else:
        findings.append(fine("driver persistence", gpu["persistence_mode"].lower()))
    limit, usual = number(gpu["power.limit"]), number(gpu["power.default_limit"])
    if limit is not None and usual is not None and limit < usual:
        cost = "the GPU lowers its clock to keep to it: every call takes longer"
        found = f"{limit:g} of {usual:g} W"
        findings.append(warning("power limit", found, cost, f"sudo nvidia-smi -pl {usual:g}"))
    else:
        findings.append(fine("power limit", gpu["power.limit"]))
    heat = number(gpu["temperature.gpu"])
    if heat is not None and heat >= HOT_C:
        cost = "the GPU cuts its clock when it is this hot: calls take longer the longer the run lasts"
        findings.append(warning("temperature", f"{heat:g} °C", cost, "# clean its fans, give it air"))
    else:
        findings.append(fine("temperature", f"{gpu['temperature.gpu']} °C"))
    used, total = number(gpu["memory.used"]), number(gpu["memory.total"])
    if used is not None and total and used > total / 4:
        cost = "other programs hold it: the policies' engines may not fit, and their kernels wait for each other's"
        findings.append(warning("GPU memory", f"{used:g} of {total:g} MiB in use", cost, "nvidia-smi"))
    else:
        findings.append(fine("GPU memory", f"{gpu['memory.used']} of {gpu['memory.total']} in use"))
    return findings


def _version(snapshot: Snapshot, gpu: dict[str, str]) -> Finding:
    major = re.match(r"\d+", gpu["driver_version"])
    needed = {package: least for package, least in LEAST_DRIVER.items() if package in snapshot.packages}
    if not needed or major is None:
        return fine("driver", gpu["driver_version"])
    package, least = max(needed.items(), key=lambda item: item[1])
    if int(major.group()) >= least:
        return fine("driver", gpu["driver_version"])
    wrong = snapshot.bundle is not None and snapshot.bundle.backend == "tensorrt_rtx"
    found = f"{gpu['driver_version']}; {package} needs {least} or newer"
    mend = (*_driver(snapshot), "sudo reboot")
    return judged(wrong, "driver", found, "engines of TensorRT for RTX do not load", *mend)


def _jetson_gpu(snapshot: Snapshot) -> Finding:
    if snapshot.cuda is not None:
        return fine("GPU", f"{snapshot.cuda.name}, compute capability {snapshot.cuda.sm / 10:g}")
    needed = snapshot.bundle is not None and snapshot.bundle.backend.startswith("tensorrt")
    mend = "sudo apt-get install -y nvidia-l4t-cuda # in a container: start it with --runtime nvidia"
    return judged(needed, "GPU", "the CUDA driver does not find it", "engines for the GPU cannot run", mend)


def _jetson_clocks(snapshot: Snapshot) -> Finding:
    """What a Jetson's nvidia-smi knows is little; jetson_clocks makes the GPU's lowest clock the highest."""
    folders = [path.removesuffix("/min_freq") for path in snapshot.matching(f"{DEVFREQ}/*gpu*/min_freq")]
    if not folders:
        return unknown("GPU clock", "the kernel does not show it")
    least, most = (number(snapshot.text(f"{folders[0]}/{name}")) for name in ("min_freq", "max_freq"))
    if least is None or most is None:
        return unknown("GPU clock", "the kernel does not show it")
    if least == most:
        return fine("GPU clock", f"fixed at {most / 1e6:.0f} MHz")
    found = f"between {least / 1e6:.0f} and {most / 1e6:.0f} MHz"
    cost = "the clock falls between calls: the first kernels of each call run slowly"
    return warning("GPU clock", found, cost, "sudo jetson_clocks")
