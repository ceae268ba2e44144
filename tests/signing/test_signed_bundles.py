"""Signing and checking whole bundles: what a signature survives, and what it does not."""

import base64
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from small_bundle import make_bundle

from memrt.runtime.bundle import load_bundle
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import MANIFEST, SHARED, SIGNATURE
from memrt.runtime.shared_files import SMALLEST, copy_bundle, share_files
from memrt.runtime.signing import (
    PrivateKey,
    generate_key,
    load_public_key,
    require_signer,
    sign,
    sign_bundle,
    signer_of,
    verify_bundle,
)


def test_a_signed_bundle_is_what_was_signed(signed, key):
    verified = verify_bundle(signed, [key.public])
    assert (verified.name, verified.version, verified.signer.key) == ("am_grounded", 7, key.public)
    assert verified.sha256 == hashlib.sha256((signed / MANIFEST).read_bytes()).hexdigest()
    assert verified.signer.says == f"signed by `lab` ({key.public.key_id})"
    assert signer_of(load_bundle(signed), [key.public]) == verified.signer


def test_the_same_key_and_bundle_give_the_same_bytes(signed, key, tmp_path):
    again = make_bundle(tmp_path / "again")
    sign_bundle(again, key, version=7)
    assert (again / SIGNATURE).read_bytes() == (signed / SIGNATURE).read_bytes()


def test_signing_without_a_version_leaves_the_manifest(tmp_path, key):
    folder = make_bundle(tmp_path / "bundle")
    before = (folder / MANIFEST).read_bytes()
    assert sign_bundle(folder, key).version == 1
    assert (folder / MANIFEST).read_bytes() == before


def test_a_new_version_needs_a_new_signature_and_gets_it(signed, key):
    before = verify_bundle(signed, [key.public])
    after = sign_bundle(signed, key, version=8)
    assert (after.version, after.sha256 == before.sha256) == (8, False)
    assert verify_bundle(signed, [key.public]).version == 8


@pytest.mark.parametrize("version", [0, -1, 2**53])
def test_a_version_that_is_none_is_refused(signed, key, version):
    with pytest.raises(MemrtError, match="version of bundle"):
        sign_bundle(signed, key, version=version)
    assert verify_bundle(signed, [key.public]).version == 7


def test_a_broken_bundle_is_not_signed(tmp_path, key):
    folder = make_bundle(tmp_path / "bundle")
    (folder / "ll/step.onnx").write_bytes(b"stop" * 30)
    with pytest.raises(MemrtError, match="corrupt file"):
        sign_bundle(folder, key)
    assert not (folder / SIGNATURE).exists()


def test_an_unsigned_bundle_is_taken_only_when_that_is_said(tmp_path, key):
    folder = make_bundle(tmp_path / "bundle")
    with pytest.raises(MemrtError, match=r"found none: it is unsigned.*--allow-unsigned"):
        verify_bundle(folder, [key.public])
    verified = verify_bundle(folder, [], allow_unsigned=True)
    assert (verified.signer.key, verified.signer.says) == (None, "unsigned")
    (folder / "ll/step.onnx").write_bytes(b"stop" * 30)
    with pytest.raises(MemrtError, match="corrupt file"):
        verify_bundle(folder, [], allow_unsigned=True)


def test_an_unknown_signer_is_as_good_as_none(signed, key, tmp_path):
    other = generate_key(tmp_path / "other").public
    with pytest.raises(MemrtError, match=f"found signed by {key.public.key_id}, a key that is not trusted here"):
        verify_bundle(signed, [other])
    assert verify_bundle(signed, [other], allow_unsigned=True).signer.key is None
    assert verify_bundle(signed, [other, key.public]).signer.key == key.public


def test_a_false_signature_is_refused_even_where_unsigned_bundles_may_run(signed, key):
    values = json.loads((signed / MANIFEST).read_text())
    (signed / MANIFEST).write_text(json.dumps(values | {"version": 8}))
    with pytest.raises(MemrtError, match="changed after it was signed"):
        verify_bundle(signed, [key.public], allow_unsigned=True)
    with pytest.raises(MemrtError, match="changed after it was signed"):
        signer_of(load_bundle(signed), [key.public])


def test_a_key_cannot_pass_for_another_by_its_id(signed, key, tmp_path):
    """The signature is of `other`, but names the trusted key."""
    other = generate_key(tmp_path / "other")
    sign_bundle(signed, other)
    path = signed / SIGNATURE
    path.write_text(path.read_text().replace(other.public.key_id, key.public.key_id))
    with pytest.raises(MemrtError, match="expected the signature of `lab`"):
        verify_bundle(signed, [key.public])


def test_a_signature_for_the_bare_hash_is_none(signed, key):
    """Without the prefix a signature of the same key could come from anywhere."""
    path = signed / SIGNATURE
    values = json.loads(path.read_text())
    digest = hashlib.sha256((signed / MANIFEST).read_bytes()).digest()
    values["signature"] = base64.b64encode(key.sign(digest)).decode()
    path.write_text(json.dumps(values, sort_keys=True, indent=2) + "\n")
    with pytest.raises(MemrtError, match="changed after it was signed"):
        verify_bundle(signed, [key.public])


def test_signatures_survive_sharing_and_copying(tmp_path, key):
    big = b"weights of every policy" * SMALLEST
    pair = [make_bundle(tmp_path / name, **{"ll/embed.npy": big, "name.txt": name.encode()}) for name in ("one", "two")]
    hashes = [sign_bundle(folder, key, version=3).sha256 for folder in pair]
    assert share_files(tmp_path) == len(big)
    assert not (pair[0] / "ll/embed.npy").exists()
    assert [verify_bundle(folder, [key.public]).sha256 for folder in pair] == hashes
    copied = copy_bundle(load_bundle(pair[0]), tmp_path / "stick" / "one")
    assert verify_bundle(copied.path, [key.public]).sha256 == hashes[0]
    resigned = sign_bundle(pair[1], key, version=4)  # a manifest is written anew while its files lie in `shared`
    assert verify_bundle(pair[1], [key.public]).version == resigned.version == 4
    assert not (pair[1] / "ll/embed.npy").exists()
    shared = next((tmp_path / SHARED).iterdir())
    shared.write_bytes(big[:-1] + b"!")
    with pytest.raises(MemrtError, match=r"corrupt file `ll/embed\.npy`"):
        verify_bundle(pair[0], [key.public])


def test_interrupted_before_the_signature_a_bundle_is_unsigned(signed, key, monkeypatch):
    def lost_power(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sign, "write_durably", lost_power)
    with pytest.raises(KeyboardInterrupt):
        sign_bundle(signed, key, version=9)
    verified = verify_bundle(signed, [key.public], allow_unsigned=True)
    assert (verified.signer.says, verified.version) == ("unsigned", 9)
    assert sorted(path.name for path in signed.parent.iterdir()) == ["bundle"]


def test_the_bundle_found_through_a_link_is_the_bundle(signed, key, tmp_path):
    """As a robot's `current` names it."""
    current = tmp_path / "current"
    current.symlink_to(signed)
    assert verify_bundle(current, [key.public]).bundle.path == current


def test_the_key_that_vouches(signed, key: PrivateKey, tmp_path: Path):
    public = load_public_key(key_file(tmp_path, key))
    assert require_signer(signed, signer_of(load_bundle(signed), [public])) == key.public


def key_file(folder: Path, key: PrivateKey) -> Path:
    """The public key as openssl would write it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    path = folder / "robot.pub"
    path.write_bytes(key.secret.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def test_a_bundle_of_schema_1_is_signed_as_one_of_the_present(key, tmp_path):
    folder = shutil.copytree(Path(__file__).parents[1] / "bundle" / "schema_1", tmp_path / "old")
    with pytest.raises(MemrtError, match="it is unsigned"):
        verify_bundle(folder, [key.public])
    sign_bundle(folder, key, version=2)
    assert verify_bundle(folder, [key.public]).version == 2
    assert json.loads((folder / MANIFEST).read_text())["schema_version"] == 2


def test_a_bundle_that_cannot_be_written_is_refused(signed, key, monkeypatch):
    """As on a medium that is read-only; root writes anywhere else."""

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(sign, "write_durably", read_only)
    with pytest.raises(MemrtError, match="Read-only file system"):
        sign_bundle(signed, key)
