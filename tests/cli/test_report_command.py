"""`memrt report`: from a recorded run to its page, by the two commands that a user types."""

import json

import typer
from test_run_command import Counter, Nod, make_bundle
from typer.testing import CliRunner

from memrt.runtime.cli import report_command, run_command, run_session
from memrt.runtime.errors import MemrtError

APP = typer.Typer()
run_command.register(APP)
report_command.register(APP)


def memrt(*arguments: object):
    return CliRunner().invoke(APP, [*map(str, arguments)])


def test_a_recorded_run_becomes_a_page_that_names_its_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(run_session, "open_policies", lambda *_, **__: (Counter(), Nod()))
    bundle, recording = make_bundle(tmp_path / "bundle"), tmp_path / "run.mcap"
    made = memrt("run", "--bundle", bundle, "--lockstep", "--duration", 1, "--record", recording)
    assert made.exit_code == 0, made.exception
    result = memrt("report", tmp_path, "--json")
    assert result.exit_code == 0, result.exception
    found = json.loads(result.stdout)
    page = (tmp_path / "run.html").read_text()
    assert found["bytes"] == (tmp_path / "run.html").stat().st_size
    assert (found["setting"], found["outcome"], found["policy"]) == ("simulated", "time_over", "am_grounded")
    assert found["bundle_sha256"] in page
    assert (found["chunks"], found["video_frames"] > 0, found["remarks"]) == (3, True, [])
    assert str(tmp_path) not in page  # where it lay tells about a computer, not about the run
    smaller = memrt("report", recording, "--no-video", "-o", tmp_path / "small.html")
    assert smaller.exit_code == 0
    assert (tmp_path / "small.html").stat().st_size < found["bytes"]


def test_what_is_no_recording_and_no_place_for_a_page_is_refused(tmp_path):
    (tmp_path / "run.mcap").write_bytes(b"something else")
    assert "memrt run --record" in str(memrt("report", tmp_path / "run.mcap").exception)
    refused = memrt("report", tmp_path / "run.mcap", "-o", tmp_path / "nowhere" / "page.html").exception
    assert isinstance(refused, MemrtError)
    assert "a folder that exists" in str(refused)
