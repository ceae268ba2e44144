"""The processor: clock, idle states, power, cores, and the instructions that quantised engines need.

Sources: the kernel's Documentation/admin-guide/pm/cpufreq.rst and cpuidle.rst, scheduler/sched-bwc.rst; Franka's
"Disabling CPU frequency scaling"; NVIDIA's Jetson Linux Developer Guide (nvpmodel, jetson_clocks); ONNX Runtime,
"Quantize ONNX models" (VNNI), and runtime/processor.py, runtime/cpu_fit.py on what its lack costs; sched(7), "The
autogroup feature".
"""

from __future__ import annotations

import re
from typing import Any

from memrt.runtime.doctor.finding import Finding, at_boot, fine, unknown, warning
from memrt.runtime.doctor.snapshot import Snapshot, number
from memrt.runtime.doctor.system import jetson_release, processor
from memrt.runtime.processor import X86

CPU, POWER = "/sys/devices/system/cpu", "/sys/class/power_supply"
QUOTA, QUOTA_V1 = "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"
AUTOGROUP = "/proc/sys/kernel/sched_autogroup_enabled"
FILES = (
    *("/proc/cpuinfo", "/proc/loadavg", AUTOGROUP, "/proc/self/status", QUOTA, QUOTA_V1, f"{CPU}/isolated"),
    *(f"{CPU}/cpu*/cpufreq/{name}" for name in ("scaling_governor", "scaling_cur_freq", "cpuinfo_max_freq")),
    *(f"{CPU}/cpu0/cpuidle/state*/{name}" for name in ("name", "latency", "disable")),
    f"{CPU}/cpu*/thermal_throttle/core_throttle_count",
    *(f"{POWER}/*/{name}" for name in ("type", "online", "status")),
)
COMMANDS = (("nvpmodel", "-q"),)
QUOTA_PERIOD = "100000"  # µs, the kernel's default
BUSY = 0.25  # load per core that the figures of a measurement begin to show
LONGEST_WAKE_US = 100  # a tenth of a 1 kHz tick
ENOUGH_CORES = 4  # action expert, VLM, the robot's node, and one for everything else


def examine(snapshot: Snapshot) -> list[Finding]:
    """Findings about the processor."""
    return [
        _cores(snapshot),
        _isolated(snapshot),
        _quota(snapshot),
        _load(snapshot),
        _governor(snapshot),
        *_power_mode(snapshot),
        _idle(snapshot),
        _throttled(snapshot),
        _battery(snapshot),
        _instructions(snapshot),
    ]


def cpu_clocks(snapshot: Snapshot) -> dict[str, Any]:
    """Governors, and the present and the largest clock [MHz] over all cores; empty where the kernel tells nothing."""
    found: dict[str, Any] = {}
    if governors := sorted(set(snapshot.matching(f"{CPU}/cpu*/cpufreq/scaling_governor").values()) - {""}):
        found["governors"] = governors
    if now := _megahertz(snapshot, "scaling_cur_freq"):
        found |= {"lowest_mhz": min(now), "highest_mhz": max(now)}
    if most := _megahertz(snapshot, "cpuinfo_max_freq"):
        found["largest_possible_mhz"] = max(most)
    return found


def power_mode(snapshot: Snapshot) -> str:
    """A Jetson's power mode, such as `MAXN`; "" on any other computer."""
    match = re.search(r"NV Power Mode:\s*(\S+)", snapshot.printed("nvpmodel"))
    return match.group(1) if match else ""


def usable(snapshot: Snapshot) -> int:
    """Cores that this process may run on; 0 where the system does not say."""
    found = re.search(r"^Cpus_allowed_list:\s*([\d,-]+)$", snapshot.text("/proc/self/status"), re.MULTILINE | re.ASCII)
    if found is None:
        return 0
    bounds = re.findall(r"(\d+)(?:-(\d+))?", found.group(1), re.ASCII)
    return len({core for first, last in bounds for core in range(int(first), int(last or first) + 1)})


def _cores(snapshot: Snapshot) -> Finding:
    count = usable(snapshot)
    if not count:
        return unknown("cores", "no /proc/self/status")
    if count >= ENOUGH_CORES:
        return fine("cores", f"{count} usable")
    cost = (
        "both policies, the robot's node and the cameras share them: on two cores the action expert's p99 is 1.3 times "
        "as long while the VLM answers"
    )
    return warning("cores", f"{count} usable", cost, "memrt bench lowlevel # what it costs here", "# use four or more")


def _isolated(snapshot: Snapshot) -> Finding:
    cores = snapshot.text(f"{CPU}/isolated")
    if not cores:
        return fine("isolated cores", "none")
    return fine("isolated cores", f"{cores}: for what is put there, as by `taskset -c {cores} memrt node ROBOT.yaml`")


def _quota(snapshot: Snapshot) -> Finding:
    about, texts = "share of the cores", snapshot.text(QUOTA).split() or [snapshot.text(QUOTA_V1), QUOTA_PERIOD]
    quota, period = number(texts[0]), number(texts[-1])
    if quota is None or quota < 0 or not period:  # `max`, -1, or no such file
        return fine(about, "not limited")
    found = f"{quota / period:.1f} cores per {period / 1000:g} ms"
    cost = f"once that is used up, every thread stands still for the rest of the {period / 1000:g} ms"
    return warning(about, found, cost, "# start the container without --cpus, the service without CPUQuota=")


def _load(snapshot: Snapshot) -> Finding:
    load, count = number(snapshot.text("/proc/loadavg")), usable(snapshot)
    if load is None or not count:
        return unknown("load", "no /proc/loadavg")
    found = f"{load:g} on {count} cores"
    if load <= BUSY * count:
        return fine("load", found)
    cost = "other programs take the policies' time: chunks come late, and what is measured here is worse than need be"
    mend = ["ps -eo pid,ni,pcpu,comm --sort=-pcpu | head"]
    if number(snapshot.text(AUTOGROUP)) == 1:
        cost += "; their niceness does not help: it counts within one terminal's programs only"
        mend += at_boot("autogroup", AUTOGROUP, "0")
    return warning("load", found, cost, *mend)


def _governor(snapshot: Snapshot) -> Finding:
    clocks = cpu_clocks(snapshot)
    if "governors" not in clocks:
        return unknown("clock governor", "the kernel shows none (a virtual machine's is its host's)")
    if clocks["governors"] == ["performance"]:
        return fine("clock governor", "performance")
    slowest = f", now {clocks['lowest_mhz']:.0f} of " if "lowest_mhz" in clocks else ""
    most = f"{clocks['largest_possible_mhz']:.0f} MHz" if slowest and "largest_possible_mhz" in clocks else ""
    found = ", ".join(clocks["governors"]) + (slowest + most if most else "")
    cost = "the clock falls while memrt waits: the first call after a pause, and each control tick, takes longer"
    return warning("clock governor", found, cost, *at_boot("governor", _governors(), "performance"))


def _governors() -> str:
    return f"{CPU}/cpu*/cpufreq/scaling_governor"


def _power_mode(snapshot: Snapshot) -> list[Finding]:
    mode = power_mode(snapshot)
    if not jetson_release(snapshot):
        return []
    if not mode:
        return [unknown("power mode", "nvpmodel does not say")]
    if mode.startswith("MAXN"):
        return [fine("power mode", mode)]
    cost = "cores are switched off and the clocks of CPU, GPU and memory are capped: every call takes longer"
    return [warning("power mode", mode, cost, "sudo nvpmodel -m 0", "# it may ask for a reboot")]


def _idle(snapshot: Snapshot) -> Finding:
    latencies = snapshot.matching(f"{CPU}/cpu0/cpuidle/state*/latency")
    if not latencies:
        return unknown("idle states", "the kernel shows none (a virtual machine's are its host's)")
    slow = []
    for path, text in latencies.items():
        folder, latency = path.removesuffix("/latency"), number(text) or 0.0
        if latency > LONGEST_WAKE_US and snapshot.text(f"{folder}/disable") != "1":
            slow.append((folder.rpartition("/")[2], snapshot.text(f"{folder}/name"), latency))
    if not slow:
        return fine("idle states", f"all wake within {LONGEST_WAKE_US} µs")
    found = ", ".join(f"{name} wakes in {latency:g} µs" for _, name, latency in slow)
    cost = f"a thread that has slept wakes up to {max(latency for *_, latency in slow) / 1000:g} ms late"
    states = slow[0][0] if len(slow) == 1 else f"state[{slow[0][0][5:]}-{slow[-1][0][5:]}]"
    return warning("idle states", found, cost, *at_boot("idle", f"{CPU}/cpu*/cpuidle/{states}/disable", "1"))


def _throttled(snapshot: Snapshot) -> Finding:
    counts = snapshot.matching(f"{CPU}/cpu*/thermal_throttle/core_throttle_count").values()
    if not counts:
        return unknown("throttling by heat", "this processor does not count it")
    times = max(number(count) or 0.0 for count in counts)
    if not times:
        return fine("throttling by heat", "never since the start")
    cost = "while it was too hot the clock was cut, and every call took longer"
    return warning("throttling by heat", f"{times:g} times since the start", cost, "# clean its fans, give it air")


def _battery(snapshot: Snapshot) -> Finding:
    mains = [
        path.removesuffix("/type") for path, kind in snapshot.matching(f"{POWER}/*/type").items() if kind == "Mains"
    ]
    if not mains or any(snapshot.text(f"{folder}/online") == "1" for folder in mains):
        return fine("mains", "connected" if mains else "always")
    cost = "firmware lowers the clocks of CPU and GPU on battery, whatever the governor says"
    return warning("mains", "not connected: runs on battery", cost, "# plug it in")


def _instructions(snapshot: Snapshot) -> Finding:
    about, cpu = "8-bit instructions", processor(snapshot)
    if not cpu.flags:
        return unknown(about, "no /proc/cpuinfo")
    if cpu.architecture in X86 and "avx2" not in cpu.flags:
        cost = "engines on the CPU run at a fraction of their speed"
        return warning(about, "no AVX2", cost, "# use a processor from after 2013")
    if cpu.saturates:
        cost = "int8 engines made for VNNI run in exact kernels that are slower"
        return warning(about, "no VNNI", cost, "memrt export POLICY.yaml --reduced-range -o BUNDLE")
    if cpu.architecture not in X86 and "asimddp" not in cpu.flags:
        cost = "int8 engines on the CPU multiply without it, and are slower"
        return warning(about, "no dot product (asimddp)", cost, "# use a processor with ARMv8.2's, or a GPU")
    return fine(about, ", ".join(cpu.integer_sets))


def _megahertz(snapshot: Snapshot, name: str) -> list[float]:
    texts = snapshot.matching(f"{CPU}/cpu*/cpufreq/{name}").values()
    return [kilohertz / 1000 for text in texts if (kilohertz := number(text)) is not None]
