"""Starts the strict double, waits until it serves, and reads its log for what it aborted and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from memrt.runtime.errors import MemrtError

ENVIRONMENT = Path(sys.prefix) / "strict"  # where `make strict` puts it
SERVER = Path(__file__).parent / "strict_server.py"
ARM = "fr3.xml"  # franky-sim's MJCF of the arm: franka-sim brings none and would download one
ABORTING = " -- aborting the motion"  # how franka-sim ends the line that says why
SERVES = "Server running"  # how it says that the arm is there
READY_S = 60.0
LOOK_S = 0.1
END_S = 20.0


@dataclass(frozen=True, slots=True)
class Abort:
    """When the strict double stopped a motion, and why (libfranka's name of the error, the signal and its limit)."""

    t_ns: int
    reason: str


def strict_missing() -> str:
    """Why there is no strict double here, or ""."""
    if not (ENVIRONMENT / "bin" / "franka-sim-check").is_file():
        return f"no franka-sim in {ENVIRONMENT}: run `make strict` (Python < 3.13)"
    if find_spec("franky_sim") is None:
        return "no franky-sim, which brings the arm's model: pip install 'memrt[dev]'"
    return ""


class StrictDoubleProcess:
    """One strict double, ready for clients. Its arm begins in franka-sim's own start posture, at no table."""

    def __init__(self, host: str) -> None:
        """Raises MemrtError when it is not installed, or does not serve within a minute."""
        if missing := strict_missing():
            raise MemrtError("strict double", expected="franka-sim", found="none", fix=missing)
        self.host = host
        self._folder = tempfile.TemporaryDirectory(prefix="memrt-strict-")
        self._log = Path(self._folder.name) / "log"
        model = Path(self._folder.name) / ARM
        model.write_text(_model())
        python = ENVIRONMENT / "bin" / "python"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), str(SERVER), "--host", host],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "FR3_MJCF": str(model)},
                start_new_session=True,
            )
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    @property
    def aborts(self) -> list[Abort]:
        """Every motion it has aborted by now, in the order of time."""
        lines = self._lines()
        return [
            Abort(line["t_ns"], line["text"].removesuffix(ABORTING))
            for line in lines
            if line["text"].endswith(ABORTING)
        ]

    @property
    def warnings(self) -> list[str]:
        """What else it had to say, e.g. that it cannot hold real time here."""
        said = (line for line in self._lines() if line["level"] not in {"INFO", "DEBUG"})
        return [line["text"] for line in said if not line["text"].endswith(ABORTING)]

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()

    def _lines(self) -> list[dict]:
        """The log; what is no JSON is what Python itself said."""
        lines = []
        for line in self._log.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                lines.append({"t_ns": 0, "level": "", "text": line})
        return lines

    def _wait_ready(self) -> None:
        """Its port is open before its arm is there: it is the log that says when."""
        deadline = time.monotonic() + READY_S
        while not any(line["text"].startswith(SERVES) for line in self._lines()):
            if self._process.poll() is not None:
                words = self._lines()
                raise MemrtError(
                    "strict double",
                    expected=f"a server on {self.host}, ports 1337 and 1338",
                    found=f"exit status {self._process.returncode}: {words[-1]['text'] if words else 'nothing said'}",
                    fix="choose another loopback address, or end the program that holds the ports",
                )
            if time.monotonic() > deadline:
                raise MemrtError(
                    "strict double",
                    expected=f"a server within {READY_S:g} s",
                    found="none",
                    fix="see whether it is starved",
                )
            time.sleep(LOOK_S)

    def __enter__(self) -> StrictDoubleProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _model() -> str:
    """franky-sim's arm, with its meshes named by their full path."""
    spec = find_spec("franky_sim")
    assert spec is not None, "strict_missing has looked"
    assets = Path(next(iter(spec.submodule_search_locations or ()))) / "assets"
    return (assets / ARM).read_text().replace('meshdir="assets"', f'meshdir="{assets / "meshes"}"')
