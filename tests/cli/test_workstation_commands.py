"""`eval`, `export` and `train`: what they ask of the packages behind them, what they print, what they refuse."""

import json
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import typer
from typer.testing import CliRunner

from memrt.runtime.bundle import EngineRecord, write_bundle
from memrt.runtime.cli import default_bundle, eval_command, export_command, train_command
from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError

APP = typer.Typer()
for module in (eval_command, export_command, train_command):
    module.register(APP)


def invoke(*arguments: object):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


def refusal(*arguments: object) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, MemrtError), result.exception
    return str(result.exception)


def make_bundle(folder: Path, policy: str, names: tuple[str, ...] = ("hl/decoder", "ll/step")) -> Path:
    staging = folder.with_name(f"{folder.name}.staging")
    staging.mkdir(parents=True)
    (staging / "step.onnx").write_bytes(b"\0" * 2_000_000)
    engine = EngineRecord(
        file="step.onnx", precision="int8", inputs=(), outputs=(), gate={"cosine": 0.99987, "note": "worst sample"}
    )
    engines = dict.fromkeys(names, engine)
    write_bundle(staging, folder, policy=load_policy(policy), precision="int8", engines=engines)
    return folder


@pytest.fixture
def reference(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(default_bundle, "reference_bundles", lambda: tmp_path / "bundles")
    return make_bundle(tmp_path / "bundles" / "am_grounded-int8", "am_grounded")


@pytest.fixture
def evaluate(monkeypatch):
    """Stands in for the simulator: succeeds on even seeds. The signature is checked against the real one."""
    real = pytest.importorskip("memrt.sim.evaluate")

    def report(folder, task, seeds, *, workers=1, on_episode=None):
        results = [
            real.EpisodeResult(
                seed=seed,
                difficulty="easy",
                repetitions=1,
                success=seed % 2 == 0,
                status="success" if seed % 2 == 0 else "failure",
                reason="because",
                steps=100,
                progress=0.5,
                seconds=1.0,
                high_level_ms=1.0,
                low_level_ms=1.0,
                actions_sha256="",
            )
            for seed in seeds
        ]
        for result in results:
            on_episode(result)
        rows = [{"seed": result.seed, "success": result.success} for result in results]
        return {
            "policy": "am_grounded",
            "task": task,
            "success_rate": 0.5,
            "wilson95": [0.25, 0.75],
            "median_ms": {"low_level_call": 12.5},
            "results": rows,
        }

    fake = create_autospec(real.evaluate, side_effect=report)
    monkeypatch.setattr(real, "evaluate", fake)
    return fake


def test_eval_prints_one_json_object(reference, evaluate):
    result = invoke("eval", "--robot", "sim", "--episodes", 4, "--lockstep", "--workers", 2, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["wilson95"] == [0.25, 0.75]
    (folder, task, seeds), options = evaluate.call_args
    assert (folder, task, options["workers"]) == (reference, "PickXtimes", 2)
    assert list(seeds) == [eval_command.EVALUATION_SEEDS_START + n for n in range(4)]
    assert result.stderr.count("seed 100000") == 4


def test_eval_prints_a_table(reference, evaluate):
    result = invoke("eval", "--episodes", 2, "--seed-start", 7)
    assert result.exit_code == 0, result.output
    assert "am_grounded on PickXtimes" in result.stdout
    for figure in ("success rate", "0.25 .. 0.75", "median ms: low level call", "12.5"):
        assert figure in result.stdout
    assert "seed 7: failure after 100 steps, because" in result.stderr


def test_eval_against_a_second_bundle_pairs_the_seeds(reference, evaluate, tmp_path):
    other = make_bundle(tmp_path / "other", "am_grounded")
    result = invoke("eval", "--episodes", 4, "--against", other, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["paired_difference95"]["difference"], report["paired_difference95"]["n"]) == (0.0, 4)
    assert [call.args[0] for call in evaluate.call_args_list] == [reference, other]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--robot", "franka"), "memrt run"),
        (("--policy", "am_groundet"), "did you mean `am_grounded`"),
        (("--policy", "memoryless"), "memrt export memoryless"),
        (("--bundle", "/no/such/bundle"), "nothing there"),
        (("--against", "/no/such/bundle"), "nothing there"),
    ],
)
def test_eval_refusals_come_before_any_work(reference, arguments, hint):
    assert hint in refusal("eval", *arguments)


def test_eval_refuses_a_bundle_of_another_policy(reference):
    assert "expected policy `memoryless`" in refusal("eval", "--bundle", reference, "--policy", "memoryless")


def test_eval_refuses_half_a_policy(reference, evaluate, tmp_path):
    half = make_bundle(tmp_path / "half", "am_grounded", names=("ll/step",))
    for arguments in (["--bundle", half], ["--against", half]):
        assert "found only ll" in refusal("eval", *arguments)
    evaluate.assert_not_called()


def test_reference_bundles_lie_beside_the_reference_weights():
    folder = default_bundle.reference_bundles()
    assert folder.parts[-3:] == ("train", "reference", "bundles")
    assert (folder.parents[1] / "reproduce.py").is_file()


def test_export_shows_what_the_gates_measured(tmp_path, monkeypatch):
    pipeline = pytest.importorskip("memrt.export.pipeline")
    fake = create_autospec(pipeline.export_policy, side_effect=lambda policy, out, **_: make_bundle(out, "am_simple"))
    monkeypatch.setattr(pipeline, "export_policy", fake)
    result = invoke("export", "am_simple", "-o", tmp_path / "bundle", "--precision", "fp32")
    assert result.exit_code == 0, result.output
    assert fake.call_args.kwargs["precision"] == "fp32"
    for part in ("am_simple", "ll/step", "2.0", "cosine 0.9999", "not yet proven on device"):
        assert part in result.stdout


@pytest.fixture
def exporter(monkeypatch):
    pipeline = pytest.importorskip("memrt.export.pipeline")
    fake = create_autospec(pipeline.export_policy, side_effect=lambda policy, out, **_: make_bundle(out, "am_simple"))
    monkeypatch.setattr(pipeline, "export_policy", fake)
    return fake


def test_export_gates_behaviour_only_when_asked(exporter, tmp_path):
    assert invoke("export", "am_simple", "-o", tmp_path / "bundle").exit_code == 0
    assert exporter.call_args.kwargs["behaviour"] is None


def test_export_gates_success_in_the_simulator(exporter, tmp_path, monkeypatch):
    sim_gate = pytest.importorskip("memrt.export.sim_gate")
    fake = create_autospec(sim_gate.sim_gate, return_value={"gate": "sim"})
    monkeypatch.setattr(sim_gate, "sim_gate", fake)
    result = invoke("export", "am_simple", "-o", tmp_path / "bundle", "--gate", "sim", "--gate-seeds", 40)
    assert result.exit_code == 0, result.output
    assert exporter.call_args.kwargs["behaviour"](Path("candidate"), Path("fp32")) == {"gate": "sim"}
    bundle, reference, task, seeds = fake.call_args.args
    assert (bundle, reference, task) == (Path("candidate"), Path("fp32"), "PickXtimes")
    assert list(seeds) == list(range(2_000_000, 2_000_040))


def test_export_gates_recorded_episodes(exporter, tmp_path, monkeypatch):
    module = pytest.importorskip("memrt.export.episodes_gate")
    fake = create_autospec(module.episodes_gate, return_value={"gate": "episodes"})
    monkeypatch.setattr(module, "episodes_gate", fake)
    arguments = ("--gate", "episodes", "--calibration", tmp_path)
    result = invoke("export", "am_simple", "-o", tmp_path / "bundle", *arguments)
    assert result.exit_code == 0, result.output
    exporter.call_args.kwargs["behaviour"](Path("candidate"), Path("fp32"))
    fake.assert_called_once_with(Path("candidate"), Path("fp32"), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(("--gate-seeds", 10), "at least 35 different seeds"), (("--gate-task", "PickXtime"), "PickXtimes")],
)
def test_a_gate_that_cannot_pass_is_refused_before_the_export(exporter, tmp_path, arguments, hint):
    assert hint in refusal("export", "am_simple", "-o", tmp_path / "bundle", "--gate", "sim", *arguments)
    exporter.assert_not_called()


def test_train_passes_its_options(tmp_path, monkeypatch):
    module = pytest.importorskip("memrt.train.reproduce")
    fake = create_autospec(module.train_reference)
    monkeypatch.setattr(module, "train_reference", fake)
    result = invoke("train", "reference", "--root", tmp_path, "--stage", "record", "--stage", "low_level", "--resume")
    assert result.exit_code == 0, result.output
    fake.assert_called_once_with(root=tmp_path, stages=["record", "low_level"], resume=True)


@pytest.mark.parametrize("command", [("eval",), ("export",), ("train", "reference")])
def test_help_has_examples(command):
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert f"memrt {' '.join(command)} " in result.output


def test_missing_extra_is_named():
    with pytest.raises(MemrtError, match=r"pip install 'memrt\[sim,cpu\]'"), needs_extra("sim", "cpu"):
        import no_such_package  # noqa: F401


def test_a_bug_of_ours_is_not_blamed_on_an_extra():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), needs_extra("sim"):
        import memrt.sim.no_such_module  # noqa: F401
