"""The recorder's process: the same file, byte for byte; first to go when memory runs out; its end is not the run's."""

import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from recorded_runs import run_observed
from test_recorder import HERE, noisy

from memrt.runtime.recording import recorder as recorder_module
from memrt.runtime.recording import writer
from memrt.runtime.recording.mcap_file import McapFile
from memrt.runtime.recording.mcap_process import McapProcess
from memrt.runtime.recording.messages import Log, RawImage, RobotState
from memrt.runtime.recording.reader import Recording
from memrt.runtime.recording.recorder import McapRecorder


def oom_score(process: int | str) -> int:
    return int(Path(f"/proc/{process}/oom_score_adj").read_text())


def test_the_file_is_the_same_as_one_written_in_this_process(tmp_path):
    odd = {"nan": float("nan"), "tenth": 0.1, "whole": 2.0, "nested": [1, {"a": None}], "words": "µ"}
    joints = [*(np.linspace(0, 1, 7) / 3).tolist(), None]
    for kind, name in ((McapFile, "here"), (McapProcess, "there")):
        file = kind(tmp_path / name, "memrt test")
        file.metadata("memrt.run", {"goal": "swing", "settings": {"seed": 3}})
        for index in range(3):
            frame = noisy("front", index)
            file.write("/frames/front", frame.t_ns, RawImage.of(frame), index)
            file.write("/state", index, RobotState(t_ns=index, t_obs_ns=1, mode="running", proprioception=joints))
            file.write("/events", index, Log.of("dropped", "recorder", index, odd))
            file.flush()
        size = file.bytes_written
        file.finish()
        assert file.bytes_written > size > 0
        file.close()
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()


def test_a_run_is_recorded_and_the_process_is_first_to_go_without_this_one_following(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "FLUSH_S", 0.0)
    before = oom_score("self")
    with McapRecorder(tmp_path / "run.mcap", {"goal": "swing"}, open_file=McapProcess) as recorder:
        process = recorder._file.process_id
        assert oom_score(process) == writer.FIRST_TO_GO
        assert oom_score("self") == before
        record = run_observed(recorder)
        recorder.close({"outcome": record.status})
    assert recorder.failure == ""
    summary = Recording(tmp_path / "run.mcap").summary()
    assert summary.end["outcome"] == record.status == "success"
    assert summary.cut_off == ""
    assert not Path(f"/proc/{process}").exists()


def test_when_the_kernel_ends_it_the_run_goes_on_and_says_so(tmp_path, monkeypatch):
    """SIGKILL is all that the kernel's out-of-memory killer does."""
    monkeypatch.setattr(recorder_module, "FLUSH_S", 0.0)
    path = tmp_path / "run.mcap"
    with McapRecorder(path, {"goal": "swing"}, open_file=McapProcess) as recorder:
        for index in range(3):
            recorder.event("before", "supervisor", index)
        while Recording(path).summary().counts.get("/events", 0) < 3:
            pass
        recorder._file._process.kill()
        assert run_observed(recorder).status == "success"
        recorder._thread.join(30)
        assert recorder.failure == "the recording ends early: the recorder's process was ended (signal 9)"
        assert recorder._queue.items_waiting == 0
    summary = Recording(path).summary()
    assert "cut off" in summary.cut_off
    assert summary.counts["/events"] >= 3


def test_a_disk_that_is_full_is_named_as_in_this_process(tmp_path):
    file = McapProcess(tmp_path / "run.mcap", "memrt test")
    resource.prlimit(file.process_id, resource.RLIMIT_FSIZE, (2_000, 2_000))
    with pytest.raises(OSError, match="File too large"):
        fill(file)
    file.close()
    assert 0 < (tmp_path / "run.mcap").stat().st_size <= 2_000
    with pytest.raises(OSError, match="File exists"):
        McapProcess(tmp_path / "run.mcap", "memrt test")


def fill(file: McapProcess) -> None:
    for index in range(1000):
        file.write("/frames/front", index, RawImage.of(noisy("front", index)), index)
        file.flush()


DIES = """
    import os
    from pathlib import Path
    from memrt.runtime.recording.mcap_process import McapProcess
    from memrt.runtime.recording.messages import RawImage
    from test_recorder import noisy
    file = McapProcess(Path(sys.argv[1]), "memrt test")
    file.metadata("memrt.run", {"goal": "die"})
    for index in range(20):
        file.write("/frames/front", index, RawImage.of(noisy("front", index)), index)
    file._process.stdin.flush()
    print(file.process_id, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_what_it_was_handed_before_the_runtime_died_is_written_and_it_ends(tmp_path):
    head = f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent / 'loop')!r}]\n"
    command = [sys.executable, "-c", head + textwrap.dedent(DIES), str(tmp_path / "run.mcap")]
    # The writer holds stderr: `run` waits for both.
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -9, done.stderr
    counts = Recording(tmp_path / "run.mcap").summary().counts
    assert counts == {"/frames/front": 20}
    assert not Path(f"/proc/{done.stdout.strip()}/exe").exists()


@pytest.mark.parametrize("length", [0, 3, 4, 30])
def test_orders_that_are_cut_off_are_none(tmp_path, length):
    whole = writer.framed(writer.Begin("a", "b")) + writer.framed(writer.Metadata("name", {"key": "value"}))
    path = tmp_path / "orders"
    path.write_bytes(whole[:length])
    with path.open("rb") as stream:
        found = list(writer.orders(stream))
    assert found == [writer.Begin("a", "b")][: length // 12]
