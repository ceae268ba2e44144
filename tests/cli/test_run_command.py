"""`memrt run`: refusals that come before anything moves, and whole runs with a policy that only nods."""

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from memrt.robot_io.config import RobotConfig, load_robot
from memrt.robot_io.grippers.settings import GripperConfig
from memrt.runtime.bundle import EngineRecord, load_bundle, sha256_of, write_bundle
from memrt.runtime.cli import default_bundle, run_command, run_session
from memrt.runtime.cli.run_checks import check_space
from memrt.runtime.config import load_policy
from memrt.runtime.device_cache import device_folder, write_record
from memrt.runtime.device_engines import PROOF, Proof, this_device
from memrt.runtime.errors import MemrtError
from memrt.runtime.signing import generate_key, sign_bundle
from memrt.runtime.thread_budget import ThreadBudget
from memrt.runtime.types import ActionChunk

APP = typer.Typer()
APP.callback()(lambda: None)
run_command.register(APP)


def invoke(*arguments: object):
    return CliRunner().invoke(APP, ["run", *map(str, arguments)])


def refusal(*arguments: object) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, MemrtError), result.output
    line = str(result.exception)
    assert "\n" not in line
    assert "expected" in line
    assert "Fix:" in line
    return line


def make_bundle(
    folder: Path,
    policy: str = "am_grounded",
    cameras: tuple[str, ...] | None = None,
    engines: tuple[str, ...] = ("hl/decoder", "ll/step"),
) -> Path:
    staging = folder.with_name(f"{folder.name}.staging")
    staging.mkdir(parents=True)
    (staging / "step.onnx").write_bytes(b"\0" * 1000)
    settings = load_policy(policy)
    if cameras is not None:
        low_level = msgspec.structs.replace(settings.low_level, cameras=cameras)
        settings = msgspec.structs.replace(settings, low_level=low_level)
    record = EngineRecord(file="step.onnx", precision="int8", inputs=(), outputs=())
    write_bundle(staging, folder, policy=settings, precision="int8", engines=dict.fromkeys(engines, record))
    return folder


@pytest.fixture
def bundle(tmp_path) -> Path:
    return make_bundle(tmp_path / "bundle")


@dataclass(frozen=True)
class Reply:
    state: object
    subgoal: str
    held: bool = False


@dataclass(frozen=True)
class ChunkReply:
    chunk: ActionChunk


class Counter:
    """Remembers how often it was asked, in words."""

    def initial(self):
        return Reply("", "nothing yet")

    def call(self, goal, observation, state, *, cancelled=None):
        return Reply(state, "nod <100, 120>")


class Nod:
    """Moves the sixth joint a little, in front of both cameras."""

    def noise(self, seed, call_index):
        return np.full((16, 8), seed + call_index, np.float32)

    def act(self, observation, subgoal, goal, noise, *, playing=None):
        assert set(observation.frames) == {"front", "wrist"}
        actions = np.tile(observation.proprioception, (16, 1))
        actions[:, 5] += 0.01 * np.sin(np.arange(1, 17) / 3 + noise[0, 0])
        return ChunkReply(ActionChunk(actions, observation.t_ns + 50_000_000, 50_000_000, subgoal.revision))


@pytest.fixture
def nodding(monkeypatch):
    """Stands in for the engines, which have their own tests and take minutes to build."""

    def open_policies(bundle, threads: ThreadBudget, stack: ExitStack, *, cache: Path | None, policy_server: object):
        return Counter(), Nod()

    monkeypatch.setattr(run_session, "open_policies", open_policies)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--robot", "simm"], "did you mean `sim`"),
        (["--task", "Juggle"], "PickXtimes"),
        (["--policy", "am_groundd"], "did you mean `am_grounded`"),
        (["--speed", "1.5"], "at most 1"),
        (["--bundle", "/nowhere"], "nothing there"),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments, words):
    assert words in refusal(*arguments)


def test_a_missing_reference_bundle_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setattr(default_bundle, "reference_bundles", lambda: tmp_path)
    assert "memrt export am_grounded" in refusal()


def test_a_corrupt_bundle_is_refused_by_the_name_of_the_file(bundle):
    (bundle / "step.onnx").write_bytes(b"\1" * 1000)
    assert "step.onnx" in refusal("--bundle", bundle)


def test_an_unknown_key_in_a_robot_yaml_is_refused_with_its_path(bundle, tmp_path):
    robot = tmp_path / "mine.yaml"
    robot.write_text("name: mine\ndriver: sim\ncameras: [front, wrist]\nlink: {brake_after: 50}\n")
    assert "link.brake_after" in refusal("--bundle", bundle, "--robot", robot)


def test_a_policy_for_other_cameras_is_refused(tmp_path):
    other = make_bundle(tmp_path / "other", cameras=("front", "ceiling"))
    assert "ceiling" in refusal("--bundle", other)


def test_poses_need_an_arm_whose_kinematics_are_known(tmp_path):
    bundle = load_bundle(make_bundle(tmp_path / "b", policy="libero", engines=("ll/step",)), verify=False)
    bare = RobotConfig(name="mine", driver="arm", cameras=("front", "wrist"))
    check_space(bundle, msgspec.structs.replace(bare, gripper=GripperConfig(kind="franka_hand")))
    check_space(bundle, load_robot("sim"))
    robotiq = GripperConfig(kind="robotiq", path="/dev/ttyUSB0")
    for gripper in (None, robotiq):
        with pytest.raises(MemrtError, match="joint_position, joint_velocity, found cartesian_pose"):
            check_space(bundle, msgspec.structs.replace(bare, gripper=gripper))


def test_an_oracle_needs_lockstep(tmp_path):
    oracle = make_bundle(tmp_path / "oracle", policy="oracle_grounded")
    assert "--lockstep" in refusal("--bundle", oracle)


@pytest.mark.parametrize(("held", "missing"), [("hl/decoder", "ll"), ("ll/step", "hl")])
def test_half_a_policy_drives_nothing(tmp_path, held, missing):
    half = make_bundle(tmp_path / "half", engines=(held,))
    line = refusal("--bundle", half)
    assert f"found only {held[:2]}" in line
    assert "export both halves into one bundle" in line
    assert missing in line


@pytest.fixture
def physical(monkeypatch, tmp_path):
    """A robot that counts as physical: its driver, found by its entry point, is the simulator's by another name."""
    package = tmp_path / "site"
    info = package / "arm-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: arm\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[memrt.drivers]\narm = memrt.sim.driver:open_driver\n")
    monkeypatch.syspath_prepend(package)  # for this process, and PYTHONPATH for the node
    monkeypatch.setenv("PYTHONPATH", str(package))
    robot = tmp_path / "arm.yaml"
    robot.write_text("name: arm\ndriver: arm\ncameras: [front, wrist]\n")
    return robot


def test_a_physical_robot_runs_what_a_trusted_key_signed(bundle, nodding, physical, tmp_path):
    """With the signature, what is missing is the proof."""
    key, keys = generate_key(tmp_path / "keys" / "lab"), tmp_path / "keys"
    assert "it is unsigned" in refusal("--bundle", bundle, "--robot", physical, "--keys", keys)
    sign_bundle(bundle, key)
    assert "not yet proven" in refusal("--bundle", bundle, "--robot", physical, "--keys", keys)
    assert "not trusted here" in refusal("--bundle", bundle, "--robot", physical)
    (bundle / "signature.json").write_text("{}")
    for robot in (physical, "sim"):
        assert "a signature as `memrt sign` writes it" in refusal(
            "--bundle", bundle, "--robot", robot, "--keys", keys, "--allow-unsigned"
        )


def test_a_simulated_robot_says_in_one_line_that_a_bundle_is_unsigned(bundle, nodding, tmp_path):
    run = ("--bundle", bundle, "--dry-run", "--lockstep", "--json", "--keys", tmp_path)
    said = invoke(*run).stderr.splitlines()
    assert [line for line in said if "signed" in line] == [
        "unsigned: a physical robot asks for a signature, or for --allow-unsigned"
    ]
    sign_bundle(bundle, generate_key(tmp_path / "lab"))
    assert "signed" not in invoke(*run).stderr


def test_a_physical_robot_is_not_armed_without_a_proof(bundle, nodding, physical):
    line = refusal("--bundle", bundle, "--robot", physical, "--allow-unsigned")
    assert f"{bundle} is not yet proven on device" in line
    assert f"memrt build {bundle}" in line


def test_a_physical_robots_time_does_not_wait(bundle, nodding, physical):
    assert "leave --lockstep out" in refusal("--bundle", bundle, "--robot", physical, "--lockstep")


def test_a_dry_run_on_a_physical_robot_says_what_is_missing(bundle, nodding, physical):
    result = invoke("--bundle", bundle, "--robot", physical, "--dry-run", "--json")
    assert result.exit_code == 0, result.exception
    said = " ".join(result.stderr.split())
    assert "not yet proven on device" in said
    assert "unsigned: a physical robot asks for a signature" in said


def test_a_proven_bundle_may_be_armed(bundle, nodding, physical, tmp_path):
    """The proof is found in the folder that `memrt build` was given; another folder holds none."""
    loaded, cache = load_bundle(bundle), tmp_path / "cache"
    device = this_device(loaded)
    engines = dict.fromkeys(loaded.manifest.engines, sha256_of(bundle / "step.onnx"))
    proof = Proof(bundle=loaded.sha256, device=device, engines=engines, agreement={})
    write_record(device_folder(cache, loaded, device) / PROOF, proof)
    run = ("--bundle", bundle, "--robot", physical, "--allow-unsigned", "--cache")
    result = invoke(*run, cache, "--duration", 0.5, "--json")
    assert json.loads(result.stdout)["counts"]["chunks"] >= 1, result.exception
    assert "not yet proven" not in result.stderr
    assert "not yet proven" in refusal(*run, tmp_path / "other")


@pytest.mark.parametrize("option", ["--video", "--trace"])
def test_an_output_that_cannot_be_written_is_refused_before_the_run(bundle, nodding, option):
    assert option in refusal("--bundle", bundle, "--lockstep", option, "/nowhere/run.mp4")


def test_the_command_line_prints_a_refusal_as_one_line_and_exits_with_2():
    done = subprocess.run(
        [sys.executable, "-c", "from memrt.runtime.cli import main; main()", "run", "--robot", "simm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("memrt: unknown robot `simm`")
    assert done.stderr.count("\n") == 1


def test_lockstep_prints_one_json_object_and_repeats_itself(bundle, nodding, tmp_path):
    arguments = [
        "--bundle",
        bundle,
        "--lockstep",
        "--duration",
        1,
        "--seed",
        3,
        "--json",
        "--trace",
        tmp_path / "t.json",
    ]
    first, again = (invoke(*arguments) for _ in range(2))
    assert first.exit_code == 0, first.exception
    values = json.loads(first.stdout)
    assert (values["outcome"], values["steps"], values["policy"]) == ("time_over", 20, "am_grounded")
    assert values["latency_ms"]["low level"]["count"] == 3
    assert (values["hardware"]["device"], "onnxruntime" in values["versions"]) == ("cpu", True)
    assert 0 < values["engines_ready_s"] < 60
    assert 0 < values["memory"]["resident_bytes"] <= values["memory"]["peak_bytes"]
    assert first.stderr.count("not yet proven on device") == 1
    assert values["actions_sha256"] == json.loads(again.stdout)["actions_sha256"]
    other = invoke(*arguments, "--seed", 4)
    assert values["actions_sha256"] != json.loads(other.stdout)["actions_sha256"]
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


def test_a_video_shows_every_control_step(bundle, nodding, tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    video = tmp_path / "run.mp4"
    result = invoke("--bundle", bundle, "--lockstep", "--duration", 0.5, "--video", video)
    assert result.exit_code == 0, result.exception
    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(video))
    assert frames == 10
    assert "time over" in result.stdout
    assert "low level" in result.stdout


def test_a_dry_run_finds_everything_ready_and_moves_nothing(bundle, nodding):
    result = invoke("--bundle", bundle, "--dry-run", "--json")
    assert result.exit_code == 0, result.exception
    plan = json.loads(result.stdout)
    assert plan["first_subgoal"] == "nod <100, 120>"
    assert plan["feasible"]
    assert plan["control_hz"] == 20
    assert plan["robot_values"]["control ticks starved"] == 0
    assert plan["engines_ready_s"] > 0
    told = invoke("--bundle", bundle, "--dry-run", "--lockstep").stdout
    assert "engines ready in" in told
    assert "peak" in told


def test_a_real_time_run_ends_in_order(bundle, nodding):
    """Whether this computer keeps up is not the question here: an overloaded one holds, and says so."""
    result = invoke("--bundle", bundle, "--duration", 3, "--json")
    values = json.loads(result.stdout)
    assert values["mode"] == "realtime"
    assert (values["outcome"], result.exit_code) in {("time_over", 0), ("held", 1), ("fault", 1)}
    assert values["robot_values"]["control ticks"] > 0
    assert values["engines_ready_s"] > 0
    assert "cube" in values["goal"]
