"""Commands of the workstation need packages that a robot's installation leaves out; say which extra brings them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from memrt.runtime.errors import MemrtError


@contextmanager
def needs_extra(*extras: str) -> Iterator[None]:
    """Turn the failed import of a third-party package inside the block into a MemrtError that names `extras`."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "memrt":
            raise
        wanted = ",".join(extras)
        raise MemrtError(
            f"a package is missing: {error.name}",
            expected=f"memrt installed with the extras {wanted}",
            found="an installation without them",
            fix=f"pip install 'memrt[{wanted}]'",
        ) from error
