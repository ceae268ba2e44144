"""`memrt run --record` and `memrt replay`: whole runs with a policy that only nods."""

import json
import shutil

import numpy as np
import pytest
import typer
from test_run_command import Counter, Nod, make_bundle
from typer.testing import CliRunner

from memrt.runtime.cli import replay_command, run_command, run_policies, run_session
from memrt.runtime.errors import MemrtError

APP = typer.Typer()
run_command.register(APP)
replay_command.register(APP)


def memrt(*arguments: object):
    return CliRunner().invoke(APP, [*map(str, arguments)])


class NodsFurther(Nod):
    """At its second call one joint target is a thousandth of a radian off."""

    def act(self, observation, subgoal, goal, noise, *, playing=None):
        reply = super().act(observation, subgoal, goal, noise)
        if noise[0, 0] % 2:
            reply.chunk.actions[4, 5] += 1e-3
        return reply


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture
def policies(monkeypatch):
    """Stands in for the engines; call it with what shall decide at the replay."""

    def opened(low_level):
        return lambda bundle, threads, stack, **_: (Counter(), low_level())

    monkeypatch.setattr(run_session, "open_policies", opened(Nod))
    monkeypatch.setattr(run_policies, "open_policies", opened(Nod))
    return lambda low_level: monkeypatch.setattr(run_policies, "open_policies", opened(low_level))


@pytest.fixture
def recorded(bundle, policies, tmp_path):
    path = tmp_path / "run.mcap"
    result = memrt("run", "--bundle", bundle, "--lockstep", "--duration", 1, "--record", path, "--json")
    assert result.exit_code == 0, result.exception
    recording = json.loads(result.stdout)["recording"]
    assert recording["dropped"] == {}
    assert recording["bytes"] == path.stat().st_size
    return path


def test_a_recorded_run_is_replayed_equal(recorded):
    result = memrt("replay", recorded)
    assert result.exit_code == 0, result.exception
    assert "equal, bit for bit" in result.stdout
    values = json.loads(memrt("replay", recorded, "--json").stdout)
    assert values["equal"]
    assert values["recorded_bundle"]
    assert values["stages"]["low level"] == {"rerun": 3, "different": 0, "skipped": {}, "equal": 3}
    assert json.loads(memrt("replay", recorded, "--until", 2, "--json").stdout)["stages"]["low level"]["rerun"] == 1


def test_the_first_difference_is_named(recorded, policies):
    policies(NodsFurther)
    result = memrt("replay", recorded)
    assert result.exit_code == 1
    assert "first difference: low level call 1 at 0.400 s, actions" in result.stdout
    assert "largest difference of an action: 0.001" in result.stdout
    values = json.loads(memrt("replay", recorded, "--json").stdout)
    assert (values["first_difference"]["field"], values["first_difference"]["call"]) == ("actions", 1)
    np.testing.assert_allclose(values["largest_action_difference"], 1e-3)


def test_info_says_what_a_recording_holds(recorded, bundle):
    values = json.loads(memrt("replay", recorded, "--info", "--json").stdout)
    assert values["complete"]
    assert values["outcome"] == "time_over"
    assert values["messages"]["/low_level"] == values["messages"]["/commands"] == 3
    assert values["run"]["bundle"] == str(bundle)
    text = memrt("replay", recorded, "--info").stdout
    assert "time_over" in text
    assert "/frames/front" in text


def test_a_file_that_is_cut_off_is_replayed_up_to_there(recorded, tmp_path):
    cut, whole = tmp_path / "cut.mcap", recorded.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    values = json.loads(memrt("replay", cut, "--info", "--json").stdout)
    assert not values["complete"]
    assert "cut off" in values["cut_off"]
    cut.write_bytes(whole[:-100])  # only the index is incomplete
    result = memrt("replay", cut)
    assert result.exit_code == 0
    assert "cut off" in result.stdout


def test_another_bundle_is_refused_unless_named(recorded, bundle, tmp_path):
    other = make_bundle(tmp_path / "other", policy="memoryless")
    moved = tmp_path / "moved"
    shutil.move(bundle, moved)
    shutil.copytree(other, bundle)
    try:
        refused = memrt("replay", recorded)
        assert isinstance(refused.exception, MemrtError)
        assert "--bundle" in str(refused.exception)
        named = memrt("replay", recorded, "--bundle", other)
        assert named.exit_code == 0
        assert "another bundle than the recorded one" in named.stdout
    finally:
        shutil.rmtree(bundle)
        shutil.move(moved, bundle)


def test_a_file_that_is_there_is_refused_before_anything_is_loaded(bundle, tmp_path):
    (tmp_path / "run.mcap").write_bytes(b"precious")
    result = memrt("run", "--bundle", bundle, "--lockstep", "--record", tmp_path / "run.mcap")
    assert "a new file" in str(result.exception)
    assert (tmp_path / "run.mcap").read_bytes() == b"precious"


def test_a_real_time_run_is_recorded_with_its_frames_and_states(bundle, policies, tmp_path):
    result = memrt("run", "--bundle", bundle, "--duration", 2, "--record", tmp_path / "run.mcap")
    assert "recorded" in result.stdout
    values = json.loads(memrt("replay", tmp_path / "run.mcap", "--info", "--json").stdout)
    assert values["messages"]["/state"] > 10
    assert values["run"]["clock"]["unix_ns"] > values["run"]["clock"]["monotonic_ns"]
    assert memrt("replay", tmp_path / "run.mcap").exit_code == 0
