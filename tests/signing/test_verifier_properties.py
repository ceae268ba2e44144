"""Whatever is changed in a signed bundle, it is refused: every byte of every file, and the set of files itself."""

import base64
import itertools
import json
import os
import shutil
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bundle import FILES, make_bundle

from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import MANIFEST, SIGNATURE
from memrt.runtime.signing import PrivateKey, generate_key, sign_bundle, verify_bundle
from memrt.runtime.signing.signature import is_by, parse_signature

NAMES = (*sorted(FILES), MANIFEST, SIGNATURE)
PROPERTY = settings(max_examples=40, deadline=None)
SEGMENT = st.text(string.ascii_letters + string.digits + "._-é ", min_size=1, max_size=12).filter(
    lambda text: text not in {".", ".."}
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Path:
    folder = make_bundle(tmp_path_factory.mktemp("original") / "bundle")
    sign_bundle(folder, key, version=3)
    return folder


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    """A copy to spoil; what is spoilt many times is mended each time instead."""
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def refused(folder: Path, key: PrivateKey) -> None:
    for allow_unsigned in (False, True):
        with pytest.raises(MemrtError):
            verify_bundle(folder, [key.public], allow_unsigned=allow_unsigned)


def test_every_bit_of_the_signature(original, key):
    content, sha256 = (original / SIGNATURE).read_bytes(), verify_bundle(original, [key.public]).sha256

    def vouched(changed: bytes) -> bool:
        try:
            signature = parse_signature(changed, Path(SIGNATURE))
        except MemrtError:
            return False
        return signature.key_id == key.public.key_id and is_by(signature, key.public, sha256)

    assert vouched(content)
    for index in range(len(content)):
        for bit in range(8):
            changed = content[:index] + bytes([content[index] ^ 1 << bit]) + content[index + 1 :]
            assert not vouched(changed), (index, bit)


@PROPERTY
@given(name=st.sampled_from(NAMES), where=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_any_byte_of_any_file(original, key, name, where, change):
    path = original / name
    before = path.read_bytes()
    index = int(where * len(before))
    try:
        path.write_bytes(before[:index] + bytes([before[index] ^ change]) + before[index + 1 :])
        with pytest.raises(MemrtError):
            verify_bundle(original, [key.public])
    finally:
        path.write_bytes(before)
    verify_bundle(original, [key.public])


@PROPERTY
@given(
    name=st.sampled_from(NAMES),
    content=st.one_of(st.binary(max_size=300), st.just(b"{}\n"), st.just(b"[" * 100_000), st.text().map(str.encode)),
)
def test_any_other_content(original, key, name, content):
    path = original / name
    before = path.read_bytes()
    if content == before:
        return
    try:
        path.write_bytes(content)
        with pytest.raises(MemrtError):
            verify_bundle(original, [key.public])
    finally:
        path.write_bytes(before)


@PROPERTY
@given(segments=st.lists(SEGMENT, min_size=1, max_size=3), content=st.binary(max_size=20))
def test_any_added_file(original, key, segments, content):
    path = original.joinpath(*segments)
    if path.exists() or any(parent.is_file() for parent in path.parents):
        return
    new = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_bytes(content)
        refused(original, key)
    finally:
        path.unlink()
        for folder in new:
            folder.rmdir()


@pytest.mark.parametrize("name", [*sorted(FILES), MANIFEST])
def test_any_missing_file(bundle, key, name):
    (bundle / name).unlink()
    refused(bundle, key)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("replace", ["link to the same", "fifo", "folder"])
def test_anything_that_is_no_regular_file(bundle, key, name, replace, tmp_path):
    path = bundle / name
    kept = path.rename(tmp_path / "kept")
    if replace == "link to the same":
        path.symlink_to(kept)
    elif replace == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
        shutil.copy(kept, path / "inside")
    refused(bundle, key)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(sorted(set(FILES) - {"report.json"}), 2)))
def test_files_cannot_trade_places(bundle, key, first, second):
    (bundle / first).write_bytes(FILES[second])
    (bundle / second).write_bytes(FILES[first])
    refused(bundle, key)


def test_a_manifest_made_to_fit_other_files_is_not_the_signed_one(bundle, key, tmp_path):
    other = make_bundle(tmp_path / "other", **{"ll/step.onnx": b"another step"})
    shutil.copy(bundle / SIGNATURE, other / SIGNATURE)
    refused(other, key)


def test_the_signature_of_another_bundle_or_version(bundle, key, tmp_path):
    other = make_bundle(tmp_path / "other")
    sign_bundle(other, key, version=4)
    shutil.copy(other / SIGNATURE, bundle / SIGNATURE)
    refused(bundle, key)


@PROPERTY
@given(raw=st.binary(min_size=64, max_size=64))
def test_no_made_up_signature(original, key, raw):
    path = original / SIGNATURE
    before = path.read_bytes()
    values = json.loads(before) | {"signature": base64.b64encode(raw).decode()}
    try:
        path.write_text(json.dumps(values, sort_keys=True, indent=2) + "\n")
        refused(original, key)
    finally:
        path.write_bytes(before)


def test_the_wrong_key(bundle, tmp_path):
    with pytest.raises(MemrtError, match="not trusted here"):
        verify_bundle(bundle, [generate_key(tmp_path / "wrong").public])
    with pytest.raises(MemrtError, match="not trusted here"):
        verify_bundle(bundle, [])
