from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parents[1] / "calib"))

from recorded import GOAL, SUBGOALS, write_dataset
from tiny_action_expert import HORIZON, write_tiny_pi05
from tiny_action_expert import IMAGE_SIZE as LOW_LEVEL_SIZE
from tiny_vlm import IMAGE_SIZE as HIGH_LEVEL_SIZE
from tiny_vlm import write_tiny_vlm

from memrt.calib.calibration_set import load_calibration_set
from memrt.calib.observations import observation_of
from memrt.calib.record import Counts, record_calibration_set
from memrt.export import pipeline
from memrt.export.fidelity import compare_bundles
from memrt.export.pipeline import export_policy
from memrt.runtime.bundle import Bundle, load_bundle
from memrt.runtime.cli import run_command, run_session
from memrt.runtime.config import load_policy, policy_to_dict
from memrt.runtime.engine import open_engine
from memrt.runtime.engine.golden import reproduce
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.policy.low_level import LowLevelPolicy
from memrt.runtime.types import ActionChunk, Frame, Observation, Subgoal

pytestmark = pytest.mark.timeout(900)  # six graph exports; minutes on a busy machine


class Workshop:
    """Tiny weights, a tiny calibration set and policies that name them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.weights = root / "weights"
        texts = [GOAL, *SUBGOALS["simple"], *SUBGOALS["grounded"]]
        write_tiny_pi05(self.weights / "low_level", texts)
        write_tiny_vlm(self.weights / "high_level_base")
        dataset = write_dataset(root / "data", low_level_size=LOW_LEVEL_SIZE, high_level_size=HIGH_LEVEL_SIZE)
        self.calibration = root / "calibration"
        record_calibration_set(dataset, self.calibration, name="tiny", counts=Counts(8, 4, 6, 4))

    def policy(self, name: str) -> Path:
        """The packaged policy `name`, at the tiny sizes and without an adapter."""
        values = policy_to_dict(load_policy(name))
        values["low_level"] |= {"image_size": LOW_LEVEL_SIZE, "horizon": HORIZON, "execute": HORIZON}
        if values["high_level"]["source"] == "vlm":
            values["high_level"] |= {"image_size": HIGH_LEVEL_SIZE, "adapter": None}
        path = self.root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def export(self, name: str, out: str, precision: str) -> Bundle:
        return export_policy(
            self.policy(name),
            self.root / out,
            precision=precision,
            weights_root=self.weights,
            calibration=self.calibration,
        )


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def low_level_only(workshop: Workshop) -> Bundle:
    return workshop.export("oracle_simple", "oracle_int8", "int8")


@pytest.fixture(scope="module")
def remembering(workshop: Workshop) -> Bundle:
    return workshop.export("am_simple", "am_fp32", "fp32")


def test_an_oracle_policy_exports_its_low_level_only(low_level_only: Bundle, workshop: Workshop) -> None:
    bundle = load_bundle(low_level_only.path)
    assert sorted(bundle.manifest.engines) == ["ll/prefix", "ll/step", "ll/vision"]
    assert not (bundle.path / "hl").exists()
    assert bundle.manifest.cpu is not None
    assert bundle.manifest.cpu.full_range == ("ll/prefix", "ll/step", "ll/vision")  # static int8, all 8 bits
    recorded = load_calibration_set(workshop.calibration)
    sample = recorded.low_level("gate")[0]
    policy = LowLevelPolicy(bundle)
    result = policy.act(
        observation_of(recorded, sample), Subgoal(sample.subgoal_simple, 1, 0), sample.goal, policy.noise(0, 0)
    )
    assert result.chunk.actions.shape == (HORIZON, 8)


def test_policies_of_one_action_expert_get_the_same_engines(low_level_only: Bundle, workshop: Workshop) -> None:
    """Ranges are measured in every wording, so that reference bundles can share their low level."""
    flat = workshop.export("flat", "flat_int8", "int8")
    for name in ("ll/vision.onnx", "ll/prefix.onnx", "ll/step.onnx", "ll/embed.npy", "ll/modulation.npy"):
        assert flat.manifest.files[name] == low_level_only.manifest.files[name], name
    assert flat.policy.high_level.source == "none"


def test_the_bundle_reproduces_its_golden_samples(low_level_only: Bundle, remembering: Bundle) -> None:
    for bundle in (low_level_only, remembering):
        for name, engine in bundle.manifest.engines.items():
            golden = bundle.file(engine.gate["golden"])
            reproduce(name, open_engine(bundle.file(engine.file)), golden, engine.gate["threshold"])


def test_exporting_again_gives_the_same_bytes(low_level_only: Bundle, workshop: Workshop) -> None:
    again = workshop.export("oracle_simple", "oracle_again", "int8")
    assert again.manifest.files == low_level_only.manifest.files
    first, second = (json.loads((b.path / "manifest.json").read_text()) for b in (low_level_only, again))
    assert first == second


def test_a_remembering_policy_exports_both_halves(remembering: Bundle) -> None:
    bundle = load_bundle(remembering.path)
    assert sorted(bundle.manifest.engines) == ["hl/decoder", "hl/vision", "ll/prefix", "ll/step", "ll/vision"]
    assert bundle.manifest.cpu is not None
    assert bundle.manifest.cpu.full_range == ()
    assert bundle.manifest.sources["gates"]["hl/answers"]["identical_tokens"] == 1.0
    policy = HighLevelPolicy(bundle)
    image = np.zeros((HIGH_LEVEL_SIZE, HIGH_LEVEL_SIZE, 3), np.uint8)
    observation = Observation(0, np.zeros(8), {"front": Frame("front", 0, 0, image)})
    assert policy.call(GOAL, observation, policy.initial()).new_tokens > 0


def test_the_manifest_tells_what_the_bundle_was_made_from(remembering: Bundle) -> None:
    sources = remembering.manifest.sources
    assert set(sources["weights"]) == {"high_level", "low_level"}
    assert "model.safetensors" in sources["weights"]["low_level"]
    assert sources["calibration"]["high_level"] == {"calibration": 6, "gate": 4}
    assert str(remembering.path.parent) not in (remembering.path / "manifest.json").read_text()


def test_fidelity_of_a_bundle_to_itself_is_perfect(remembering: Bundle, workshop: Workshop) -> None:
    report = compare_bundles(remembering.path, remembering.path, calibration=workshop.calibration)
    assert report["high_level"]["identical"] == 1.0
    assert report["low_level"]["relative_l2_worst"] == 0.0


def test_fidelity_refuses_bundles_of_two_policies(remembering: Bundle, low_level_only: Bundle) -> None:
    with pytest.raises(MemrtError, match="two bundles of one policy"):
        compare_bundles(remembering.path, low_level_only.path)


def test_nothing_is_left_behind_when_weights_are_missing(workshop: Workshop) -> None:
    before = sorted(workshop.root.iterdir())
    with pytest.raises(MemrtError, match="no weights for low_level"):
        export_policy(
            workshop.policy("oracle_simple"),
            workshop.root / "never",
            weights_root=workshop.root / "elsewhere",
            calibration=workshop.calibration,
        )
    assert sorted(workshop.root.iterdir()) == before


def test_a_precision_the_target_lacks_is_refused(workshop: Workshop) -> None:
    with pytest.raises(MemrtError, match="does not run this precision"):
        workshop.export("oracle_simple", "never", "fp8")


class StandStill:
    """A low level that does not move the arm: the tiny one's random joint targets lie outside its limits."""

    def noise(self, seed: int, call_index: int) -> np.ndarray:
        return np.zeros((HORIZON, 8), np.float32)

    def act(self, observation: Observation, subgoal: Subgoal, goal: str, noise: np.ndarray, **_: object) -> ChunkReply:
        actions = np.tile(observation.proprioception, (HORIZON, 1))
        return ChunkReply(ActionChunk(actions, observation.t_ns + 50_000_000, 50_000_000, subgoal.revision))


@dataclass(frozen=True)
class ChunkReply:
    chunk: ActionChunk


def test_a_keyframe_policy_exports_and_runs(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mechanically: random weights name no subtask. Twelve images through the gate's chats, then `memrt run`."""
    bundle = workshop.export("memer", "memer_fp32", "fp32")
    assert bundle.manifest.sources["gates"]["hl/answers"]["identical_tokens"] == 1.0
    assert load_bundle(bundle.path).policy.memory.keyframes == load_policy("memer").memory.keyframes
    monkeypatch.setattr(run_session, "open_policies", lambda held, *_, **__: (HighLevelPolicy(held), StandStill()))
    app = typer.Typer()
    app.callback()(lambda: None)
    run_command.register(app)
    arguments = ["run", "--policy", str(workshop.policy("memer")), "--bundle", str(bundle.path)]
    result = CliRunner().invoke(app, [*arguments, "--lockstep", "--duration", "3", "--json"])
    assert result.exception is None, result.output
    report = json.loads(result.stdout)
    assert (report["outcome"], report["steps"]) == ("time_over", 60)
    assert report["latency_ms"]["high level"]["count"] == 4
    assert report["counts"].get("recent frames missing", 0) == 0


def test_a_context_too_small_for_its_images_is_refused(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline._Export, "_low_level", lambda *_: None)  # it comes first, and is as ever
    path = workshop.policy("memer")
    values = yaml.safe_load(path.read_text())
    values["high_level"]["context_tokens"] = 256
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(MemrtError, match=r"high_level\.context_tokens.* 12 images of 4 tokens.*found 256") as caught:
        export_policy(
            tmp_path / "small.yaml",
            tmp_path / "small",
            precision="fp32",
            weights_root=workshop.weights,
            calibration=workshop.calibration,
        )
    needed = int(str(caught.value).split("context_tokens: ")[1].split("`")[0])
    assert 256 < needed <= 512
