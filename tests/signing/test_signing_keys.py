"""Keys as files: what is written, and what is taken for a key."""

import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from memrt.runtime.errors import MemrtError
from memrt.runtime.signing import PrivateKey, PublicKey, generate_key, load_private_key, load_public_key, load_trusted
from memrt.runtime.signing.key_files import is_encrypted

# RFC 8032, section 7.1, test 2.
RFC_SECRET = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_signatures_are_those_of_the_rfc():
    key = PrivateKey(Ed25519PrivateKey.from_private_bytes(RFC_SECRET))
    assert key.public.raw == RFC_PUBLIC
    assert key.sign(b"\x72") == RFC_SIGNATURE
    assert key.public.verifies(RFC_SIGNATURE, b"\x72")
    assert not key.public.verifies(RFC_SIGNATURE, b"\x73")
    assert not PublicKey(b"\xff" * 32).verifies(RFC_SIGNATURE, b"\x72")
    assert RFC_SECRET.hex() not in repr(key)


def test_what_was_written_is_read(tmp_path):
    key = generate_key(tmp_path / "new" / "lab")
    assert load_private_key(tmp_path / "new" / "lab").public == key.public
    public = load_public_key(tmp_path / "new" / "lab.pub")
    assert (public, public.name, len(public.key_id)) == (key.public, "lab", 32)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o177 for path in (tmp_path / "new").iterdir()}
    assert modes["lab"] == 0
    assert generate_key(tmp_path / "second").public != key.public


def test_a_key_is_never_overwritten(tmp_path):
    generate_key(tmp_path / "lab")
    before = (tmp_path / "lab").read_bytes()
    for name in ("lab", "lab.pub"):
        with pytest.raises(MemrtError, match="is there already"):
            generate_key(tmp_path / "lab")
        (tmp_path / name).rename(tmp_path / "kept")
        with pytest.raises(MemrtError, match="is there already"):
            generate_key(tmp_path / "lab")
        (tmp_path / "kept").rename(tmp_path / name)
    assert (tmp_path / "lab").read_bytes() == before


def test_a_passphrase(tmp_path):
    key = generate_key(tmp_path / "lab", b"secret")
    assert is_encrypted(tmp_path / "lab")
    assert load_private_key(tmp_path / "lab", b"secret").public == key.public
    for wrong in (None, b"", b"guess"):
        with pytest.raises(MemrtError, match="give the right passphrase"):
            load_private_key(tmp_path / "lab", wrong)


def test_a_private_key_that_others_can_read_signs_nothing(tmp_path):
    generate_key(tmp_path / "lab")
    (tmp_path / "lab").chmod(0o640)
    with pytest.raises(MemrtError, match=r"found mode 0640.*chmod 600"):
        load_private_key(tmp_path / "lab")


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"x" * 5000, b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_what_is_no_key_is_refused(tmp_path, content):
    for name, load in (("lab", load_private_key), ("lab.pub", load_public_key)):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(MemrtError, match="key "):
            load(tmp_path / name)
        with pytest.raises(MemrtError, match="memrt keygen"):
            load(tmp_path / "missing")


def test_other_kinds_of_keys_are_refused(tmp_path):
    secret = x25519.X25519PrivateKey.generate()
    private, public = tmp_path / "lab", tmp_path / "lab.pub"
    private.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(secret.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(MemrtError, match="expected an Ed25519 key, found X25519PrivateKey"):
        load_private_key(private)
    with pytest.raises(MemrtError, match="expected an Ed25519 key, found X25519PublicKey"):
        load_public_key(public)


def test_a_robot_trusts_all_keys_of_its_folder(tmp_path, monkeypatch):
    keys = {name: generate_key(tmp_path / "made" / name).public for name in ("lab", "home")}
    robot = tmp_path / "robot"
    robot.mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert load_trusted(robot) == ()
    for name in keys:
        (tmp_path / "made" / f"{name}.pub").rename(robot / f"{name}.pub")
    (robot / "notes.txt").write_text("keys of two laboratories")
    assert {key.name: key for key in load_trusted(robot)} == keys
    monkeypatch.setenv("MEMRT_KEYS", str(robot))
    assert len(load_trusted()) == 2
    monkeypatch.setenv("MEMRT_KEYS", str(tmp_path / "nowhere"))
    with pytest.raises(MemrtError, match="found No such file or directory"):
        load_trusted()
    for broken in ("file", "loop"):
        with pytest.raises(MemrtError, match=r"a folder with \*\.pub files, which this user can read"):
            load_trusted(tmp_path / broken)
    (tmp_path / "made" / "lab").rename(robot / "oops.pub")
    with pytest.raises(MemrtError, match="a private key, which belongs on no robot"):
        load_trusted(robot)


def test_keys_that_everybody_can_write_are_trusted_by_nobody(tmp_path):
    generate_key(tmp_path / "lab")
    for path in (tmp_path, tmp_path / "lab.pub"):
        mode = stat.S_IMODE(path.stat().st_mode)
        os.chmod(path, mode | 0o002)
        with pytest.raises(MemrtError, match="not everybody can write"):
            load_trusted(tmp_path)
        os.chmod(path, mode)
    assert len(load_trusted(tmp_path)) == 1
