"""`memrt eval --suite memory`: what it prints, writes and refuses. Playing is tested in tests/suite."""

import json
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from memrt.runtime.cli import eval_command, suite_command
from memrt.runtime.cli.suite_command import parse_seeds
from memrt.runtime.errors import MemrtError

pytest.importorskip("memrt.sim.suite.sweep")
sys.path.insert(0, str(Path(__file__).parents[1] / "suite"))
from suite_pieces import InProcess, Losing, make_episode, store_expert

APP = typer.Typer()
eval_command.register(APP)
APP.callback()(lambda: None)


def invoke(*arguments: object):
    return CliRunner().invoke(APP, ["eval", "--suite", "memory", *(str(argument) for argument in arguments)])


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    store_expert(folder, [make_episode(seed, success=seed != 8) for seed in (7, 8)])
    return folder


CHOSEN = ("--policies", "expert,am_simple", "--tasks", "PickXtimes", "--seeds", "7-8")


def test_what_is_stored_is_not_played_again_and_one_json_object_is_printed(results, tmp_path, monkeypatch):
    monkeypatch.setattr(suite_command, "_executor", lambda options: pytest.fail("something was played"))
    result = invoke(*CHOSEN, "--results", results, "--bundles", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    played, unplayed = json.loads(result.stdout)["cells"]
    assert (played["success_rate"], played["episodes"]) == (0.5, 2)
    assert played["wilson95"] == pytest.approx([0.0945, 0.9055], abs=1e-4)
    assert (unplayed["policy"], unplayed["success_rate"]) == ("am_simple", None)
    assert "no bundle" in unplayed["why"]


def test_what_is_missing_is_played(results, tmp_path, monkeypatch):
    executor = InProcess(Losing(0))
    monkeypatch.setattr(suite_command, "_executor", lambda options: (executor, 1))
    result = invoke(*CHOSEN[:-1], "7-10", "--results", results, "--bundles", tmp_path)
    assert result.exit_code == 0, result.output
    assert executor.played == [9, 10]
    assert "75 %" in result.stdout
    assert "[2/2] expert, int8, lockstep, on PickXtimes, seed 10: success after 110 steps" in result.stderr


def test_a_lost_episode_is_told(results, tmp_path, monkeypatch):
    monkeypatch.setattr(suite_command, "_executor", lambda options: (InProcess(Losing(2)), 1))
    result = invoke(*CHOSEN[:-1], "7-9", "--results", results, "--bundles", tmp_path)
    assert result.exit_code == 1
    assert "seed 9: lost; tried again" in result.stderr
    assert "seed 9: lost; given up" in result.stderr


def test_ctrl_c_keeps_what_is_done_and_reports_it(results, tmp_path, monkeypatch):
    class Interrupted(InProcess):
        def run(self, jobs):
            yield next(super().run(jobs))
            raise KeyboardInterrupt

    monkeypatch.setattr(suite_command, "_executor", lambda options: (Interrupted(Losing(0)), 1))
    result = invoke(*CHOSEN[:-1], "7-12", "--results", results, "--bundles", tmp_path, "--json")
    assert result.exit_code == 130
    report = json.loads(result.stdout)
    assert report["interrupted"]
    assert (report["cells"][0]["episodes"], report["cells"][0]["missing"]) == (3, 3)


def test_a_report_of_what_is_stored_with_its_table_and_picture(results, tmp_path):
    table, picture = tmp_path / "table.md", tmp_path / "table.svg"
    result = invoke("--stored", "--results", results, "--markdown", table, "--plot", picture)
    assert result.exit_code == 0, result.output
    assert "50 %" in result.stdout
    assert "| `expert` | 50 % (9–91) |" in table.read_text(encoding="utf-8")
    assert picture.read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--policy", "am_simple"), "the options of one policy"),
        (("--policies", "am_groundet"), "did you mean `am_grounded`"),
        (("--policies", "my/policy.yaml"), "--bundles"),
        (("--tasks", "PickXtime"), "PickXtimes"),
        (("--seeds", "9-7"), "--episodes"),
        (("--plot", "table.png"), ".svg"),
        (("--markdown", "/no/such/folder/table.md"), "a folder that exists"),
        (("--on", "slurm"), "ray"),
        (("--on", "ray", "--real-time"), "one of both"),
        (("--stored", "--results", "/no/such/folder"), "leave --stored out"),
        (("--verify", "3", "--results", "/no/such/folder", "--policies", "expert"), "play some first"),
    ],
)
def test_refusals_come_before_any_work(arguments, hint):
    result = invoke(*arguments)
    assert isinstance(result.exception, MemrtError), result.output
    assert hint in str(result.exception)


@pytest.mark.parametrize(
    "arguments", [("--policies", "flat"), ("--stored",), ("--precision", "int8", "--precision", "fp32")]
)
def test_options_of_a_suite_mean_nothing_without_one(arguments):
    result = CliRunner().invoke(APP, ["eval", *arguments])
    assert isinstance(result.exception, MemrtError)


def test_ray_is_named_where_it_is_missing(monkeypatch):
    from memrt.sim.suite.ray_workers import RayWorkers

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MemrtError, match=r"pip install 'memrt\[ray\]'"):
        RayWorkers(None)


@given(st.lists(st.tuples(st.integers(0, 2_000_000), st.integers(0, 50)), min_size=1, max_size=5))
def test_seeds_are_ranges_with_both_ends_and_none_twice(spans):
    text = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in spans)
    seeds = parse_seeds(text)
    assert set(seeds) == {seed for first, more in spans for seed in range(first, first + more + 1)}
    assert len(seeds) == len(set(seeds))


@pytest.mark.parametrize("text", ["", "a", "-3", "1-", "0-1000000", "1--2", "5-4"])
def test_other_seeds_are_refused(text):
    with pytest.raises(MemrtError, match="seeds and ranges"):
        parse_seeds(text)
