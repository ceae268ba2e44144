"""Starts the permissive double as a child process and asks it how it goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from memrt.runtime.errors import MemrtError
from memrt.sim.doubles.answers import ask

READY_S = 90.0  # compiling the scene and drawing the first picture take 2 s on an idle computer
END_S = 30.0  # writing ten minutes of log takes 1 s


def own_loopback(number: int = 0) -> str:
    """A loopback address of this process alone: libfranka's ports are fixed, so every double needs its own."""
    own = (os.getpid() * 4 + number) % 64_000
    return f"127.{64 + own // 16_000}.{own // 250 % 64 + 1}.{own % 250 + 1}"


class FrankyDoubleProcess:
    """One permissive double, ready for clients. Closed, it leaves its log at `log`."""

    def __init__(self, host: str, *, task: str = "PickXtimes", seed: int = 0, log: Path | None = None) -> None:
        """Raises MemrtError when it ends before it is ready, with its last words."""
        self._folder = tempfile.TemporaryDirectory(prefix="memrt-double-")
        self._control = f"ipc://{Path(self._folder.name) / 'control'}"
        self._errors = Path(self._folder.name) / "errors"
        prefix = f"memrt-{os.getpid()}-{host.replace('.', '-')}"
        command = [sys.executable, "-m", "memrt.sim.doubles.franky_double", "--host", host, "--task", task]
        command += ["--seed", str(seed), "--rings", prefix, "--control", self._control, "--parent", str(os.getpid())]
        if log is not None:
            command += ["--log", str(log)]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        try:
            self.rings: dict[str, str] = self._wait_ready()["rings"]
        except BaseException:
            self.close()
            raise

    def ask(self, timeout_s: float = 10.0) -> dict[str, Any] | None:
        """How it stands now, see `FrankyDouble.result`; None when it does not answer in time."""
        return ask(self._control, timeout_s)

    def close(self) -> dict[str, Any]:
        """End it. What it said at its end, empty when it said nothing."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            said, _ = self._process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            said, _ = self._process.communicate()
        self._folder.cleanup()
        result: dict[str, Any] = json.loads(said) if said.strip() else {}
        return result

    def _wait_ready(self) -> dict[str, Any]:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                words = self._errors.read_text().strip().splitlines()
                raise MemrtError(
                    "test double",
                    expected="a process that serves the robot's protocol",
                    found=f"exit status {self._process.returncode}: {words[-1] if words else 'it said nothing'}",
                    fix="run python -m memrt.sim.doubles.franky_double by hand",
                )
            answer = self.ask(0.5)
            if answer is not None:
                return answer
        raise MemrtError(
            "test double", expected=f"an answer within {READY_S:g} s", found="none", fix="see whether it is starved"
        )

    def __enter__(self) -> FrankyDoubleProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
