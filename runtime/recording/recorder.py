"""Records a run to MCAP in a thread of its own: the loop hands over references and goes on.

What the loop's threads do is bounded and small: note which frames are new, and append to a bounded queue. All encoding,
compressing and writing happens in the recorder's thread, which is niced, so that it loses first. What does not fit into
the queue is dropped and counted: first frames that no policy used, then frames, decisions last. A disk that fails, or a
computer that runs out of memory, ends the recording, never the run.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.observer import HighLevelCall, LowLevelCall
from memrt.runtime.recording.bounded_queue import BoundedQueue
from memrt.runtime.recording.encoding import (
    answer_of,
    command_of,
    low_level_of,
    memory_of,
    request_of,
    seen,
    state_of,
    without_pixels,
)
from memrt.runtime.recording.history import WatchedHistory
from memrt.runtime.recording.mcap_file import McapFile
from memrt.runtime.recording.mcap_process import McapProcess
from memrt.runtime.recording.memory_watch import running_out
from memrt.runtime.recording.messages import FRAMES, Log, RawImage, Seen
from memrt.runtime.types import ActionChunk, BorrowedFrame, Frame, Observation, RobotMode

QUEUE_ITEMS = 8_192  # 90 s of the 50 states and 40 frames per second of a run with two cameras
QUEUE_BYTES = 64 << 20  # 340 frames of 256x256
USED_FRAME_SHARE, OTHER_FRAME_SHARE = 0.75, 0.25  # of the queue, before frames are dropped
MESSAGE_BYTES = 4_096  # what anything but a frame is counted as: a memory of 60 subgoals, a chunk of 16 actions
FRAMES_KNOWN = 4_096  # newest frames per camera of which it is known whether they are recorded already
FLUSH_S = 1.0  # what a crash may cost
POLL_S = 0.05
NICE = 15  # below both policies
CLOSE_S = 30.0  # how long closing waits for the disk to take what is still queued

Frames = Literal["all", "used"]
OTHER_FRAMES = "frames that no policy used"
RUN, END = "memrt.run", "memrt.end"  # the metadata records at the beginning and the end


class McapRecorder:
    """A `LoopObserver`, and a context manager: records from construction until `close`.

    It owns nothing that it is given; arrays must not be written to after they were handed over.
    """

    def __init__(
        self,
        path: Path,
        run: Mapping[str, object],
        *,
        frames: Frames = "all",
        open_file: Callable[[Path, str], McapFile | McapProcess] = McapFile,
        keep_free: int = 0,
    ) -> None:
        """Begin `path` with the metadata `run`. `frames`: all that the loop saw, or those that a policy used.

        `open_file`: `McapProcess` where a robot is driven beside it: that one can be ended alone. `keep_free`: bytes of
        the disk that are left to others; the recording ends there. Raises MemrtError for a file that is there already,
        and for a folder or a disk that does not take it.
        """
        self._path, self._all_frames, self._keep_free = path, frames == "all", keep_free
        self._queue: BoundedQueue[Callable[[], None]] = BoundedQueue(QUEUE_ITEMS, QUEUE_BYTES)
        self._known: dict[
            str, dict[int, str]
        ] = {}  # by camera and index: "" when recorded, else what it was dropped as
        self._known_lock = threading.Lock()
        self._failure = ""
        self._messages = self._synced_messages = 0
        self._reported_drops = 0
        self._newest_ns = 0
        self._end: Mapping[str, object] = {}
        self._quit = threading.Event()
        try:
            self._check_room()
            self._file = open_file(path, f"memrt {version('memrt')}")
            clock = {"monotonic_ns": time.monotonic_ns(), "unix_ns": time.time_ns()}
            self._file.metadata(RUN, {**run, "frames": frames, "clock": clock})
            self._file.flush()
        except OSError as error:
            raise MemrtError(
                f"recording {path}",
                expected="a new file, in a folder that exists, on a disk with room",
                found=error.strerror or error,
                fix="name another file with --record",
            ) from error
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str:
        """Why the recording ended before the run, "" while it goes on."""
        return self._failure

    @property
    def dropped(self) -> Counter[str]:
        """What did not fit into the queue, by kind."""
        return +self._queue.dropped

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values for the run's report."""
        return {
            "path": str(self._path),
            "messages": self._synced_messages,
            "bytes": self._file.bytes_written,
            "dropped": dict(self.dropped),
            "failure": self._failure,
        }

    def watched(self, observation: Observation) -> Observation:
        """Look through its history: the past frames that the policy asks for are recorded too."""
        if observation.history is None:
            return observation
        return replace(observation, history=WatchedHistory(observation.history, self._offer_lent))

    def high_level(self, call: HighLevelCall) -> None:
        """Record a call: its frames, the question, the answer, the memory after."""
        self._offer(call.observation.frames.values(), "frames", USED_FRAME_SHARE)
        history = call.observation.history
        observation = seen(call.observation, history.looks if isinstance(history, WatchedHistory) else None)
        kept = replace(call, observation=without_pixels(call.observation))
        self._put("high-level calls", lambda: self._write_high_level(kept, observation))

    def low_level(self, call: LowLevelCall) -> None:
        """Record a call: its frames, and the chunk with all that it was computed from."""
        self._offer(call.observation.frames.values(), "frames", USED_FRAME_SHARE)
        observation, kept = seen(call.observation), replace(call, observation=without_pixels(call.observation))
        self._put(
            "low-level calls", lambda: self._write("/low_level", kept.t_ns, low_level_of(kept, observation), kept.index)
        )

    def sent(self, call: int, chunk: ActionChunk, t_ns: int) -> None:
        """Record what went to the robot."""
        self._put("commands", lambda: self._write("/commands", t_ns, command_of(call, t_ns, chunk), call))

    def event(self, name: str, track: str, t_ns: int, **arguments: object) -> None:
        """Record that something happened."""
        self._put("events", lambda: self._write("/events", t_ns, Log.of(name, track, t_ns, arguments)))

    def state(self, mode: RobotMode, observation: Observation, t_ns: int) -> None:
        """Record where the robot is, and the frames that are new."""
        if self._all_frames:
            self._offer(observation.frames.values(), OTHER_FRAMES, OTHER_FRAME_SHARE)
        named = seen(observation)
        self._put("states", lambda: self._write("/state", t_ns, state_of(mode, named, t_ns)))

    def close(self, end: Mapping[str, object] | None = None) -> None:
        """Write what is queued, then the metadata `end`, and finish the file. Waits for the disk, but not forever."""
        if not self._quit.is_set():
            self._end = end or {}
            self._quit.set()
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():
                self._failure = self._failure or f"the disk did not take the end of it within {CLOSE_S:.0f} s"

    def __enter__(self) -> McapRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, kind: str, write: Callable[[], None]) -> None:
        if not self._failure:
            self._queue.put(write, MESSAGE_BYTES, kind)

    def _offer_lent(self, camera: str, lent: BorrowedFrame) -> None:
        """Queue a copy of a frame that will be overwritten, unless it is recorded already."""
        with self._known_lock:
            recorded = self._known.get(camera, {}).get(lent.index) == ""
        if not recorded:
            self._offer([Frame(camera, lent.index, lent.t_ns, lent.image.copy())], "frames", USED_FRAME_SHARE)

    def _offer(self, frames: Iterable[Frame], kind: str, share: float) -> None:
        """Queue the frames that are not recorded yet; one that was dropped has another chance when a policy uses it."""
        if self._failure:
            return
        for frame in frames:
            with self._known_lock:
                known = self._known.setdefault(frame.camera, {})
                dropped_as = known.get(frame.index)
                if dropped_as == "" or (dropped_as is not None and kind == OTHER_FRAMES):
                    continue
                if dropped_as:
                    self._queue.dropped[dropped_as] -= 1
                fits = self._queue.put(partial(self._write_frame, frame), frame.image.nbytes, kind, share)
                known[frame.index] = "" if fits else kind
                if len(known) > FRAMES_KNOWN:
                    del known[next(iter(known))]

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)  # Linux: of this thread only
        flushed_s = time.monotonic()
        try:
            while not self._quit.wait(POLL_S) or self._queue.items_waiting:
                while (write := self._queue.get()) is not None:
                    write()
                    if time.monotonic() - flushed_s >= FLUSH_S:
                        break
                if time.monotonic() - flushed_s >= FLUSH_S:
                    self._flush()
                    flushed_s = time.monotonic()
            self._flush()
            self._file.metadata(END, {**self._end, "dropped": dict(self.dropped)})
            self._file.finish()
        except Exception as error:  # whatever it is, a full disk above all, the run goes on
            reason = error.strerror if isinstance(error, OSError) else None
            self._failure = f"the recording ends early: {reason or repr(error)}"
            while self._queue.get() is not None:
                pass
        finally:
            self._file.close()

    def _flush(self) -> None:
        if running_out():
            raise OSError(errno.ENOMEM, "the computer is running out of memory")
        self._check_room()
        self._note_drops()
        self._file.flush()
        self._synced_messages = self._messages

    def _check_room(self) -> None:
        if shutil.disk_usage(self._path.parent).free < self._keep_free:
            raise OSError(errno.ENOSPC, f"the disk's last {self._keep_free / 1e9:g} GB are kept for others")

    def _note_drops(self) -> None:
        dropped = self.dropped
        if dropped.total() > self._reported_drops:
            self._reported_drops = dropped.total()
            self._write("/events", self._newest_ns, Log.of("dropped", "recorder", self._newest_ns, dict(dropped)))

    def _write(self, topic: str, t_ns: int, message: Any, sequence: int = 0) -> None:
        self._file.write(topic, t_ns, message, sequence)
        self._newest_ns = max(self._newest_ns, t_ns)
        self._messages += 1

    def _write_frame(self, frame: Frame) -> None:
        self._write(FRAMES + frame.camera, frame.t_ns, RawImage.of(frame), frame.index)

    def _write_high_level(self, call: HighLevelCall, observation: Seen) -> None:
        end_ns = call.t_ns + call.duration_ns
        self._write("/high_level/request", call.t_ns, request_of(call, observation), call.index)
        self._write("/high_level/answer", end_ns, answer_of(call), call.index)
        if call.reply is not None:
            self._write("/memory", end_ns, memory_of(call, call.reply.state), call.index)
