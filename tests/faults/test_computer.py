"""Rows: clock jump, disk full, out of memory. None of them is noticed by the arm."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest
from arm_driver import eventually

import memrt.robot_io.link.node
import memrt.runtime._core
from memrt.runtime.cli import run_recording
from memrt.runtime.recording import memory_watch, recorder
from memrt.runtime.recording.reader import Recording
from memrt.runtime.recording.recorder import McapRecorder
from memrt.runtime.types import RobotMode

pytestmark = pytest.mark.real_time

ROOT = Path(memrt.robot_io.link.node.__file__).parents[2]
CONTROL_PATH = (
    "runtime/loop",
    "runtime/policy",
    "runtime/memory",
    "robot_io/link",
    "robot_io/grippers",
    "sim/driver.py",
)
WALL_CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "localtime"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
}


def test_nothing_on_the_control_path_reads_the_wall_clock():
    files = [
        path
        for part in CONTROL_PATH
        for path in ([ROOT / part] if part.endswith(".py") else (ROOT / part).rglob("*.py"))
    ]
    assert len(files) > 40
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in WALL_CLOCKS, f"{path}:{node.lineno}"
                assert node.attr != "CLOCK_REALTIME", f"{path}:{node.lineno}"


def test_the_core_asks_the_system_for_no_wall_clock():
    """The names that the compiled module takes from the C and C++ libraries."""
    names = Path(memrt.runtime._core.__file__).read_bytes()
    assert b"clock_gettime" in names or b"steady_clock" in names
    for wall in (b"system_clock3now", b"gettimeofday"):
        assert wall not in names


def test_a_wall_clock_that_jumps_by_an_hour_changes_nothing(chain, monkeypatch):
    run = chain().settle()
    jumps = iter(range(10**9))

    def jumping() -> float:
        return 1.7e9 + 3600.0 * (-1) ** next(jumps) * next(jumps)

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(time, "time_ns", lambda: int(jumping() * 1e9))
    sent, holds = len(run.notes.chunks), len(run.notes.when("hold"))
    assert eventually(lambda: len(run.notes.chunks) > sent + 5)
    assert len(run.notes.when("hold")) == holds
    assert run.robot.mode is RobotMode.RUNNING
    for sent_ns, chunk in run.notes.chunks[sent:]:
        assert 0 < chunk.t0_ns - sent_ns < 10**9


FULL_DISK = """
import io, resource, signal, sys
from pathlib import Path
sys.path[:0] = [{here!r}, {arm!r}]
from chain import Chain
from memrt.runtime.recording import recorder
from memrt.runtime.types import RobotMode

recorder.FLUSH_S = recorder.POLL_S = 0.02
with recorder.McapRecorder(Path(sys.argv[1]) / "run.mcap", {{}}) as recording:
    run = Chain(Path(sys.argv[1]) / "chain", observer=recording, start=False)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a file beyond the limit is an OSError, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))
    alarms = []
    def watch(loop):
        if recording.failure and not alarms:
            alarms.append((recording.failure, loop.record.counts["chunks"]))
        if alarms and loop.record.counts["chunks"] > alarms[0][1] + 5:
            loop.quit()
    record = run.loop.run(duration_s=60, on_tick=watch)
    print(record.status, record.reason, "|", alarms[0][0], "|", run.robot.statistics.get("chunks refused", 0))
    run.close()
"""


def test_a_full_disk_ends_the_recording_and_the_arm_goes_on(tmp_path):
    """A limit on the size of files stands for the disk; the chain runs on in the same process."""
    here = Path(__file__).parent
    code = FULL_DISK.format(here=str(here), arm=str(here.parent / "robot_io"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("stopped quit by the operator | the recording ends early: File too large | 0")
    summary = Recording(tmp_path / "run.mcap").summary()
    assert "cut off" in summary.cut_off
    assert summary.counts["/commands"] > 0


class Alarmed:
    """A run's recording, as `memrt run` watches it."""

    def __init__(self, recording: McapRecorder) -> None:
        self.said: list[str] = []
        self._watched = run_recording.RunRecording.__new__(run_recording.RunRecording)
        self._watched._alarmed, self._watched.recorder = False, recording

    def look(self) -> None:
        self._watched.alarm(self.said.append, None, 0)


def test_when_memory_runs_out_the_recording_goes_first_and_says_so(chain, tmp_path, monkeypatch):
    """The mark is set above what this computer has; the rest is as it would be."""
    monkeypatch.setattr(recorder, "FLUSH_S", 0.02)
    with McapRecorder(tmp_path / "run.mcap", {}) as recording:
        run = chain(observer=recording).settle()
        watched = Alarmed(recording)
        assert eventually(lambda: run.counts["chunks"] > 3)
        watched.look()
        assert watched.said == []
        monkeypatch.setattr(memory_watch, "LOW_BYTES", 1 << 60)
        assert eventually(lambda: recording.failure)
        watched.look()
        watched.look()
        assert len(watched.said) == 1
        assert "the recording ends early: the computer is running out of memory" in watched.said[0]
        assert eventually(lambda: recording._queue.items_waiting == 0)
        sent = run.counts["chunks"]
        run.settle()
        assert eventually(lambda: run.counts["chunks"] > sent + 5)
        assert recording._queue.items_waiting == 0
        run.loop.quit()
        run.ended()
    assert Recording(tmp_path / "run.mcap").summary().counts["/commands"] > 0
