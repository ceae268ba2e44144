"""The options of commands that ask who vouches for a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TrustedKeys = Annotated[
    Path | None,
    typer.Option(
        "--keys", help="Folder of trusted public keys, *.pub.", show_default="$MEMRT_KEYS, or /etc/memrt/keys"
    ),
]
AllowUnsigned = Annotated[
    bool, typer.Option("--allow-unsigned", help="Let a physical robot run a bundle that no trusted key signed.")
]
