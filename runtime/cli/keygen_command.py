"""`memrt keygen`: a key that signs bundles, and its public half for the robots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("keygen")(keygen)


def keygen(
    key: Annotated[Path, typer.Argument(help="Where the private key goes; KEY.pub beside it is the public one.")],
    *,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Protect it by a passphrase, which `memrt sign` will ask for.")
    ] = False,
) -> None:
    """Make a key that signs bundles (Ed25519), and the public key with which a robot checks them.

    The private key stays on the computer that releases bundles. The public one goes to /etc/memrt/keys on every robot
    that shall run them; that folder is all that decides whose bundles run there.

    Example:

        memrt keygen ~/.memrt/lab && scp ~/.memrt/lab.pub robot:/etc/memrt/keys/
    """
    from memrt.runtime.cli.passphrase import new_passphrase
    from memrt.runtime.signing import KEYS_FOLDER, generate_key
    from memrt.runtime.signing.key_files import public_path

    path = key.expanduser()
    made = generate_key(path, new_passphrase() if passphrase else None)
    typer.echo(f"{path}  signs bundles: keep it on this computer, with a copy in a safe place")
    typer.echo(f"{public_path(path)}  for {KEYS_FOLDER} on the robots; its id is {made.public.key_id}")
