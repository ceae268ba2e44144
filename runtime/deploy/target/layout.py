"""Where things lie on the robot's computer. Every folder can be moved by an environment variable, for containers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from memrt.runtime.deploy.identity import check_folder
from memrt.runtime.errors import MemrtError


@dataclass(frozen=True, slots=True)
class Layout:
    """`root` holds what is installed, `runtimes` one virtual environment per version of memrt."""

    root: Path = Path("/var/lib/memrt")
    runtimes: Path = Path("/opt/memrt")
    settings: Path = Path("/etc/memrt")

    @classmethod
    def here(cls, environment: Mapping[str, str] | None = None) -> Layout:
        """This computer's: MEMRT_ROOT, MEMRT_RUNTIMES and MEMRT_SETTINGS replace the defaults."""
        values = os.environ if environment is None else environment
        named = {"root": "MEMRT_ROOT", "runtimes": "MEMRT_RUNTIMES", "settings": "MEMRT_SETTINGS"}
        return cls(**{field: Path(values[name]) for field, name in named.items() if values.get(name)})

    @property
    def bundles(self) -> Path:
        """Whole, verified bundles, one folder each, which never change."""
        return self.root / "bundles"

    @property
    def staging(self) -> Path:
        """Transfers that are not complete, one folder per manifest's SHA-256."""
        return self.root / "staging"

    @property
    def ledger(self) -> Path:
        """What was installed when, and what became of it."""
        return self.root / "ledger.json"

    @property
    def lock(self) -> Path:
        """Held by whoever changes any of this."""
        return self.root / "flash.lock"

    @property
    def current(self) -> Path:
        """The link to the bundle that runs."""
        return self.root / "current"

    @property
    def previous(self) -> Path:
        """The link to the bundle that a rollback would run: for people; the ledger decides."""
        return self.root / "previous"

    @property
    def runtime(self) -> Path:
        """The link to the memrt that runs."""
        return self.runtimes / "current"

    def bundle(self, folder: str) -> Path:
        """The folder of an installed bundle. Raises MemrtError for a name that is none."""
        return self.bundles / check_folder(folder)

    def installed(self) -> list[str]:
        """Folders of all bundles that lie here, sorted; their caches of engines (`….engines`) are not among them."""
        if not self.bundles.is_dir():
            return []
        return sorted(path.name for path in self.bundles.iterdir() if (path / "manifest.json").is_file())

    def make(self) -> None:
        """Make the folders. Raises MemrtError when that is not allowed."""
        try:
            for folder in (self.bundles, self.staging):
                folder.mkdir(parents=True, exist_ok=True)
            allowed = os.access(self.root, os.W_OK | os.X_OK)
        except OSError:
            allowed = False
        if not allowed:
            raise MemrtError(
                f"{self.root} on the robot's computer",
                expected="a folder that can be written",
                found="no permission",
                fix="log in as root, or give --sudo to a user that may use sudo without a password",
            )
