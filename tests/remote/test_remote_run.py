"""The committed bundle with its VLM asked elsewhere: the same motion, bit for bit, also when the server is killed."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from openai_double import WAIT_S, serving
from PIL import Image
from typer.testing import CliRunner

from memrt.export.pipeline import exportable
from memrt.runtime.bundle import load_bundle
from memrt.runtime.cli import build_app
from memrt.runtime.cli.default_bundle import find_bundle
from memrt.runtime.cli.remote_policy import find_remote_bundle
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.live_status import answered_text, answers_text
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.packaged import packaged_file
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.policy.low_level import LowLevelPolicy
from memrt.runtime.policy.remote.vlm import RemoteVlm
from memrt.runtime.policy.vlm_session import VlmSession
from memrt.runtime.recording.reader import Recording
from memrt.runtime.recording.recorded_vlm import RecordedVlm
from memrt.runtime.recording.recorder import McapRecorder
from memrt.runtime.recording.replay import replay
from memrt.runtime.remote_config import RemoteConfig
from memrt.runtime.trace import Trace
from memrt.sim.env import TabletopEnv

SEED = 1_000_003
STEPS = 64  # four high-level calls
KILLED_AT = 20  # after the second


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(find_bundle(None, "am_grounded", "int8"))


@pytest.fixture(scope="module")
def session(bundle):
    session = VlmSession.open(bundle)
    yield session
    session.close()


@pytest.fixture(scope="module")
def low_level(bundle):
    low_level = LowLevelPolicy(bundle)
    yield low_level
    low_level.close()


def answers_of(session):
    """What a server with the same weights says: it reads the question off the wire."""

    def rule(asked):
        system, user = (turn["content"] for turn in asked["messages"])
        parts = [part.get("text", "<image>") for part in user]
        urls = [part["image_url"]["url"] for part in user if part["type"] == "image_url"]
        files = [base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True) for url in urls]
        images = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
        session.forget_prefix()
        return session.generate(system, "".join(parts), images, asked["max_tokens"]).text

    return rule


def drive(bundle, high_level, low_level, steps=STEPS, **arguments):
    settings = replace(LoopSettings.from_policy(bundle.policy, seed=SEED), cap_steps=steps)
    with TabletopEnv("PickXtimes", SEED) as env:
        return run_lockstep(env, high_level, low_level, env.goal, settings, **arguments)


def served_elsewhere(bundle, double, on_board):
    config = RemoteConfig(endpoint=double.endpoint, on_board="am_grounded" if on_board else "hold", deadline_s=WAIT_S)
    return HighLevelPolicy.of(bundle.policy, RemoteVlm.open(bundle.policy, config, on_board))


def test_a_server_that_is_killed_in_mid_run_changes_nothing_of_the_motion(bundle, session, low_level, tmp_path):
    ours = drive(bundle, HighLevelPolicy.of(bundle.policy, session), low_level)
    other, trace = VlmSession.open(bundle), Trace()
    with serving(rule=answers_of(other)) as double, McapRecorder(tmp_path / "run.mcap", {}) as recorder:
        high_level = served_elsewhere(bundle, double, session)
        record = drive(
            bundle,
            high_level,
            low_level,
            on_step=lambda view: double.stop() if view.step == KILLED_AT else None,
            observer=recorder,
            trace=trace,
        )
    other.close()
    assert record.actions_sha256 == ours.actions_sha256
    assert [text for _, text in record.subgoals] == [text for _, text in ours.subgoals]
    assert (record.status, record.reason) == ("time_over", f"not done after {STEPS} control steps")
    assert record.answers == {"remote": 2, "on board": 2, "nobody": 0}
    assert record.to_dict()["high_level_answers"] == record.answers
    assert answers_text(record) == "2 times by the remote, 2 times on board; no connection 2"
    assert answered_text(record).plain.startswith("on board  no connection: ")
    assert record.latencies["high level, remote"].summary().count == 2
    assert record.latencies["high level, on board"].summary().count == 2
    calls = [event.arguments for event in trace.events() if (event.name, event.track) == ("call", "high level")]
    assert [bool(call.get("answered by remote")) for call in calls] == [True, True, False, False]
    assert calls[-1]["missed"].startswith("no connection")

    recorded = RecordedVlm(session)
    verdict = replay(
        Recording(tmp_path / "run.mcap"), HighLevelPolicy.of(bundle.policy, recorded), low_level, served=recorded
    )
    assert verdict.equal, verdict.first
    assert (verdict.stages["high level"].equal, verdict.taken_over) == (4, 2)


def test_with_nobody_on_board_the_run_ends_as_a_hold_that_says_why(bundle, low_level):
    with serving(rule=lambda asked: "pick up the red cube <100, 100><mem>Nothing yet.</mem>") as double:
        record = drive(
            bundle,
            served_elsewhere(bundle, double, None),
            low_level,
            steps=200,
            on_step=lambda view: double.stop() if view.step == KILLED_AT else None,
        )
    assert record.status == "held"
    assert record.reason.startswith("the high level has not answered for 3 s: no connection: ")
    assert record.steps == 80  # the first call more than 3 s after the last answer, to an image of step 16
    assert record.answers == {"remote": 2, "on board": 0, "nobody": 4}
    assert record.counts["chunks"] == 10  # the last subgoal was followed until then


def test_a_bundle_is_run_with_its_vlm_elsewhere_from_the_command_line(tmp_path):
    rule = {"rule": lambda asked: "pick up the red cube <100, 100>", "models": ("Qwen3-VL-4B",)}
    with serving(**rule) as double:
        options = ["run", "--lockstep", "--seed", SEED, "--duration", "1", "--json", "--remote", double.endpoint]
        options += ["--record", tmp_path / "run.mcap"]
        done = CliRunner().invoke(build_app(), list(map(str, options)))
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["policy"], report["outcome"]) == ("am_grounded", "time_over")
    assert report["remote"] == {
        "endpoint": double.endpoint,
        "model": "",
        "on_board": "am_grounded",
        "deadline_s": 1.0,
    }
    answers = report["high_level_answers"]
    assert answers["nobody"] == 0
    assert answers["remote"] + answers["on board"] == 2  # a machine that stalls for a second is answered on board
    replayed = CliRunner().invoke(build_app(), ["replay", str(tmp_path / "run.mcap"), "--json"])
    verdict = json.loads(replayed.stdout)
    assert verdict["equal"]
    assert verdict["taken_over"] == answers["remote"]


def test_a_policy_that_runs_on_anothers_bundle_is_not_exported():
    with pytest.raises(MemrtError, match="Fix: export `am_grounded`"):
        exportable(load_policy("remote"))


def test_which_policies_can_be_asked_elsewhere(tmp_path):
    found = find_bundle(None, "am_grounded", "int8")
    other = tmp_path / "other.yaml"
    text = yaml.safe_load(Path(packaged_file("policies", "remote", what="policy", file="it")).read_text())
    other.write_text(yaml.safe_dump(text | {"based_on": "memoryless"}))
    with pytest.raises(MemrtError, match="the same `memory`"):
        find_remote_bundle(None, str(other), "int8", None)
    with pytest.raises(MemrtError, match="the bundle of `am_grounded`"):  # as `memrt eval` would look for it
        find_bundle(None, "remote", "int8")
    with pytest.raises(MemrtError, match="key `endpoint` in --remote"):
        find_remote_bundle(found, None, "int8", "bigger-machine:8000")
    asked = find_remote_bundle(None, "remote", "int8", "http://box:1/v1").policy.high_level.remote
    assert (asked.endpoint, asked.model, asked.on_board) == ("http://box:1/v1", "am_grounded", "am_grounded")


def test_the_packaged_policy_runs_on_the_bundle_of_the_one_on_board():
    with serving() as double:
        endpoint = double.endpoint  # where nobody listens any more
    options = ["run", "--lockstep", "--seed", SEED, "--duration", "0.5", "--policy", "remote", "--remote", endpoint]
    done = CliRunner().invoke(build_app(), list(map(str, options)))
    assert done.exit_code == 0, done.output
    assert "no connection" in done.stderr
    told = " ".join(done.stdout.split())
    assert "high level answered 0 times by the remote, 1 times on board; no connection 1" in told
