"""What is refused before a byte is sent."""

import msgspec
import pytest

from memrt.runtime.bundle_needs import needed_backend
from memrt.runtime.config import load_policy
from memrt.runtime.deploy.target.preflight import Facts, check
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import EngineRecord, FileRecord, Manifest
from memrt.runtime.manifest_schemas import SCHEMA_VERSION

ORIN = Facts(
    architecture="aarch64",
    python="3.10.12",
    memrt="0.1.0",
    gpu="Orin (nvgpu)",
    sm=87,
    driver="12.6",
    backends={"onnxruntime": "1.22.0", "tensorrt": "10.7.0"},
    free_bytes=4_000_000_000,
    clock_offset_s=0.4,
    service="disarmed",
    current=None,
    runtime=None,
)


def manifest(target: str, suffix: str, *, recipe: bool = False) -> Manifest:
    file = f"ll/step{suffix}"
    files = [file, "recipe/ll_step.json"] if recipe else [file]
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name="am_grounded",
        version=1,
        policy=load_policy("am_grounded"),
        precision="int8",
        target=target,
        engines={"ll/step": EngineRecord(file=file, precision="int8", inputs=(), outputs=())},
        files={name: FileRecord(sha256="0" * 64, size=1) for name in files},
    )


CPU, RTX, JETSON = manifest("cpu", ".onnx"), manifest("rtx", ".rtx"), manifest("orin", ".onnx", recipe=True)


def test_the_library_follows_from_the_engines():
    assert [needed_backend(bundle) for bundle in (CPU, RTX, JETSON)] == ["onnxruntime", "tensorrt_rtx", "tensorrt"]


@pytest.mark.parametrize("bundle", [CPU, JETSON])
def test_a_computer_that_suits_is_not_refused(bundle):
    check(ORIN, bundle, 1_900_000_000)


@pytest.mark.parametrize(
    ("bundle", "changes", "match"),
    [
        (RTX, {}, "the package tensorrt_rtx.*found onnxruntime, tensorrt"),
        (
            JETSON,
            {"sm": 110, "gpu": "Thor"},
            r"exported for orin: expected a GPU with compute capability 87, found Thor",
        ),
        (JETSON, {"sm": None, "gpu": ""}, "found no GPU, or no driver"),
        (CPU, {"free_bytes": 3_000_000_000}, "3800 MB free, 2 times the bundle, found 3000 MB"),
        (CPU, {"clock_offset_s": -86400.0}, "the workstation's, to 300 s, found -86400 s"),
    ],
)
def test_what_does_not_suit_is_named_with_its_remedy(bundle, changes, match):
    with pytest.raises(MemrtError, match=match):
        check(msgspec.structs.replace(ORIN, **changes), bundle, 1_900_000_000)


def test_what_was_sent_before_needs_no_more_room():
    full = msgspec.structs.replace(ORIN, free_bytes=3_000_000_000)
    check(full, CPU, 1_900_000_000, staged=900_000_000)
