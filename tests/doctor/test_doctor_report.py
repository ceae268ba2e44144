"""What the doctor says of four computers, word for word, in golden files to be read; and that nothing makes it fall."""

import io
import subprocess
from pathlib import Path
from random import Random

import msgspec
import pytest
from rich.console import Console

from memrt.runtime.doctor.examine import DOMAINS, as_document, count, examine, exit_status, shown
from memrt.runtime.doctor.printed import print_report
from memrt.runtime.doctor.snapshot import Output, Snapshot, load, save
from memrt.runtime.errors import MemrtError

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in (Path(__file__).parent / "machines").glob("*.json"))
PARTS = ("links", "devices", "packages", "providers", "realsense")  # each may be empty
EXIT = {"control_pc": 0, "jetson_orin": 3, "laptop": 3, "rtx_workstation": 3}


def printed(snapshot, *, everything):
    file = io.StringIO()
    print_report(snapshot, examine(snapshot), Console(file=file, width=120, color_system=None), everything=everything)
    return file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_every_word_is_as_in_the_golden_file(machines, name):
    assert printed(machines[name], everything=True) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_exit_status(machines, name):
    assert exit_status(examine(machines[name])) == EXIT[name]


def test_it_is_silent_about_what_is_fine(machines):
    assert printed(machines["control_pc"], everything=False).splitlines()[-1].startswith("nothing found; ")
    for snapshot in machines.values():
        report = examine(snapshot)
        assert {f.status for found in shown(report, everything=False).values() for f in found} <= {"warning", "error"}
        said = as_document(snapshot, report, everything=False)["findings"]
        assert len(said) == count(report, "warning") + count(report, "error")


def test_whatever_is_found_has_a_cost_and_a_remedy_that_a_shell_reads(machines):
    commands = []
    for snapshot in machines.values():
        for findings in examine(snapshot).values():
            for finding in findings:
                found = finding.status in ("warning", "error")
                assert bool(finding.cost) == found
                assert bool(finding.mend) == found
                commands += finding.mend
    checked = subprocess.run(["bash", "-n"], input="\n".join(commands), text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_computer_that_tells_nothing_is_no_error_of_the_doctor():
    report = examine(Snapshot())
    assert count(report, "fine") + count(report, "unknown") > 15
    assert [finding.about for finding in shown(report, everything=False)["engines"]] == ["ONNX Runtime"]


NOISE = ["", "\n", "garbage", "-1", "N/A", "[N/A]", "99999999", "a b c d e f", "é\x00\n:", "<not supported>"]


def test_whatever_is_missing_or_garbled_it_does_not_fall(machines):
    for seed in range(100):
        chance = Random(seed)
        whole = machines[chance.choice(NAMES)]
        parts = {name: getattr(whole, name) for name in PARTS}
        spoilt = msgspec.structs.replace(
            whole,
            files={p: chance.choice([t, t, *NOISE]) for p, t in whole.files.items() if chance.random() < 0.7},
            outputs={tool: Output(status=0, text=chance.choice([o.text, *NOISE])) for tool, o in whole.outputs.items()},
            **{name: chance.choice([part, type(part)() if part else part]) for name, part in parts.items()},
        )
        assert list(examine(spoilt)) == list(DOMAINS), seed


def test_a_saved_snapshot_comes_back_the_same(machines, tmp_path):
    for name, snapshot in machines.items():
        save(snapshot, tmp_path / name)
        assert load(tmp_path / name) == snapshot


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema_version": 2}', b'{"files": 3}', b'{"hostname": "x"}'])
def test_what_is_no_snapshot_is_refused(tmp_path, content):
    path = tmp_path / "facts.json"
    path.write_bytes(content)
    with pytest.raises(MemrtError, match="Fix: "):
        load(path)
