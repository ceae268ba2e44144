"""`memrt keygen`, `memrt sign`, `memrt verify`, `memrt bundle migrate`."""

import json
import shutil
from pathlib import Path

import pytest
import typer
from small_bundle import make_bundle
from typer.testing import CliRunner

from memrt.runtime.cli import bundle_command, keygen_command, sign_command, verify_command
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import SIGNATURE

APP = typer.Typer()
for command in (keygen_command, sign_command, verify_command, bundle_command):
    command.register(APP)
SCHEMA_1 = Path(__file__).parents[1] / "bundle" / "schema_1"


def memrt(*arguments: object, **environment: str):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments], env=environment)


def as_json(*arguments: object, **environment: str) -> dict[str, object]:
    result = memrt(*arguments, "--json", **environment)
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def test_from_a_key_to_a_checked_bundle(tmp_path):
    bundle, key = make_bundle(tmp_path / "bundle"), tmp_path / "keys" / "lab"
    made = memrt("keygen", key)
    assert made.exit_code == 0, made.exception
    signed = as_json("sign", bundle, "--key", key, "--version", 5)
    assert str(signed["key_id"]) in made.stdout
    verified = as_json("verify", bundle, "--keys", key.parent)
    assert (verified["signed"], verified["version"], verified["files"]) == (True, 5, 4)
    assert verified["bundle_sha256"] == signed["bundle_sha256"]
    assert "signed by `lab`" in memrt("verify", bundle, MEMRT_KEYS=str(key.parent)).stdout


def test_an_unsigned_bundle_says_so(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    assert isinstance(memrt("verify", bundle, "--keys", tmp_path).exception, MemrtError)
    said = as_json("verify", bundle, "--keys", tmp_path, "--allow-unsigned")
    assert (said["signed"], said["signer"], said["key_id"]) == (False, "unsigned", None)


def test_a_passphrase_comes_from_the_environment_where_there_is_no_terminal(tmp_path):
    bundle, key = make_bundle(tmp_path / "bundle"), tmp_path / "lab"
    refused = memrt("keygen", key, "--passphrase")
    assert "set MEMRT_PASSPHRASE" in str(refused.exception)
    assert memrt("keygen", key, "--passphrase", MEMRT_PASSPHRASE="secret").exit_code == 0
    assert "wrong" not in as_json("sign", bundle, "--key", key, MEMRT_PASSPHRASE="secret")
    assert "right passphrase" in str(memrt("sign", bundle, "--key", key, MEMRT_PASSPHRASE="guess").exception)


def test_a_missing_key_is_told_apart_from_a_missing_bundle(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    assert "memrt keygen" in str(memrt("sign", bundle, "--key", tmp_path / "none").exception)
    memrt("keygen", tmp_path / "lab")
    assert "nothing there" in str(memrt("sign", tmp_path / "none", "--key", tmp_path / "lab").exception)
    assert "nothing there" in str(memrt("verify", tmp_path / "none").exception)


@pytest.mark.parametrize("sign", [False, True])
def test_a_manifest_is_written_anew(tmp_path, sign):
    bundle = Path(shutil.copytree(SCHEMA_1, tmp_path / "old"))
    assert as_json("bundle", "migrate", bundle)["changed"]
    if sign:
        memrt("keygen", tmp_path / "lab")
        memrt("sign", bundle, "--key", tmp_path / "lab")
    assert not as_json("bundle", "migrate", bundle)["changed"]
    assert (bundle / SIGNATURE).exists() == sign  # nothing changed, so the signature stays
