"""The one exception a user meets: what was expected, what was found, how to fix it."""

from __future__ import annotations


class MemrtError(Exception):
    """A refusal with a way out. `str(error)` is one line; the CLI prints it and exits with status 2."""

    def __init__(self, what: str, *, expected: object, found: object, fix: str) -> None:
        self.what = what
        self.expected = expected
        self.found = found
        self.fix = fix
        line = f"{what}: expected {expected}, found {found}. Fix: {fix}"
        super().__init__(" ".join(line.split()))

    @property
    def parts(self) -> dict[str, str]:
        """Its four parts as text: `MemrtError(**error.parts)` is the same refusal, after any journey."""
        return {"what": self.what, "expected": str(self.expected), "found": str(self.found), "fix": self.fix}

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild it by keyword, so that a refusal in a worker process reaches the user as the refusal it is."""
        return _rebuild, (self.parts,)


def _rebuild(parts: dict[str, str]) -> MemrtError:
    return MemrtError(**parts)
