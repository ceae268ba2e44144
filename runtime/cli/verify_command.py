"""`memrt verify`: is this bundle whole, and who vouches for it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from memrt.runtime.cli.trust_options import TrustedKeys


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("verify")(verify)


def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", metavar="BUNDLE")],
    *,
    keys: TrustedKeys = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Check the files even if no trusted key vouches for them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Check a bundle's signature, its exact set of files, their sizes and their SHA-256, as a robot does.

    Exit status: 0 when all of it is right, 2 with one line that says what is not.

    Examples:

        memrt verify my_bundle

        memrt verify my_bundle --keys ~/.memrt

        memrt verify my_bundle --allow-unsigned --json
    """
    from memrt.runtime.signing import load_trusted, verify_bundle

    verified = verify_bundle(bundle, load_trusted(keys), allow_unsigned=allow_unsigned)
    files = verified.bundle.files
    size = sum(path.stat().st_size for path in files.values())
    signer = verified.signer
    if as_json:
        report = {
            "bundle": str(bundle),
            "name": verified.name,
            "version": verified.version,
            "bundle_sha256": verified.sha256,
            "signed": signer.key is not None,
            "key_id": None if signer.key is None else signer.key.key_id,
            "signer": signer.says,
            "files": len(files),
            "bytes": size,
        }
        typer.echo(json.dumps(report))
        return
    typer.echo(f"{verified.name} version {verified.version}, {verified.sha256[:12]}: {signer.says}")
    typer.echo(f"{len(files)} files, {size / 1e6:.1f} MB, all of them as the manifest says")
