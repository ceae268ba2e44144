"""`memrt doctor` as a user calls it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from memrt.runtime.cli import build_app
from memrt.runtime.errors import MemrtError

MACHINES = Path(__file__).parents[1] / "doctor" / "machines"


def run(*arguments):
    return CliRunner().invoke(build_app(), ["doctor", *map(str, arguments)])


@pytest.mark.parametrize(("machine", "status"), [("control_pc", 0), ("laptop", 3)])
def test_another_computers_snapshot_is_judged(machine, status):
    done = run("--snapshot", MACHINES / f"{machine}.json", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == document["exit_status"] == status
    assert len(document["findings"]) == document["errors"] + document["warnings"]


def test_this_computer_is_looked_at_saved_and_judged_again(tmp_path):
    facts = tmp_path / "facts.json"
    here = run("--no-measure", "--all", "--json", "--robot", "sim", "--folder", tmp_path, "--save", facts)
    document = json.loads(here.stdout)
    assert here.exit_code in (0, 1, 3)
    assert document["hardware"]["cores"] >= 1
    assert {finding["domain"] for finding in document["findings"]} >= {"kernel", "processor", "disk", "engines"}
    again = json.loads(run("--snapshot", facts, "--all", "--json").stdout)
    assert again["findings"] == document["findings"]


def test_a_corrupt_bundle_is_found_not_raised(tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}")
    done = run("--no-measure", "--json", "--bundle", bundle)
    (found,) = [one for one in json.loads(done.stdout)["findings"] if one["domain"] == "bundle"]
    assert done.exit_code == 3
    assert (found["about"], found["status"]) == ("files", "error")
    assert "schema_version" in found["found"]


def test_a_snapshot_answers_no_other_question(tmp_path):
    done = run("--snapshot", MACHINES / "laptop.json", "--robot", "sim")
    assert isinstance(done.exception, MemrtError)
    assert isinstance(run("--folder", tmp_path / "missing").exception, MemrtError)
