"""A calibration set: the few dozen recorded moments that ranges are taken from and gates are judged on.

A folder that can be committed and looked at: `calibration.json` and one PNG per image. It is independent of the
policy: a high-level sample keeps what was remembered before and after the call, and the policy's own prompt is built
around it (`memrt.calib.chats`), so one set serves every policy of a task.

Samples have a role. `calibration` samples set ranges; `gate` samples, from episodes held out for it, judge. No episode
serves both.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memrt.runtime.errors import MemrtError
from memrt.runtime.types import PROPRIOCEPTION_DIM

Role = Literal["calibration", "gate"]
ROLES: tuple[Role, ...] = ("calibration", "gate")
DOCUMENT = "calibration.json"
SCHEMA_VERSION = 1
MAX_SAMPLES = 512  # of each level: a calibration set is a sample, not a dataset
MAX_IMAGE_PIXELS = 1024 * 1024
PROPRIOCEPTION_DECIMALS = 9  # nanoradians: keeps the document readable

Index = Annotated[int, msgspec.Meta(ge=0)]
Sample = TypeVar("Sample")


class LowLevelSample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the action expert saw once. `images`: camera → file; proprioception [8]: rad, and gripper 0..1."""

    role: Role
    episode: Index
    goal: str
    subgoal_simple: str
    subgoal_grounded: str
    proprioception: tuple[float, ...]
    images: dict[str, str]


class Remembered(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One phrasing of a high-level call: what was remembered, what was answered, what was remembered then.

    Spatial memories are empty in sets that were recorded without.
    """

    subgoal: str
    history: tuple[str, ...]
    memory_before: str
    memory_after: str
    spatial_before: str = ""
    spatial_after: str = ""


class HighLevelSample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One high-level call at control step `step`; `image` is the file of the camera's picture."""

    role: Role
    episode: Index
    step: Index
    goal: str
    image: str
    simple: Remembered
    grounded: Remembered


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`calibration.json`. `files`: SHA-256 of every image; `splits`: which episodes each role was drawn from."""

    schema_version: int
    name: str
    seed: int
    splits: dict[str, str]
    low_level: tuple[LowLevelSample, ...]
    high_level: tuple[HighLevelSample, ...]
    files: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSet:
    """A loaded set: its document, and images uint8 [height, width, 3] by file name."""

    document: Document
    images: Mapping[str, NDArray[np.uint8]]

    def low_level(self, role: Role) -> list[LowLevelSample]:
        """The action expert's samples of one role."""
        return [sample for sample in self.document.low_level if sample.role == role]

    def high_level(self, role: Role) -> list[HighLevelSample]:
        """The high level's samples of one role."""
        return [sample for sample in self.document.high_level if sample.role == role]

    def thinned(self, count: int) -> CalibrationSet:
        """At most `count` samples per role and half, evenly spread; the images stay."""
        low = [sample for role in ROLES for sample in evenly(self.low_level(role), count)]
        high = [sample for role in ROLES for sample in evenly(self.high_level(role), count)]
        document = msgspec.structs.replace(self.document, low_level=tuple(low), high_level=tuple(high))
        return CalibrationSet(document, self.images)

    def manifest(self) -> dict[str, object]:
        """What a bundle's manifest says about the set it was calibrated with."""
        document = self.document
        return {
            "name": document.name,
            "seed": document.seed,
            "splits": dict(document.splits),
            "sha256": hashlib.sha256(encode_document(document)).hexdigest(),
            "low_level": {role: len(self.low_level(role)) for role in ROLES},
            "high_level": {role: len(self.high_level(role)) for role in ROLES},
        }


def evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` samples, evenly spread over the sequence."""
    if len(samples) <= count:
        return list(samples)
    return [samples[index * len(samples) // count] for index in range(count)]


def reference_set() -> Path:
    """The set recorded for the reference policies, which travels with the package."""
    return Path(__file__).parent / "reference"


def load_calibration_set(folder: str | Path) -> CalibrationSet:
    """Read and check a set. Raises `MemrtError` for a missing, malformed, changed or leaking set."""
    root = Path(folder)
    path = root / DOCUMENT
    try:
        document = msgspec.json.decode(path.read_bytes(), type=Document)
    except (OSError, msgspec.DecodeError) as error:
        raise MemrtError(
            f"calibration set {root}",
            expected=f"a folder with a valid {DOCUMENT}",
            found=error,
            fix="record one with `memrt calib record`, or give its folder",
        ) from error
    check_document(document, str(path))
    return CalibrationSet(document, {name: _read_image(root, name, digest) for name, digest in document.files.items()})


def save_calibration_set(
    folder: str | Path, document: Document, images: Mapping[str, NDArray[np.uint8]]
) -> CalibrationSet:
    """Write images as PNG and the document with their hashes; replaces an older set in `folder`.

    `document.files` is filled in here. The same samples give the same bytes. Raises `MemrtError` when a sample names
    an image that is not there, or when `folder` holds something that is not a calibration set.
    """
    root = Path(folder)
    if root.exists() and not (root / DOCUMENT).is_file() and (not root.is_dir() or any(root.iterdir())):
        raise MemrtError(
            f"calibration set {root}",
            expected="a new folder or an older set",
            found="other files, which will not be overwritten",
            fix="choose another folder",
        )
    check_document(document, str(root))
    if missing := sorted(image_names(document) ^ set(images)):
        raise MemrtError(
            f"calibration set {root}",
            expected="exactly the images that its samples name",
            found=f"{missing[0]} on one side only",
            fix="record the set again",
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        written = _write(staging, document, images)
        staging.chmod(0o755)  # mkdtemp's 0700 would stay with the set
        if root.exists():
            shutil.rmtree(root)
        staging.rename(root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return CalibrationSet(written, dict(images))


def _write(folder: Path, document: Document, images: Mapping[str, NDArray[np.uint8]]) -> Document:
    """Images, and the document with their hashes, which is returned."""
    files = {}
    for name in sorted(images):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[name]).save(path, format="PNG", optimize=True)
        files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    written = msgspec.structs.replace(document, files=files)
    (folder / DOCUMENT).write_bytes(encode_document(written))
    return written


def encode_document(document: Document) -> bytes:
    """The document as it is written: one stable byte string."""
    return msgspec.json.format(msgspec.json.encode(document, order="deterministic"), indent=1) + b"\n"


def image_names(document: Document) -> set[str]:
    """Every image file that a sample names."""
    low = {name for sample in document.low_level for name in sample.images.values()}
    return low | {sample.image for sample in document.high_level}


def check_document(document: Document, source: str) -> None:
    """Raises `MemrtError` when the document breaks a rule that decoding cannot see."""

    def refuse(expected: object, found: object, fix: str = "record the set again") -> None:
        raise MemrtError(f"calibration set {source}", expected=expected, found=found, fix=fix)

    if document.schema_version != SCHEMA_VERSION:
        refuse(f"schema_version {SCHEMA_VERSION}", document.schema_version)
    for level, samples in (("low_level", document.low_level), ("high_level", document.high_level)):
        if len(samples) > MAX_SAMPLES:
            refuse(f"at most {MAX_SAMPLES} {level} samples", len(samples), "record fewer samples")
    episodes: dict[str, set[int]] = {role: set() for role in ROLES}
    recorded: list[LowLevelSample | HighLevelSample] = [*document.low_level, *document.high_level]
    for sample in recorded:
        episodes[sample.role].add(sample.episode)
    if shared := episodes["calibration"] & episodes["gate"]:
        refuse("no episode in both roles", f"episode {min(shared)} in calibration and gate")
    for low in document.low_level:
        if len(low.proprioception) != PROPRIOCEPTION_DIM:
            refuse(f"{PROPRIOCEPTION_DIM} values of proprioception", len(low.proprioception))


def _read_image(root: Path, name: str, digest: str) -> NDArray[np.uint8]:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()) or not path.is_file():
        raise MemrtError(
            f"calibration set {root}", expected=f"the image {name} inside it", found="none", fix="copy the set again"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise MemrtError(
            f"calibration set {root}",
            expected=f"{name} with SHA-256 {digest}",
            found="another content",
            fix="copy the set again, or record it again",
        )
    with Image.open(path) as image:
        if image.width * image.height > MAX_IMAGE_PIXELS:
            raise MemrtError(
                f"calibration set {root}",
                expected=f"at most {MAX_IMAGE_PIXELS} pixels",
                found=f"{name}: {image.width}x{image.height}",
                fix="record the set with smaller images",
            )
        return np.asarray(image.convert("RGB"))
