"""A private key's passphrase: asked for on a terminal, or from the environment where nobody sits at one."""

from __future__ import annotations

import os
import sys

import typer

from memrt.runtime.errors import MemrtError

VARIABLE = "MEMRT_PASSPHRASE"


def new_passphrase() -> bytes:
    """For a new key; typed twice."""
    return _ask(confirm=True)


def passphrase() -> bytes:
    """For a key that exists."""
    return _ask(confirm=False)


def _ask(*, confirm: bool) -> bytes:
    if given := os.environ.get(VARIABLE):
        return given.encode()
    if not sys.stdin.isatty():
        raise MemrtError("the key's passphrase", expected="a terminal to type it", found="none", fix=f"set {VARIABLE}")
    typed: str = typer.prompt("passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    return typed.encode()
