"""The C++ tests of the core (`cpp/`): as built for the robot, under AddressSanitizer and under ThreadSanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "cpp"  # kept: after the first run only what changed is compiled
FLAGS = {
    "plain": ["-DCMAKE_BUILD_TYPE=Release"],
    # -O1: half the time to compile, and reports that can be read.
    "address": ["-DMEMRT_SANITIZE=address", "-DCMAKE_CXX_FLAGS=-O1 -g1"],
    "thread": ["-DMEMRT_SANITIZE=thread", "-DCMAKE_CXX_FLAGS=-O1 -g1"],
}
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("variant", FLAGS)
def test_cpp(variant: str) -> None:
    folder = BUILD / variant
    configure = ["cmake", "-S", ROOT, "-B", folder, "-DMEMRT_CPP_TESTS=ON", f"-DPython_EXECUTABLE={sys.executable}"]
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    check(*configure, *generator, *FLAGS[variant])
    check("cmake", "--build", folder, "--parallel", str(len(os.sched_getaffinity(0))))
    binaries = folder / "tests" / "core" / "cpp"
    check(binaries / "memrt_core_tests")
    if variant == "plain":
        check(binaries / "memrt_core_allocations")


def check(*command: str | Path) -> None:
    """Run a command; what it said is the message when it fails."""
    found = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, **SANITIZER_OPTIONS},
    )
    assert found.returncode == 0, f"{command[0]}:\n{found.stdout[-8000:]}"
