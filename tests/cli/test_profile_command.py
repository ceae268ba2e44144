"""`memrt profile`: refusals before anything is measured, and the reference bundle in short windows."""

import json
from functools import partial
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from memrt.robot_io.config import RobotConfig
from memrt.runtime.cli import profile_command, profile_session, run_checks
from memrt.runtime.errors import MemrtError
from memrt.runtime.profile.protocol import ProfileProtocol

APP = typer.Typer()
APP.callback()(lambda: None)
profile_command.register(APP)


def invoke(*arguments: object):
    return CliRunner().invoke(APP, ["profile", *map(str, arguments)])


def refusal(*arguments: object) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, MemrtError), result.output
    return str(result.exception)


@pytest.fixture
def short(monkeypatch):
    """The protocol with hardly any warm-up."""
    monkeypatch.setattr(
        profile_session, "ProfileProtocol", partial(ProfileProtocol, warm_up_calls=1, settle_s=0.1), raising=True
    )


def test_help_says_the_order_and_gives_examples():
    words = " ".join(invoke("--help").stdout.replace("│", " ").split())
    assert "high level on, off, on, off" in words
    assert "memrt profile --robot sim" in words
    assert "memrt profile --robot none --seconds 10 --json" in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--robot", "simm"], "did you mean `sim`"),
        (["--robot", "none", "--policy", "am_groundd"], "did you mean `am_grounded`"),
        (["--robot", "none", "--bundle", "/nowhere"], "nothing there"),
        (["--robot", "none", "--speed", "1.5"], "at most 1"),
        (["--robot", "none", "-o", "/dev/null/profile"], "a folder that can be written"),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments, words):
    line = refusal(*arguments)
    assert words in line
    assert "\n" not in line


def test_a_robot_that_is_no_simulation_needs_arm(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "memrt.robot_io.config.load_robot",
        lambda name: RobotConfig(name="lab", driver="lab", cameras=("front", "wrist")),
    )
    assert "it is unsigned" in refusal("--robot", "lab", "-o", tmp_path)
    monkeypatch.setattr(run_checks, "check_proof", lambda *arguments, **named: None)
    line = refusal("--robot", "lab", "-o", tmp_path, "--allow-unsigned")
    assert "profiling moves robot `lab`" in line
    assert "--arm" in line
    assert not list(tmp_path.iterdir())


def test_a_profile_without_a_robot_measures_both_policies(short, tmp_path):
    """The reference bundle's own engines on synthetic pictures. How fast they are is not the question."""
    result = invoke("--robot", "none", "--seconds", 1.5, "-o", tmp_path / "made", "--json")
    assert result.exit_code == 0, result.exception
    document = json.loads(result.stdout)
    on, off = document["conditions"].values()
    assert {"high level: decode", "low level: step", "observation to chunk"} <= set(on["stages"])
    assert set(off["stages"]) == {stage for stage in on["stages"] if not stage.startswith("high level")}
    assert on["amounts"]["high level: new tokens"]["p50"] > 0
    assert on["misses"]["control_ticks"] is None

    assert document["hardware"]["cores"] > 0
    assert document["verdict"]["lines"][-2]["met"] is None
    assert result.stderr.count("window ") == 4
    written = {path.name for path in Path(tmp_path / "made").iterdir()}
    assert written == {"profile.json", "profile.html", "trace.json"}
    assert json.loads((tmp_path / "made" / "profile.json").read_text()) == document


def test_without_json_tables_are_printed(short, tmp_path):
    result = invoke("--robot", "none", "--seconds", 1, "-o", tmp_path)
    assert result.exit_code == 0, result.exception
    for words in ("budget:", "high level: time to live", "low level: step", "A/A", "engines ready in", "trace.json"):
        assert words in result.stdout
