"""The recording of a run: what it is told about the run at the beginning and the end, and the alarm when it fails."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from memrt.runtime.bundle import Bundle
from memrt.runtime.device_engines import this_device
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.recording.mcap_process import McapProcess
from memrt.runtime.recording.recorder import Frames, McapRecorder
from memrt.runtime.trace import Trace


def check_record(path: Path | None) -> None:
    """Refuse, before anything is loaded, a file that could not be recorded."""
    if path is not None and (path.exists() or not path.absolute().parent.is_dir()):
        raise MemrtError(
            f"recording {path}",
            expected="a new file, in a folder that exists",
            found="a file that is there already" if path.exists() else f"no folder {path.absolute().parent}",
            fix="name another file with --record",
        )


class RunRecording:
    """A recorder, and what the run has to say about itself."""

    def __init__(
        self,
        path: Path,
        frames: Frames,
        bundle: Bundle,
        settings: LoopSettings,
        run: Mapping[str, Any],
        *,
        keep_free: int = 0,
    ) -> None:
        """Begin; `run` says what the caller knows: mode, goal, robot, task, threads.

        `keep_free` is the recorder's. Raises what a recorder raises.
        """
        self._alarmed = False
        device = this_device(bundle)
        about = {
            **run,
            "seed": settings.seed,
            "policy": bundle.policy.name,
            "memory": msgspec.to_builtins(bundle.policy.memory),
            "precision": bundle.manifest.precision,
            "bundle": str(bundle.path.resolve()),
            "bundle_sha256": bundle.sha256,
            "settings": asdict(settings),
            "device": device.describe(),
            "versions": {
                **{name: version(name) for name in ("memrt", "numpy", "mcap")},
                device.backend: device.version,
            },
            "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
        }
        self.recorder = McapRecorder(path, about, frames=frames, open_file=McapProcess, keep_free=keep_free)

    def alarm(self, say: Callable[[str], None], trace: Trace | None, t_ns: int) -> None:
        """Say once, and put into the trace, that the recording has ended early. To be called every now and then."""
        if self.recorder.failure and not self._alarmed:
            self._alarmed = True
            say(self.recorder.failure)
            if trace is not None:
                trace.instant("recording stopped", "recorder", t_ns, reason=self.recorder.failure)

    def finish(self, record: RunRecord) -> dict[str, Any]:
        """Write the run's outcome, counts and latencies, end the file, and say how it went, for the run's report."""
        ended = {"outcome": record.status, "outcome_by": record.outcome_by, "reason": record.reason}
        self.recorder.close({**ended, "report": record.to_dict()})
        return self.recorder.to_dict()


def recording_line(recording: Mapping[str, Any]) -> str:
    """One line for people."""
    lost = ", ".join(f"{count} {kind}" for kind, count in sorted(recording["dropped"].items()))
    parts = [
        f"recorded {recording['messages']} messages, {recording['bytes'] / 1e6:.1f} MB, to {recording['path']}",
        f"dropped {lost}" if lost else "none dropped",
        recording["failure"],
    ]
    return "; ".join(part for part in parts if part)
