"""Manifests of older schemas, read as the present one. Each schema has one step, and steps follow one another.

| schema | what it added |
|---|---|
| 1 | a SHA-256 for every file |
| 2 | `version`, the size of every file, `cpu` |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memrt.runtime.errors import MemrtError

SCHEMA_VERSION = 2
OLDEST = 1


def in_this_schema(values: object, path: Path) -> dict[str, Any]:
    """The `values` of the manifest at `path`, as `SCHEMA_VERSION` would have written them.

    What an older schema did not know stays open: no size, the first version. Raises MemrtError for another schema.
    """
    schema = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(values, dict) or type(schema) is not int or not OLDEST <= schema <= SCHEMA_VERSION:
        raise MemrtError(
            f"{path}",
            expected=f"schema_version {OLDEST} to {SCHEMA_VERSION}",
            found=repr(schema),
            fix="install the memrt that wrote the bundle, or export the policy with this one",
        )
    if schema == 1:
        return _from_1(values)
    for relative, record in _files(values).items():
        if isinstance(record, dict) and record.get("size", 0) is None:
            raise MemrtError(
                f"{path}",
                expected=f"the size of `{relative}`",
                found="null, which stands for manifests of schema 1",
                fix="do not use this bundle; export the policy again",
            )
    return values


def _from_1(values: dict[str, Any]) -> dict[str, Any]:
    files = {relative: {"sha256": digest, "size": None} for relative, digest in _files(values).items()}
    return {**values, "schema_version": 2, "version": 1} | ({"files": files} if files else {})


def _files(values: dict[str, Any]) -> dict[str, Any]:
    files = values.get("files")
    return files if isinstance(files, dict) else {}
