import json
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrt.runtime.bundle import (
    Bundle,
    EngineRecord,
    FileRecord,
    TensorRecord,
    load_bundle,
    require_halves,
    rewrite_manifest,
    sha256_of,
    write_bundle,
)
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import MANIFEST, SIGNATURE, manifest_bytes, parse_manifest

FILES = {"hl/vision.onnx": b"vision" * 1000, "hl/config.json": b"{}", "ll/step.onnx": b"step"}
VISION = EngineRecord(
    file="hl/vision.onnx",
    precision="int8",
    inputs=(TensorRecord(name="pixels", dtype="float32", shape=(1, 3, -1, -1)),),
    outputs=(),
    gate={"cosine": 0.9999, "relative_l2": 0.01},
)


def write(staging: Path, destination: Path, files: dict[str, bytes] = FILES, **settings: object) -> Bundle:
    for relative, content in files.items():
        path = staging / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    values = {
        "policy": load_policy("am_grounded"),
        "precision": "int8",
        "engines": {"hl/vision": VISION},
        "sources": {"high_level_base": "0" * 64, "onnxruntime": "1.31.1"},
    }
    return write_bundle(staging, destination, **(values | settings))


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return write(tmp_path / "staging", tmp_path / "bundle")


def files_of(bundle: Bundle) -> dict[str, dict[str, object]]:
    return json.loads((bundle.path / MANIFEST).read_text())["files"]


def edit_manifest(bundle: Bundle, **changes: object) -> None:
    path = bundle.path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip(bundle, tmp_path):
    loaded = load_bundle(str(bundle.path))
    assert loaded.manifest == bundle.manifest
    assert loaded.policy == load_policy("am_grounded")
    assert loaded.manifest.engines["hl/vision"] == VISION
    assert loaded.manifest.proven_on_device == "not yet proven on device"
    assert {relative: loaded.file(relative).read_bytes() for relative in FILES} == FILES
    assert not (tmp_path / "staging").exists()


def test_same_input_gives_the_same_bytes(bundle, tmp_path):
    again = write(tmp_path / "other_staging", tmp_path / "elsewhere" / "bundle")
    written = (again.path / MANIFEST).read_bytes()
    assert written == (bundle.path / MANIFEST).read_bytes() == manifest_bytes(bundle.manifest)
    assert str(tmp_path).encode() not in written


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int4", "fp8", "nvfp4", "mixed"])
def test_every_scheme_and_what_it_is_for_are_kept(tmp_path, precision):
    reports = {"report.json": b"{}", "report.html": b"<html>", "plan.yaml": b"engines: {}"}
    write(tmp_path / "staging", tmp_path / "bundle", FILES | reports, precision=precision, target="orin")
    loaded = load_bundle(tmp_path / "bundle")
    assert (loaded.manifest.precision, loaded.manifest.target) == (precision, "orin")
    assert loaded.file("plan.yaml").read_bytes() == b"engines: {}"


def test_an_unknown_precision_is_refused(bundle):
    edit_manifest(bundle, precision="int3")
    with pytest.raises(MemrtError, match="int3"):
        load_bundle(bundle.path)


def test_a_bundle_from_before_targets_is_for_cpus(bundle):
    values = json.loads((bundle.path / MANIFEST).read_text())
    del values["target"]
    (bundle.path / MANIFEST).write_text(json.dumps(values))
    assert load_bundle(bundle.path).manifest == bundle.manifest
    assert bundle.manifest.target == "cpu"


def test_half_a_policy_is_a_bundle_but_drives_nothing(bundle, tmp_path):
    require_halves(bundle, "hl")
    with pytest.raises(MemrtError, match=r"expected engines of hl and ll .*found only hl.*policy's YAML"):
        require_halves(bundle)
    with pytest.raises(MemrtError, match=r"expected engines of ll .*found only hl"):
        require_halves(bundle, "ll")
    step = EngineRecord(file="ll/step.onnx", precision="int8", inputs=(), outputs=())
    engines = {"hl/vision": VISION, "ll/step": step}
    require_halves(write(tmp_path / "both", tmp_path / "whole", engines=engines))
    oracle = load_policy("oracle_grounded")
    require_halves(write(tmp_path / "ll", tmp_path / "oracle", policy=oracle, engines={"ll/step": step}))


def test_older_bundle_is_replaced_as_a_whole(bundle, tmp_path):
    replaced = write(tmp_path / "newer", bundle.path, FILES | {"ll/step.onnx": b"better"})
    assert load_bundle(bundle.path).file("ll/step.onnx").read_bytes() == b"better"
    assert replaced.manifest != bundle.manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


def test_foreign_folder_is_not_overwritten(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(MemrtError, match="will not be overwritten"):
        write(tmp_path / "staging", home)
    assert [path.name for path in home.iterdir()] == ["thesis.tex"]


def test_links_are_not_packed(tmp_path):
    staging = tmp_path / "staging"
    staging.mkdir()
    (staging / "notes.txt").symlink_to("/etc/hostname")
    with pytest.raises(MemrtError, match=r"notes\.txt.*link"):
        write(staging, tmp_path / "bundle")


@pytest.mark.parametrize("name", ["no_such_bundle", "plain_file"])
def test_missing_folder(tmp_path, name):
    (tmp_path / "plain_file").write_text("")
    with pytest.raises(MemrtError, match="memrt export"):
        load_bundle(tmp_path / name)


def test_missing_manifest(bundle):
    (bundle.path / MANIFEST).unlink()
    with pytest.raises(MemrtError, match=r"manifest\.json"):
        load_bundle(bundle.path)


def test_manifest_that_is_not_json(bundle):
    (bundle.path / MANIFEST).write_text("{")
    with pytest.raises(MemrtError, match="valid JSON"):
        load_bundle(bundle.path)


@pytest.mark.parametrize("version", [0, 3, "1", True, 2.0, None])
def test_other_schema(bundle, version):
    edit_manifest(bundle, schema_version=version)
    with pytest.raises(MemrtError, match="expected schema_version 1 to 2, found"):
        load_bundle(bundle.path)


def test_manifest_that_is_not_a_mapping(bundle):
    (bundle.path / MANIFEST).write_text("[]")
    with pytest.raises(MemrtError, match="schema_version"):
        load_bundle(bundle.path)


def test_unknown_manifest_key(bundle):
    edit_manifest(bundle, presicion="int8")
    with pytest.raises(MemrtError, match="did you mean `precision`"):
        load_bundle(bundle.path)


def test_unknown_policy_key(bundle):
    policy = json.loads((bundle.path / MANIFEST).read_text())["policy"]
    policy["memory"]["horizon"] = 3
    edit_manifest(bundle, policy=policy)
    with pytest.raises(MemrtError, match=r"policy\.memory\.horizon"):
        load_bundle(bundle.path)


def test_engine_without_its_file(bundle):
    edit_manifest(bundle, files={name: said for name, said in files_of(bundle).items() if name != "hl/vision.onnx"})
    with pytest.raises(MemrtError, match=r"hl/vision\.onnx.*among `files`"):
        load_bundle(bundle.path)


def test_missing_file(bundle):
    (bundle.path / "ll/step.onnx").unlink()
    with pytest.raises(MemrtError, match=r"no `ll/step\.onnx`"):
        load_bundle(bundle.path, verify=False)


def test_extra_file(bundle):
    (bundle.path / "ll/extra.bin").write_bytes(b"")
    with pytest.raises(MemrtError, match=r"found `ll/extra\.bin`"):
        load_bundle(bundle.path, verify=False)


def test_a_file_of_another_size_is_refused_without_hashing(bundle):
    (bundle.path / "ll/step.onnx").write_bytes(b"steps")
    with pytest.raises(MemrtError, match=r"corrupt file `ll/step\.onnx`.*expected 4 bytes, found 5 bytes"):
        load_bundle(bundle.path, verify=False)


@pytest.mark.parametrize("relative", sorted(FILES))
def test_one_changed_bit_in_any_file(bundle, relative):
    path = bundle.path / relative
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(MemrtError, match=f"corrupt file `{relative}`"):
        load_bundle(bundle.path)
    load_bundle(bundle.path, verify=False)


@pytest.mark.parametrize(
    "outside", ["../secret", "/etc/passwd", "hl/../../secret", "hl//vision", "./a", "a\\b", "", MANIFEST, SIGNATURE]
)
def test_paths_outside_the_bundle_are_refused(bundle, tmp_path, outside):
    (tmp_path / "secret").write_text("secret")
    edit_manifest(bundle, files=files_of(bundle) | {outside: {"sha256": "0" * 64, "size": 1}})
    with pytest.raises(MemrtError, match="plain paths below the bundle"):
        load_bundle(bundle.path)


def test_link_inside_a_bundle_is_refused(bundle, tmp_path):
    step = bundle.path / "ll/step.onnx"
    step.rename(tmp_path / "step.onnx")
    step.symlink_to(tmp_path / "step.onnx")
    with pytest.raises(MemrtError, match="link"):
        load_bundle(bundle.path)


def test_only_named_files_can_be_reached(bundle):
    for relative in ("manifest.json", "hl/vision", "../bundle/hl/vision.onnx"):
        with pytest.raises(MemrtError, match="has no file"):
            bundle.file(relative)


SCHEMA_1 = Path(__file__).parent / "schema_1"  # as the last memrt before schema 2 wrote it


def test_a_bundle_of_schema_1_is_read_as_one_of_the_present(tmp_path):
    loaded = load_bundle(SCHEMA_1)
    manifest = loaded.manifest
    assert (manifest.schema_version, manifest.version) == (2, 1)
    assert manifest.files["ll/step.onnx"] == FileRecord(sha256=sha256_of(SCHEMA_1 / "ll/step.onnx"), size=None)
    assert loaded.sha256 == sha256_of(SCHEMA_1 / MANIFEST)
    assert manifest.engines["ll/step"].gate == {"cosine": 0.9999}
    copied = Path(shutil.copytree(SCHEMA_1, tmp_path / "copy"))
    (copied / "ll/step.onnx").write_bytes(b"step of schema 2\n")
    with pytest.raises(MemrtError, match=r"corrupt file `ll/step\.onnx`"):
        load_bundle(copied)


def test_a_manifest_that_is_written_anew_says_the_same_and_the_sizes(tmp_path):
    before = load_bundle(shutil.copytree(SCHEMA_1, tmp_path / "copy"))
    after = rewrite_manifest(before, before.manifest)
    assert {name: record.size for name, record in after.manifest.files.items()} == {
        name: path.stat().st_size for name, path in before.files.items()
    }
    assert msgspec.structs.replace(after.manifest, files=before.manifest.files) == before.manifest
    assert json.loads((after.path / MANIFEST).read_text())["schema_version"] == 2
    assert (after.sha256, after) == (sha256_of(after.path / MANIFEST), load_bundle(after.path))
    assert rewrite_manifest(after, after.manifest) is after
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_an_unknown_size_is_of_schema_1_only(bundle):
    files = files_of(bundle)
    files["ll/step.onnx"]["size"] = None
    edit_manifest(bundle, files=files)
    with pytest.raises(MemrtError, match=r"expected the size of `ll/step\.onnx`"):
        load_bundle(bundle.path)


@pytest.mark.parametrize("digest", ["0" * 63, "0" * 65, "g" * 64, "0" * 64 + "\n", "../../secret", 7, None])
def test_a_hash_that_is_none_is_refused(bundle, digest):
    """It names a file in the folder `shared`, too."""
    edit_manifest(bundle, files=files_of(bundle) | {"ll/step.onnx": {"sha256": digest, "size": 4}})
    with pytest.raises(MemrtError, match="sha256"):
        load_bundle(bundle.path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def manifest_values(schema: int) -> dict[str, object]:
    """What a manifest of either schema says."""
    if schema == 1:
        return json.loads((SCHEMA_1 / MANIFEST).read_bytes())
    old = load_bundle(SCHEMA_1)
    files = {name: FileRecord(sha256=sha256_of(path), size=path.stat().st_size) for name, path in old.files.items()}
    return json.loads(manifest_bytes(msgspec.structs.replace(old.manifest, files=files)))


@settings(max_examples=60)
@given(schema=st.sampled_from([1, 2]), where=st.lists(st.integers(0, 9), min_size=1, max_size=5), value=JSON)
def test_a_manifest_is_taken_or_refused_whatever_stands_in_it(schema, where, value):
    """Anywhere in it, another value: never an error of another kind."""
    values = manifest_values(schema)
    place = values
    *path, last = where
    for step in path:
        inner = place[sorted(place)[step % len(place)]]
        if not isinstance(inner, dict) or not inner:
            break
        place = inner
    place[sorted(place)[last % len(place)]] = value
    try:
        parsed = parse_manifest(json.dumps(values).encode(), Path(MANIFEST))
    except MemrtError:
        return
    assert parsed.schema_version == 2
    if schema == 2:
        assert parse_manifest(manifest_bytes(parsed), Path(MANIFEST)) == parsed


@settings(max_examples=50)
@given(content=st.binary(max_size=200) | st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b'"\\ud800"', b"\xff"]))
def test_bytes_that_are_no_manifest_are_refused(content):
    with pytest.raises(MemrtError):
        parse_manifest(content, Path(MANIFEST))
