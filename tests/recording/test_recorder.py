"""What a recording holds, and what is left of it when it does not fit, when the disk is full, when the process dies."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mcap.reader import make_reader
from recorded_runs import record_lockstep, run_observed

from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.observer import HighLevelCall
from memrt.runtime.recording import recorder as recorder_module
from memrt.runtime.recording.messages import CHANNELS, Log, json_schema
from memrt.runtime.recording.reader import Recording
from memrt.runtime.recording.recorder import McapRecorder
from memrt.runtime.recording.retention import keep_newest
from memrt.runtime.types import Frame, Observation, RobotMode

GOLDEN = Path(__file__).parent / "golden" / "channels.json"
HERE = Path(__file__).parent


def frames_of(recording: Recording) -> list[Frame]:
    return [recorded.message.frame() for recorded in recording.messages(lambda topic: topic.startswith("/frames/"))]


def noisy(camera: str, index: int, side: int = 16) -> Frame:
    rng = np.random.Generator(np.random.PCG64([index, len(camera)]))
    return Frame(camera, index, 10**9 + index, rng.integers(0, 256, (side, side, 3), np.uint8))


def observation(*frames: Frame) -> Observation:
    return Observation(10**9, np.linspace(0, 1, 8), {frame.camera: frame for frame in frames})


def test_channels_and_schemas_are_those_of_the_golden_file():
    """After a deliberate change: write `found` there. Readers of older recordings, and Foxglove, depend on it."""
    found = {topic: {"schema": name, "json_schema": json_schema(kind)} for topic, (name, kind) in CHANNELS.items()}
    assert found == json.loads(GOLDEN.read_text())


def test_any_mcap_reader_opens_it(tmp_path):
    record_lockstep(tmp_path / "run.mcap")
    with (tmp_path / "run.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        topics = {channel.topic: schema.name for schema, channel, _ in reader.iter_messages()}
        metadata = {record.name for record in reader.iter_metadata()}
    assert topics == {topic.replace("/frames/", "/frames/front"): name for topic, (name, _) in CHANNELS.items()}
    assert metadata == {"memrt.run", "memrt.end"}


def test_every_frame_is_recorded_once_and_bit_for_bit(tmp_path):
    shown = [noisy(camera, index) for index in range(5) for camera in ("front", "wrist")]
    with McapRecorder(tmp_path / "run.mcap", {}) as recorder:
        for frame in (*shown, *shown):
            recorder.state(RobotMode.RUNNING, observation(frame), frame.t_ns)
    found = frames_of(Recording(tmp_path / "run.mcap"))
    assert [(frame.camera, frame.index, frame.t_ns) for frame in found] == [
        (frame.camera, frame.index, frame.t_ns) for frame in shown
    ]
    for frame, original in zip(found, shown, strict=True):
        np.testing.assert_array_equal(frame.image, original.image)


def test_frames_that_no_policy_used_can_be_left_out(tmp_path):
    record_lockstep(tmp_path / "all.mcap")
    with McapRecorder(tmp_path / "used.mcap", {}, frames="used") as recorder:
        recorder.state(RobotMode.RUNNING, observation(noisy("front", 0)), 10**9)
    counts = Recording(tmp_path / "used.mcap").summary().counts
    assert counts == {"/state": 1}


def test_a_recording_is_never_written_over(tmp_path):
    record_lockstep(tmp_path / "run.mcap")
    with pytest.raises(MemrtError, match="a new file"):
        McapRecorder(tmp_path / "run.mcap", {})
    with pytest.raises(MemrtError, match="a folder that exists"):
        McapRecorder(tmp_path / "nowhere" / "run.mcap", {})


@pytest.mark.parametrize("content", [b"", b"not a recording at all", b"\x89MCAP0\r\n"])
def test_something_else_is_refused(tmp_path, content):
    (tmp_path / "run.mcap").write_bytes(content)
    with pytest.raises(MemrtError, match="memrt run --record"):
        Recording(tmp_path / "run.mcap")


def test_a_slow_disk_costs_frames_before_decisions_and_every_loss_is_counted(tmp_path, monkeypatch):
    """The disk takes nothing while the loop runs; the loop does not wait for it."""
    monkeypatch.setattr(recorder_module, "QUEUE_BYTES", 100_000)
    monkeypatch.setattr(recorder_module, "QUEUE_ITEMS", 60)
    monkeypatch.setattr(recorder_module, "MESSAGE_BYTES", 500)
    disk = threading.Event()
    monkeypatch.setattr(recorder_module.BoundedQueue, "get", waiting_for(disk, recorder_module.BoundedQueue.get))
    path = tmp_path / "run.mcap"
    offered = 200
    with McapRecorder(path, {}) as recorder:
        for index in range(offered):
            frame = noisy("front", index, side=32)
            recorder.state(RobotMode.RUNNING, observation(frame), frame.t_ns)
        queue = recorder._queue
        assert queue.items_waiting <= 60
        assert queue.bytes_waiting <= 100_000
        disk.set()
    summary = Recording(path).summary()
    assert summary.dropped == dict(recorder.dropped)
    assert summary.counts["/frames/front"] + recorder.dropped["frames that no policy used"] == offered
    assert summary.counts["/state"] + recorder.dropped["states"] == offered
    assert summary.counts["/state"] > summary.counts["/frames/front"] > 0
    said = [event.message for event in Recording(path).messages(lambda topic: topic == "/events")]
    assert [(event.event, event.arguments) for event in said if isinstance(event, Log)] == [
        ("dropped", dict(recorder.dropped))
    ]


def test_a_dropped_frame_that_a_policy_uses_after_all_is_recorded_and_no_longer_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "OTHER_FRAME_SHARE", 0.0)
    with McapRecorder(tmp_path / "run.mcap", {}) as recorder:
        frames = [noisy("front", index) for index in range(3)]
        for frame in (*frames, *frames):
            recorder.state(RobotMode.RUNNING, observation(frame), frame.t_ns)
        assert recorder.dropped == {"frames that no policy used": 3}
        recorder.high_level(call_with(observation(frames[1])))
        assert recorder.dropped == {"frames that no policy used": 2}
    assert [frame.index for frame in frames_of(Recording(tmp_path / "run.mcap"))] == [1]


def call_with(seen: Observation) -> HighLevelCall:
    return HighLevelCall(index=0, goal="", observation=seen, before=None, reply=None, t_ns=seen.t_ns, duration_ns=1)


def waiting_for(disk: threading.Event, get):
    def slow(queue):
        disk.wait()
        return get(queue)

    return slow


def test_a_memory_that_cannot_be_written_ends_the_recording_and_not_the_run(tmp_path, monkeypatch):
    def broken(*_):
        raise TypeError("cannot be written")

    monkeypatch.setattr(recorder_module, "memory_of", broken)
    with McapRecorder(tmp_path / "run.mcap", {}) as recorder:
        assert run_observed(recorder).status == "success"
    assert "cannot be written" in recorder.failure


def child(code: str, *arguments: object) -> subprocess.Popen:
    head = f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent / 'loop')!r}]\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


FULL_DISK = """
    import resource, signal
    from pathlib import Path
    from memrt.runtime.recording import recorder
    from recorded_runs import record_lockstep
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a file beyond the limit is an OSError, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))
    recorder.FLUSH_S = recorder.POLL_S = 0.0
    closed = recorder.McapRecorder.close
    def close(self, end=None):
        closed(self, end)
        print(self.failure)
    recorder.McapRecorder.close = close
    print(record_lockstep(Path(sys.argv[1])).status)
"""


def test_a_full_disk_ends_the_recording_and_not_the_run(tmp_path):
    """The file then ends with its last whole record, and all of it can be read."""
    path = tmp_path / "run.mcap"
    out, _ = child(FULL_DISK, path).communicate(timeout=300)
    assert "success" in out
    assert "the recording ends early: File too large" in out
    summary = Recording(path).summary()
    assert summary.end is None
    assert "cut off" in summary.cut_off
    assert 0 < path.stat().st_size <= 6_000


def test_the_rest_of_the_disk_is_left_to_others(tmp_path, monkeypatch):
    free = [10_000]
    monkeypatch.setattr(recorder_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=free[0]))
    with McapRecorder(tmp_path / "run.mcap", {}, keep_free=5_000) as recorder:
        free[0] = 4_999
    assert "kept for others" in recorder.failure
    with pytest.raises(MemrtError, match="kept for others"):
        McapRecorder(tmp_path / "next.mcap", {}, keep_free=5_000)
    assert not (tmp_path / "next.mcap").exists()


def test_the_oldest_recordings_give_way_and_nothing_else_does(tmp_path):
    for age, name in enumerate(("c.mcap", "a.mcap", "b.mcap", "notes.txt")):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1_000 + age, 1_000 + age))
    assert keep_newest(tmp_path, 300) == []
    assert keep_newest(tmp_path, 299) == [tmp_path / "c.mcap"]
    assert keep_newest(tmp_path, 0) == [tmp_path / "a.mcap", tmp_path / "b.mcap"]
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


KILLED = """
    import time
    from pathlib import Path
    import numpy as np
    from memrt.runtime.recording import recorder
    from memrt.runtime.recording.reader import Recording
    from test_recorder import noisy, observation
    from memrt.runtime.types import RobotMode
    recorder.FLUSH_S = 0.1
    recording = recorder.McapRecorder(Path(sys.argv[1]), {"goal": "survive"})
    for index in range(100_000):
        frame = noisy("front", index)
        recording.state(RobotMode.RUNNING, observation(frame), frame.t_ns)
        if index == 20:
            while Recording(Path(sys.argv[1])).summary().counts.get("/frames/front", 0) <= index:
                time.sleep(0.01)
            print("flushed", flush=True)
        time.sleep(0.001)
"""


def test_a_killed_process_loses_only_what_was_not_flushed(tmp_path):
    path = tmp_path / "run.mcap"
    process = child(KILLED, path)
    assert process.stdout.readline() == "flushed\n"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=300)
    process.stdout.close()
    recording = Recording(path)
    summary = recording.summary()
    assert recording.run["goal"] == "survive"
    assert "cut off" in summary.cut_off
    assert summary.counts["/frames/front"] >= 21
    found = frames_of(recording)
    assert [frame.index for frame in found] == list(range(len(found)))
    np.testing.assert_array_equal(found[-1].image, noisy("front", found[-1].index).image)


def test_a_file_cut_anywhere_is_read_up_to_there(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "FLUSH_S", 0.0)
    monkeypatch.setattr(recorder_module, "POLL_S", 0.0)
    record_lockstep(tmp_path / "run.mcap")
    whole = (tmp_path / "run.mcap").read_bytes()
    everything = [recorded.message for recorded in Recording(tmp_path / "run.mcap").messages()]
    begun = Recording(tmp_path / "run.mcap").run
    cut = tmp_path / "cut.mcap"
    read = []
    for size in range(len(whole) - 1, 0, -len(whole) // 60):
        cut.write_bytes(whole[:size])
        try:
            recording = Recording(cut)
        except MemrtError:  # not even the metadata is there
            read.append(0)
            continue
        assert recording.run == begun
        found = [recorded.message for recorded in recording.messages()]
        assert found == everything[: len(found)]
        read.append(len(found))
    assert read == sorted(read, reverse=True)
    assert read[0] == len(everything)
    assert read[-1] == 0


def test_a_flipped_bit_is_found(tmp_path):
    record_lockstep(tmp_path / "run.mcap")
    content = (tmp_path / "run.mcap").read_bytes()
    with (tmp_path / "run.mcap").open("rb") as file:
        chunks = make_reader(file).get_summary().chunk_indexes
    begin, end = chunks[0].chunk_start_offset, chunks[-1].chunk_start_offset + chunks[-1].chunk_length
    spoilt = tmp_path / "spoilt.mcap"
    for position in range(begin, end, (end - begin) // 30):
        spoilt.write_bytes(content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :])
        assert Recording(spoilt).summary().cut_off
