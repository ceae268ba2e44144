"""The traces of all windows in one file for ui.perfetto.dev: each window is a process of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memrt.runtime.profile.window import Window


def combined(windows: Sequence[Window]) -> dict[str, Any]:
    """Chrome's JSON Object Format. Times are the monotonic clock's, so the windows lie where they were measured."""
    rows: list[dict[str, Any]] = []
    for number, window in enumerate(windows, start=1):
        name = f"{number}: {window.condition}, repetition {window.repetition}"
        rows.append({"ph": "M", "pid": number, "tid": 0, "name": "process_name", "args": {"name": name}})
        rows.append({"ph": "M", "pid": number, "tid": 0, "name": "process_sort_index", "args": {"sort_index": number}})
        events = window.trace.to_chrome()["traceEvents"]
        rows += [{**row, "pid": number} for row in events if not row["name"].startswith("process_")]
    dropped = sum(window.trace.dropped for window in windows)
    return {"traceEvents": rows, "displayTimeUnit": "ms", "otherData": {"dropped": dropped}}


def write_trace(path: Path, windows: Sequence[Window]) -> None:
    """Write the file, whole or not at all. Raises OSError when the disk refuses."""
    staging = path.with_name(path.name + ".part")
    staging.write_text(json.dumps(combined(windows), separators=(",", ":"), allow_nan=False), encoding="utf-8")
    os.replace(staging, path)
