"""The benches of the real-time core: what they report, and that the check for tears can fail."""

from __future__ import annotations

import json

import numpy as np
from typer.testing import CliRunner

from memrt.runtime._core import play_seam_cases
from memrt.runtime.bench import ring
from memrt.runtime.cli import build_app


def run(*arguments: str) -> dict:
    result = CliRunner().invoke(build_app(), ["bench", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    report: dict = json.loads(result.stdout)
    assert {"speedup", "runs", "hardware", "versions", "measured_on"} <= set(report)
    return report


def test_ring_reports_both_times_and_no_torn_frame() -> None:
    report = run("ring", "--height", "48", "--width", "64", "--runs", "3", "--reads", "2000")
    assert report["write_ms"] > 0
    assert report["copy_ms"] > 0
    assert report["borrow_us"] > 0
    assert set(report["record_ns"]) == {"empty_loop", "ring", "span", "span_integer", "instant_text"}
    assert all(value > 0 for value in report["record_ns"].values())
    assert report["torn_reads"] == 0
    assert 1 <= report["frames_seen"] <= report["reads"] == 2000
    assert report["frames_written"] >= report["frames_seen"]


def test_a_torn_frame_is_counted(monkeypatch) -> None:
    """A reader that sees frames whose last row is of another one."""
    borrow = ring.FrameRing.borrow

    class Torn:
        def __init__(self, frame) -> None:
            self.index, self.release = frame.index, frame.release
            self.image = np.array(frame.image)
            self.image[-1] += 1

    class TearingRing:
        def __init__(self, opened) -> None:
            self._opened = opened

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._opened.close()

        def borrow(self):
            frame = borrow(self._opened)
            return None if frame is None else Torn(frame)

        @property
        def written(self):
            return self._opened.written

    opened = ring._opened
    monkeypatch.setattr(ring, "_opened", lambda name: TearingRing(opened(name)))
    torn, _, _ = ring._torn_reads(50)
    assert torn == 50


def test_control_reports_both_loops() -> None:
    report = run("control", "--rate", "200", "--seconds", "0.2", "--runs", "1")
    assert report["ours_p99_ms"] >= 0
    assert report["python_p99_ms"] >= 0
    assert set(report["realtime"]) == {"ours", "python"}


def test_resize_reports_both_times_of_the_same_bytes() -> None:
    report = run("resize", "--height", "48", "--width", "64", "--size", "32", "--runs", "3")
    assert report["frame"] == [48, 64, 3]
    for name in ("ours", "pillow", "portable", "bicubic_ours", "bicubic_pillow"):
        assert report[f"{name}_ms"] > 0
    assert report["differing_bytes"] == 0


def test_seam_reports_the_worst_of_all_cases_whatever_the_blocks() -> None:
    result = CliRunner().invoke(build_app(), ["bench", "seam", "--cases", "700", "--first", "100", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["episodes"] == 700
    assert (report["success_rate"], report["violations"], report["first_violation"]) == (1.0, 0, None)
    assert all(0.99 < share <= 1.0 for share in report["largest_share_of_limit"].values())
    assert report["tracking_rms_mrad"]["max"] <= report["tracking_limit_mrad"] == 5.0
    whole = play_seam_cases(100, 700)
    assert report["counts"]["commands"] == whole["commands"]
    assert report["tracked_chunks"] == len(whole["tracking_rms"])
    assert report["worst_tracked_case"] == whole["worst_tracked"]
    assert report["furthest_outside_range_rad"] == whole["outside"]
