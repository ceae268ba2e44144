"""The units, read by systemd itself; what is installed where; the settings."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memrt.runtime.errors import MemrtError
from memrt.runtime.service.config import ServiceConfig, read_settings
from memrt.runtime.service.install import settings_text, write_files
from memrt.runtime.service.units import NODE, ROLLBACK, RUNTIME, Units, node_arguments

# systemd looks whether the command is there.
UNITS = Units(memrt=sys.executable, node=node_arguments('/etc/memrt/my "arm" 100%.yaml', "172.16.0.2"))


def complaints(folder: Path, texts: dict[str, str]) -> str:
    """What `systemd-analyze verify` says: its exit status is 0 even for an invalid Type=."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    for name, text in texts.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(folder / name) for name in texts)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "".join(line + "\n" for line in done.stderr.splitlines() if str(folder) in line or "memrt" in line)


@pytest.mark.parametrize("units", [UNITS, Units(memrt=sys.executable)])
def test_systemd_has_nothing_to_say_about_the_units(tmp_path, units):
    assert complaints(tmp_path, units.texts()) == ""


def test_systemd_would_have_said_it(tmp_path):
    spoilt = {name: text.replace("Type=notify", "Type=notiffy") for name, text in UNITS.texts().items()}
    assert "Failed to parse service type" in complaints(tmp_path, spoilt)


def values(text: str, key: str) -> list[str]:
    return [line.split("=", 1)[1] for line in text.splitlines() if line.startswith(f"{key}=")]


def test_when_memory_runs_out_the_node_goes_last():
    texts = UNITS.texts()
    scores = {name: int(values(texts[name], "OOMScoreAdjust")[0]) for name in (NODE, RUNTIME)}
    assert scores[NODE] < scores[RUNTIME] < 0
    assert values(texts[RUNTIME], "OOMPolicy") == ["continue"]  # else systemd ends what outlived its recorder


def test_both_may_take_real_time_priority_and_lock_memory():
    for text in (UNITS.texts()[NODE], UNITS.texts()[RUNTIME]):
        assert values(text, "LimitRTPRIO") == ["99"]
        assert values(text, "LimitMEMLOCK") == ["infinity"]
        assert values(text, "User") == ["memrt"]


def test_no_unit_says_the_word_that_arms():
    for text in UNITS.texts().values():
        assert all("arm " not in command for command in values(text, "ExecStart"))
        assert not values(text, "ExecStartPost")


def test_a_failure_leads_back_but_for_settings_that_were_refused():
    texts = UNITS.texts()
    assert values(texts[RUNTIME], "OnFailure") == [ROLLBACK]
    assert values(texts[RUNTIME], "RestartPreventExitStatus") == ["2 78"]
    assert values(texts[ROLLBACK], "ExecCondition")[0].endswith("in 75|78) exit 1;; esac'")
    assert "target rollback --failed" in values(texts[ROLLBACK], "ExecStart")[0]
    assert not values(texts[ROLLBACK], "User")  # root: the service's account cannot change what it runs


def test_a_robots_name_reaches_the_node_in_one_piece():
    (command,) = values(UNITS.texts()[NODE], "ExecStart")
    assert r'node "/etc/memrt/my \"arm\" 100%%.yaml" "--host" "172.16.0.2"' in command


def test_without_a_node_of_its_own_the_runtime_waits_for_nobody():
    texts = Units().texts()
    assert NODE not in texts
    assert NODE not in texts[RUNTIME]
    assert "--node" not in texts[RUNTIME]


def test_files_go_below_the_root_and_settings_are_kept(tmp_path):
    first = write_files(UNITS, settings_text("sim", None, 'say "cube"'), tmp_path)
    own = tmp_path / "etc/memrt/service.yaml"
    assert own in first.written
    assert read_settings(own) == ServiceConfig(robot="sim", goal='say "cube"')
    own.write_text("robot: franka\n")
    again = write_files(UNITS, settings_text("sim", None, None), tmp_path)
    assert again.kept == (own,)
    assert own.read_text() == "robot: franka\n"
    assert set(again.written) == set(first.written) - {own}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("robots: sim", "unknown key `robots`"),
        ("host: 1.2.3.4", "`robot`"),
        ("robot: sim\nspeed: 2", "speed"),
        ("robot: sim\nhang_s: 0", "hang_s"),
    ],
)
def test_settings_that_are_wrong_are_named(tmp_path, text, words):
    path = tmp_path / "service.yaml"
    path.write_text(text)
    with pytest.raises(MemrtError, match=words):
        read_settings(path)
