"""One change to a computer at a time, and what it turns the finding into."""

import msgspec
import pytest

from memrt.runtime.doctor.clock import SOURCE
from memrt.runtime.doctor.examine import examine
from memrt.runtime.doctor.memory import HUGE
from memrt.runtime.doctor.snapshot import BundleFacts, CameraFacts, Cuda, Network, Output, RobotFacts

CPU = "/sys/devices/system/cpu"
VERSION = "Linux version 6.12.1 (x) (gcc) #1 SMP PREEMPT_DYNAMIC 2025\n"
PLAIN_KERNEL = {"/proc/version": VERSION, "/sys/kernel/realtime": None}
RT_VERSION = VERSION.replace("PREEMPT_DYNAMIC", "PREEMPT_RT")
IGNORES = RobotFacts(name="franka")
SIM = RobotFacts(name="sim", simulated=True)
INT8 = BundleFacts(path="b", target="cpu", backend="onnxruntime", precision="int8", full_range=("ll/step",))
RTX = BundleFacts(path="b", target="rtx", backend="tensorrt_rtx", precision="mixed", sm=(86, 89, 120))
AVX2 = "processor: 0\nflags: avx avx2 fma\n"


def finding(snapshot, domain, about):
    (found,) = [one for one in examine(snapshot)[domain] if one.about == about]
    return found


def changed(snapshot, files=None, **values):
    merged = {path: text for path, text in {**snapshot.files, **(files or {})}.items() if text is not None}
    return msgspec.structs.replace(snapshot, files=merged, **values)


# (domain, about, status): files that are changed (None: removed), other parts of the snapshot.
FILES = [
    ("kernel", "real-time kernel", "error", PLAIN_KERNEL),
    ("kernel", "/sys/kernel/realtime", "error", {"/proc/version": RT_VERSION, "/sys/kernel/realtime": None}),
    ("kernel", "time for real-time threads", "warning", {"/proc/sys/kernel/sched_rt_runtime_us": "10000\n"}),
    ("kernel", "time for real-time threads", "fine", {"/proc/sys/kernel/sched_rt_runtime_us": "-1\n"}),
    ("kernel", "virtual machine", "warning", {"/proc/cpuinfo": "processor: 0\nflags: avx2 avx_vnni hypervisor\n"}),
    ("rights", "locked memory", "warning", {"/proc/self/limits": "Max locked memory  65536  65536  bytes\n"}),
    ("rights", "locked memory", "unknown", {"/proc/self/limits": None}),
    ("processor", "cores", "warning", {"/proc/self/status": "Cpus_allowed_list:\t0,2-3\n"}),
    ("processor", "share of the cores", "warning", {"/sys/fs/cgroup/cpu.max": "150000 100000\n"}),
    ("processor", "share of the cores", "warning", {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n"}),
    ("processor", "share of the cores", "fine", {"/sys/fs/cgroup/cpu.max": "max 100000\n"}),
    ("processor", "isolated cores", "fine", {f"{CPU}/isolated": "6-7\n"}),
    ("processor", "clock governor", "warning", {f"{CPU}/cpu1/cpufreq/scaling_governor": "schedutil\n"}),
    ("processor", "8-bit instructions", "warning", {"/proc/cpuinfo": AVX2}),
    ("processor", "8-bit instructions", "fine", {"/proc/cpuinfo": AVX2.replace("fma", "avx512_vnni")}),
    ("memory", "swap", "unknown", {"/proc/swaps": None}),
    (
        "memory",
        "transparent huge pages",
        "warning",
        {HUGE: "[always] never\n"},
    ),
    (
        "clock",
        "clock source",
        "fine",
        {SOURCE: "kvm-clock"},
    ),
]


@pytest.mark.parametrize(("domain", "about", "status", "files"), FILES)
def test_a_file(machines, domain, about, status, files):
    assert finding(changed(machines["control_pc"], files), domain, about).status == status


def test_niceness_that_does_not_help_has_its_remedy(machines):
    busy = {"/proc/loadavg": "90 1 1 1/1 1\n", "/proc/sys/kernel/sched_autogroup_enabled": "1\n"}
    (plain, grouped) = (
        finding(changed(machines["control_pc"], files), "processor", "load")
        for files in ({**busy, "/proc/sys/kernel/sched_autogroup_enabled": "0\n"}, busy)
    )
    assert "niceness" not in plain.cost
    assert "niceness" in grouped.cost
    assert any("sched_autogroup_enabled" in command for command in grouped.mend)


PARTS = [
    ("kernel", "real-time kernel", "warning", {"robot": IGNORES}),  # works, with robot stops
    ("bundle", "proof", "error", {"bundle": msgspec.structs.replace(INT8, proven=False)}),
    ("bundle", "proof", "warning", {"bundle": INT8, "robot": SIM}),
    ("bundle", "precision int8", "warning", {"bundle": INT8}),
    ("bundle", "precision int8", "fine", {"bundle": msgspec.structs.replace(INT8, full_range=())}),
    ("bundle", "files", "error", {"bundle": BundleFacts(path="b", refused="corrupt file `ll/step.onnx`")}),
    ("bundle", "size", "warning", {"bundle": msgspec.structs.replace(INT8, engine_bytes=50 << 30)}),
    ("bundle", "target `rtx`", "unknown", {"bundle": RTX}),
    ("gpu", "GPU", "error", {"bundle": RTX}),
    ("gpu", "GPU", "warning", {"bundle": None}),
    ("gpu", "GPU", "fine", {"bundle": None, "cuda": Cuda(name="GPU", sm=89, memory=1 << 34)}),
    ("bundle", "target `rtx`", "fine", {"bundle": RTX, "cuda": Cuda(name="GPU", sm=89, memory=1 << 34)}),
    ("gpu", "GPU", "fine", {"bundle": INT8}),
    ("bundle", "signature", "error", {"bundle": msgspec.structs.replace(INT8, signed=False, signature="unsigned")}),
    ("bundle", "signature", "fine", {"bundle": msgspec.structs.replace(INT8, signed=False), "robot": SIM}),
    ("network", "round trip to h", "error", {"network": Network(host="h", sent=20)}),
    ("network", "round trip to h", "warning", {"network": Network(host="h", error="no ping")}),
    ("network", "round trip to h", "warning", {"network": Network(host="h", sent=9, received=9, p99_ms=2, max_ms=3)}),
    (
        "network",
        "round trip to h",
        "fine",
        {
            "network": Network(host="h", sent=9, received=9, p99_ms=2, max_ms=3),
            "robot": RobotFacts(name="r", host_is="node"),
        },
    ),
    ("cameras", "librealsense", "error", {"packages": {}}),
    ("cameras", "librealsense", "error", {"outputs": {"ldconfig": Output(status=0, text="libEGL.so.1")}}),
    ("cameras", "librealsense", "error", {"realsense": None}),
    ("cameras", "camera `a`", "fine", {"robot": RobotFacts(name="r", cameras={"a": CameraFacts(kind="replay")})}),
]


@pytest.mark.parametrize(("domain", "about", "status", "parts"), PARTS)
def test_another_part(machines, domain, about, status, parts):
    old = changed(machines["control_pc"], {**PLAIN_KERNEL, "/proc/cpuinfo": AVX2})
    assert finding(changed(old, **parts), domain, about).status == status


def test_engines_of_another_gpu_are_named(machines):
    thor = msgspec.structs.replace(RTX, target="thor", backend="tensorrt", sm=(110,))
    found = finding(changed(machines["rtx_workstation"], bundle=thor), "bundle", "target `thor`")
    assert found.status == "error"
    assert "11.0" in found.found
    assert "8.9" in found.found


@pytest.mark.parametrize(
    ("machine", "words"),
    [("jetson_orin", "nvidia-l4t-rt-kernel"), ("laptop", "linux-image-rt-amd64"), ("rtx_workstation", "pro enable")],
)
def test_each_system_has_its_own_real_time_kernel(machines, machine, words):
    plain = changed(machines[machine], PLAIN_KERNEL)
    assert words in " ".join(finding(plain, "kernel", "real-time kernel").mend)


def test_rights_that_are_granted_but_refused_are_the_control_groups_affair(machines):
    refused = msgspec.structs.replace(machines["control_pc"].lateness, realtime=False)
    found = finding(changed(machines["control_pc"], lateness=refused), "rights", "real-time priority")
    assert found.status == "error"
    assert "control group" in found.mend[0]
