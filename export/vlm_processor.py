"""What a checkpoint's `preprocessor_config.json` says about its images, checked against what its family's graphs do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from memrt.export.vlm_family import Family
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.vlm_config import Resize

FILE = "preprocessor_config.json"


def read_resize(folder: Path, family: Family, vision: Any) -> Resize | None:
    """How the image processor of the checkpoint in `folder` resizes; None where it does not.

    `vision` is the transformers vision config. A folder without the file has the family's published processor. Raises
    MemrtError when the file's normalisation or patches are not those of the family's graphs.
    """
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = {}
    except (OSError, ValueError) as error:
        raise _refusal(folder, "a readable JSON object", error) from error
    if not isinstance(found, dict):
        raise _refusal(folder, "a JSON object", type(found).__name__)
    expected = {
        "image_mean": list(family.mean),
        "image_std": list(family.deviation),
        "patch_size": int(vision.patch_size),
        "merge_size": int(vision.spatial_merge_size),
        "temporal_patch_size": int(vision.temporal_patch_size),
    }
    for key, value in expected.items():
        if found.get(key, value) != value:
            raise _refusal(folder, f"{key} {value}", found[key])
    if found.get("do_resize") is False:
        return None
    size = found.get("size") or {}
    low = found.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels") or family.min_pixels
    high = found.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels") or family.max_pixels
    return Resize(factor=expected["patch_size"] * expected["merge_size"], min_pixels=int(low), max_pixels=int(high))


def _refusal(folder: Path, expected: object, found: object) -> MemrtError:
    return MemrtError(
        f"image processor {folder / FILE}",
        expected=expected,
        found=found,
        fix="restore the file that belongs to this checkpoint",
    )
