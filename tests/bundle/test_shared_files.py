"""Bundles that share files: nothing is lost, nothing unchecked, and a copy stands alone."""

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from memrt.runtime import shared_files
from memrt.runtime.bundle import Bundle, EngineRecord, load_bundle, write_bundle
from memrt.runtime.cli import bundle_command
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import MANIFEST, SHARED

BIG = b"weights that all policies have in common" * 1000
FILES = {"ll/step.onnx": BIG, "ll/config.json": b"{}", "hl/config.json": b"{}"}


def write(folder: Path, name: str, decoder: bytes, **more: bytes) -> Bundle:
    staging = folder / f"{name}.staging"
    for relative, content in (FILES | {"hl/decoder.onnx": decoder} | more).items():
        (staging / relative).parent.mkdir(parents=True, exist_ok=True)
        (staging / relative).write_bytes(content)
    engines = {
        engine: EngineRecord(file=f"{engine}.onnx", precision="int8", inputs=(), outputs=())
        for engine in ("hl/decoder", "ll/step")
    }
    return write_bundle(staging, folder / name, policy=load_policy("am_grounded"), precision="int8", engines=engines)


@pytest.fixture
def pair(tmp_path) -> tuple[Bundle, Bundle]:
    return write(tmp_path, "one", b"first" * 9999), write(tmp_path, "two", b"second" * 9999)


def contents(bundle: Bundle) -> dict[str, bytes]:
    return {relative: bundle.file(relative).read_bytes() for relative in bundle.manifest.files}


def test_what_bundles_have_in_common_is_stored_once(pair, tmp_path):
    before = [(contents(bundle), bundle.sha256) for bundle in pair]
    assert shared_files.share_files(tmp_path) == len(BIG)
    opened = [load_bundle(bundle.path) for bundle in pair]
    assert [(contents(bundle), bundle.sha256) for bundle in opened] == before
    digest = opened[0].manifest.files["ll/step.onnx"].sha256
    assert [path.name for path in (tmp_path / SHARED).iterdir()] == [f"{digest}.onnx"]
    assert opened[0].file("ll/step.onnx") == opened[1].file("ll/step.onnx")
    assert opened[0].folder("hl")("decoder.onnx") == tmp_path / "one" / "hl" / "decoder.onnx"
    assert shared_files.share_files(tmp_path) == 0  # again: nothing is left to do


def test_a_folder_that_holds_nothing_of_its_own_goes(tmp_path):
    for name in ("one", "two"):
        write(tmp_path, name, name.encode(), **{"golden/ll_step.npz": BIG + b"."})
    shared_files.share_files(tmp_path)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["hl", "ll", MANIFEST]
    assert load_bundle(tmp_path / "one").file("golden/ll_step.npz").read_bytes() == BIG + b"."


def test_a_changed_shared_file_is_refused_by_every_bundle(pair, tmp_path):
    shared_files.share_files(tmp_path)
    shared = next((tmp_path / SHARED).iterdir())
    shared.write_bytes(BIG[:-1] + b"!")
    for bundle in pair:
        with pytest.raises(MemrtError, match=r"corrupt file `ll/step\.onnx`"):
            load_bundle(bundle.path)
    shared.unlink()
    shared.symlink_to("/etc/hostname")
    with pytest.raises(MemrtError, match=r"no `ll/step\.onnx`"):
        load_bundle(pair[0].path)


def test_a_plain_copy_without_the_shared_files_says_how_to_copy(pair, tmp_path):
    shared_files.share_files(tmp_path)
    shutil.copytree(pair[0].path, tmp_path / "elsewhere" / "one")
    with pytest.raises(MemrtError, match=r"no `ll/step\.onnx`.*memrt bundle copy"):
        load_bundle(tmp_path / "elsewhere" / "one")


def test_a_bundle_is_replaced_and_what_nobody_needs_goes(pair, tmp_path):
    shared_files.share_files(tmp_path)
    write(tmp_path, "one", b"better")
    assert load_bundle(tmp_path / "one").file("ll/step.onnx").parent.parent == tmp_path / "one"
    shutil.rmtree(tmp_path / "two")
    shared_files.share_files(tmp_path)
    assert list((tmp_path / SHARED).iterdir()) == []
    load_bundle(tmp_path / "one")


def test_weights_in_a_second_file_are_not_torn_from_their_engine(tmp_path):
    write(tmp_path, "one", b"graph", **{"hl/decoder.onnx.data": BIG})
    with pytest.raises(MemrtError, match=r"decoder\.onnx\.data.*shares nothing"):
        shared_files.share_files(tmp_path)


def run(*arguments: str) -> dict:
    app = typer.Typer()
    bundle_command.register(app)
    result = CliRunner().invoke(app, ["bundle", *arguments, "--json"])
    assert result.exception is None, result.output
    return json.loads(result.stdout)


def test_the_commands(pair, tmp_path):
    assert run("share", str(tmp_path))["saved_bytes"] == len(BIG)
    whole = tmp_path / "stick" / "whole"
    said = run("copy", str(pair[1].path), "-o", str(whole))
    assert said["bundle_sha256"] == pair[1].sha256
    shutil.rmtree(tmp_path / SHARED)
    copied = load_bundle(shutil.copytree(whole, tmp_path / "plain copy"))
    assert (copied.file("ll/step.onnx").read_bytes(), said["files"]) == (BIG, len(copied.manifest.files))
    with pytest.raises(MemrtError, match="there already"):
        shared_files.copy_bundle(copied, whole)
