"""Finds the YAML files that come with memrt (`configs/`) by their bare names."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Literal

from memrt.runtime.errors import MemrtError
from memrt.runtime.strict_config import nearest

Folder = Literal["policies", "protocols", "robots", "targets"]


def packaged_names(folder: Folder) -> list[str]:
    """Names of the files in one folder of `configs/`, sorted."""
    return sorted(path.stem for path in _path(folder).glob("*.yaml"))


def packaged_file(folder: Folder, name: str, *, what: str, file: str) -> Path:
    """The file called `name`. Raises MemrtError for an unknown one, listing the known ones.

    The error says that `what` is unknown, and that the path of `file` would do as well.
    """
    known = packaged_names(folder)
    if name not in known:
        close = nearest(name, known)
        raise MemrtError(
            f"unknown {what} `{name}`",
            expected=f"one of {', '.join(known)}, or the path of {file}",
            found=f"`{name}`",
            fix=f"did you mean `{close}`?" if close else "choose one of the names, or give a path ending in .yaml",
        )
    return _path(folder) / f"{name}.yaml"


def _path(folder: Folder) -> Path:
    return Path(str(importlib.resources.files("memrt.configs") / folder))
