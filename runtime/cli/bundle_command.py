"""`memrt bundle`: copy a bundle whole, let bundles share what they have in common, write an old manifest anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from memrt.runtime.bundle import load_bundle, rewrite_manifest
from memrt.runtime.cli.default_bundle import find_bundle
from memrt.runtime.cli.progress import tell
from memrt.runtime.shared_files import copy_bundle, share_files

JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    bundles = typer.Typer(help="Copy bundles, let them share files, write old manifests anew.", no_args_is_help=True)
    bundles.command("copy")(copy)
    bundles.command("share")(share)
    bundles.command("migrate")(migrate)
    app.add_typer(bundles, name="bundle")


def copy(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or the name of a reference policy.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The copy: a new folder.")],
    *,
    precision: Annotated[str, typer.Option(help="Of the reference bundle.")] = "int8",
    as_json: JSON = False,
) -> None:
    """Copy a bundle with everything it needs into one folder, to be taken to another computer.

    Bundles that lie side by side, as the reference bundles do, may share files; `cp` would leave those behind.

    Example:

        memrt bundle copy am_grounded -o /media/stick/am_grounded
    """
    folder = Path(bundle) if Path(bundle).is_dir() else find_bundle(None, bundle, precision)
    copied = copy_bundle(load_bundle(folder), out)
    size = sum(path.stat().st_size for path in copied.files.values())
    if as_json:
        report = {"bundle": str(out), "bundle_sha256": copied.sha256, "files": len(copied.files), "bytes": size}
        print(json.dumps(report))
    else:
        tell(f"{out}: {len(copied.files)} files, {size / 1e6:.1f} MB, all of them checked")


def share(
    folder: Annotated[Path, typer.Argument(help="The folder that the bundles lie in.")], *, as_json: JSON = False
) -> None:
    """Store each file that two or more bundles in a folder hold only once, in `shared` beside them.

    Manifests, and with them the bundles' hashes, stay as they are; every command opens the bundles as before.

    Example:

        memrt bundle share train/reference/bundles
    """
    saved = share_files(folder)
    if as_json:
        print(json.dumps({"folder": str(folder), "saved_bytes": saved}))
    else:
        tell(f"{folder}: {saved / 1e6:.1f} MB fewer")


def migrate(bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")], *, as_json: JSON = False) -> None:
    """Write a bundle's manifest in the present schema, after checking every file; nothing else changes.

    Every memrt reads the schemas before its own, so no bundle needs this to run; `memrt sign` does it by itself. The
    bundle's hash becomes another: build and prove it again. A signature is of the old manifest, and is removed.

    Example:

        memrt bundle migrate my_old_bundle
    """
    before = load_bundle(bundle)
    after = rewrite_manifest(before, before.manifest)
    if as_json:
        print(
            json.dumps({"bundle": str(bundle), "bundle_sha256": after.sha256, "changed": after.sha256 != before.sha256})
        )
    else:
        tell(f"{bundle}: {'rewritten' if after.sha256 != before.sha256 else 'is of the present schema already'}")
