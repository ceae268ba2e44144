"""Removes what no rollback needs any more. A folder loses its name first: half a bundle is never taken for one."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.durable_file import sync_folder

INSTALLED = ".installed"  # the mark of a runtime that is whole (`memrt.runtime.deploy.host.runtime`)
_GONE = ".removed-"  # folders on their way out


def remove_folder(layout: Layout, folder: Path) -> None:
    """Remove a folder of bundles or staging."""
    gone = layout.staging / f"{_GONE}{folder.name}"
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    sync_folder(folder.parent)
    shutil.rmtree(gone, ignore_errors=True)


def prune_bundles(layout: Layout, wanted: Collection[str]) -> None:
    """Remove installed bundles that are not `wanted`, with the engines that were built from them."""
    for folder in layout.installed():
        if folder in wanted:
            continue
        engines = layout.bundles / f"{folder}.engines"
        remove_folder(layout, layout.bundles / folder)
        if engines.is_dir():
            remove_folder(layout, engines)


def prune_staging(layout: Layout, digest: str) -> None:
    """Remove every transfer but that of `digest`: one that is not complete is all the disk has to hold."""
    for transfer in layout.staging.iterdir():
        if transfer.name != digest:
            shutil.rmtree(transfer, ignore_errors=True)


def prune_runtimes(layout: Layout, wanted: Collection[str | None]) -> None:
    """Remove runtimes that are not `wanted`. What `memrt flash` did not install is left alone."""
    for mark in layout.runtimes.glob(f"*/{INSTALLED}"):
        if mark.parent.name not in wanted and not mark.parent.is_symlink():
            mark.unlink()
            shutil.rmtree(mark.parent, ignore_errors=True)
