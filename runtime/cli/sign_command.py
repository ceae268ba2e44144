"""`memrt sign`: vouch for a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("sign")(sign)


def sign(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", metavar="BUNDLE")],
    *,
    key: Annotated[Path, typer.Option(help="The private key that `memrt keygen` made.")],
    version: Annotated[
        int | None,
        typer.Option(
            min=1, help="The release's number: higher than that of any before it.", show_default="as in the bundle"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Sign a bundle, after checking every file of it; an older signature is replaced.

    `signature.json` is added beside the manifest; no other file changes, unless --version sets another number in the
    manifest. A robot refuses a version lower than one that it had, and two bundles of one version.

    Sign before `memrt build`: what was built and proven belongs to the manifest as it was.

    Examples:

        memrt sign my_bundle --key ~/.memrt/lab --version 7

        memrt sign my_bundle --key ~/.memrt/lab --json
    """
    from memrt.runtime.cli.passphrase import passphrase
    from memrt.runtime.signing import load_private_key, sign_bundle
    from memrt.runtime.signing.key_files import is_encrypted

    path = key.expanduser()
    private = load_private_key(path, passphrase() if is_encrypted(path) else None)
    signed = sign_bundle(bundle, private, version=version)
    if as_json:
        report = {
            "bundle": str(bundle),
            "name": signed.name,
            "version": signed.version,
            "bundle_sha256": signed.sha256,
            "key_id": private.public.key_id,
        }
        typer.echo(json.dumps(report))
        return
    typer.echo(f"{signed.name} version {signed.version}, {signed.sha256[:12]}: {signed.signer.says}")
