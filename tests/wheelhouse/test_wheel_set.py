"""A wheel set holds the wheels that its lock names, byte for byte, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memrt.runtime.wheelhouse.wheel_set as module
from memrt.runtime.errors import MemrtError
from memrt.runtime.wheelhouse.resolve import Pin, normalised, parse_pins
from memrt.runtime.wheelhouse.targets import TARGETS, platforms
from memrt.runtime.wheelhouse.wheel_set import INSTALL, WheelSetRecord, pin_of, read_wheel_set, seal

NAME = st.sampled_from(["numpy", "ruamel-yaml-clib", "h11", "a"])
VERSION = st.sampled_from(["1", "2.4.6", "5.0.0.93", "1.0rc1", "2.13.0+cpu"])
HASH = st.binary(min_size=32, max_size=32).map(lambda digest: f"sha256:{digest.hex()}")
PIN = st.builds(Pin, NAME, VERSION, st.lists(HASH, min_size=1, max_size=3).map(tuple))


def make_wheel(folder: Path, name: str, version: str, tag: str = "py3-none-any") -> Path:
    """A wheel with metadata and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\n")
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """A sealed set of two wheels."""
    make_wheel(tmp_path / "wheels", "First_Thing", "1.0")
    make_wheel(tmp_path / "wheels", "second", "2.1", tag="cp311-cp311-manylinux_2_28_x86_64")
    python = "{}.{}".format(*sys.version_info)
    seal(tmp_path, WheelSetRecord("0.1.0", "cpu", python, "x86_64", "2.35", ("cpu", "sim"), system_packages=False))
    return tmp_path


def test_a_sealed_set_reads_back(folder):
    found = read_wheel_set(folder)
    assert [path.name.split("-")[0] for path in found.wheels] == ["First_Thing", "second"]
    assert found.record.target == "cpu"
    assert found.size == sum(path.stat().st_size for path in (folder / "wheels").iterdir())
    lock = (folder / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ")[0] for line in lock] == ["first-thing==1.0", "second==2.1"]
    assert lock[0].endswith(pin_of(folder / "wheels" / "First_Thing-1.0-py3-none-any.whl").hashes[0])


def test_a_changed_byte_is_refused(folder):
    wheel = folder / "wheels" / "First_Thing-1.0-py3-none-any.whl"
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    wheel.write_bytes(data)
    with pytest.raises(MemrtError, match=r"expected `First_Thing-1.0-py3-none-any.whl` with sha256:.*found sha256:"):
        read_wheel_set(folder)


def test_missing_and_added_files_are_refused(folder):
    (folder / "wheels" / "note.txt").write_text("hello", encoding="utf-8")
    with pytest.raises(MemrtError, match=r"expected wheels only, found `note.txt`"):
        read_wheel_set(folder)
    (folder / "wheels" / "note.txt").unlink()
    added = make_wheel(folder / "wheels", "third", "3.0")
    with pytest.raises(MemrtError, match=r"`third-3.0-py3-none-any.whl` besides"):
        read_wheel_set(folder)
    added.unlink()
    (folder / "wheels" / "First_Thing-1.0-py3-none-any.whl").unlink()
    with pytest.raises(MemrtError, match=r"found no first-thing==1.0"):
        read_wheel_set(folder)


@pytest.mark.parametrize("broken", ["", "{}", '{"memrt": "0.1.0", "unknown": 1}'])
def test_another_folder_is_refused(folder, broken):
    (folder / "wheelhouse.json").write_text(broken, encoding="utf-8")
    with pytest.raises(MemrtError, match="expected a folder that `memrt wheelhouse` made"):
        read_wheel_set(folder)


@settings(max_examples=40)
@given(st.lists(PIN, max_size=4))
def test_pins_read_back_however_lines_are_broken(pins):
    text = "".join(pin.line() + "\n" for pin in pins)
    assert parse_pins(text) == pins
    assert parse_pins("# by uv\n" + text.replace(" --hash", " \\\n    --hash")) == pins


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "numpy==2", "memrt @ file:///tmp/memrt.whl", "-e ."])
def test_a_line_without_a_version_and_a_hash_is_refused(line):
    with pytest.raises(MemrtError, match="expected lines `name==version --hash"):
        parse_pins(line)


def test_names_are_those_of_the_index():
    assert normalised("PyYAML") == "pyyaml"
    assert normalised("ruamel.yaml__clib") == "ruamel-yaml-clib"


def test_platform_tags_reach_from_ubuntu_22_to_the_oldest_wheels():
    tags = platforms("x86_64")
    assert tags[0] == "manylinux_2_35_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"} <= set(tags)
    assert "manylinux1_aarch64" not in platforms("aarch64")
    assert TARGETS["jetson"].archs == ("aarch64",)


def install(folder: Path, *arguments: object) -> str:
    """What the script says when it refuses."""
    shutil.copy(Path(module.__file__).with_name(INSTALL), folder / INSTALL)
    command = ["sh", str(folder / INSTALL), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done
    return done.stderr


def test_the_installer_refuses_another_computer(folder, tmp_path):
    record = (folder / "wheelhouse.json").read_text(encoding="utf-8")
    assert "expected a new folder" in install(folder, tmp_path, sys.executable)
    (folder / "wheelhouse.json").write_text(record.replace("x86_64", "riscv64"), encoding="utf-8")
    assert "expected a computer of riscv64" in install(folder, tmp_path / "new", sys.executable)
    (folder / "wheelhouse.json").write_text(record.replace('"python": "3', '"python": "2'), encoding="utf-8")
    assert "expected Python 2." in install(folder, tmp_path / "new", sys.executable)
    assert not (tmp_path / "new").exists()
