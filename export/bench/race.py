"""Contestants take turns on the same inputs, so that whatever disturbs the machine hits all of them alike.

Those that do not fit into memory together run one after another, each in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.bench.hardware import peak_bytes
from memrt.runtime.errors import MemrtError
from memrt.runtime.statistics import median

Array = NDArray[Any]
Progress = Callable[[str], None]
Settings = Mapping[str, Any]

# Idle threads of OpenMP and ONNX Runtime spin for some milliseconds after a run; the next contestant waits for them.
REST_SECONDS = 0.05
DIGITS = 4  # of a millisecond


class Contestant(Protocol):
    """One implementation, loaded and ready."""

    def run(self) -> dict[str, float]:
        """One run: milliseconds by part, the same parts every time."""
        ...

    def outputs(self) -> dict[str, Array]:
        """What the last run computed."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Of one contestant: milliseconds of every run by part, its outputs, and its process's peak memory in bytes."""

    times: dict[str, list[float]]
    outputs: dict[str, Array]
    peak: int

    def median(self, part: str) -> float:
        """The median of a part in milliseconds."""
        return round(median(self.times[part]), DIGITS)


@dataclass(frozen=True, slots=True)
class Race:
    """`module` has a function `contestant(name, settings)` that opens one; settings are plain JSON values."""

    module: str
    settings: Settings
    runs: int
    warm_up: int = 1

    def together(self, names: Sequence[str], progress: Progress) -> dict[str, Measured]:
        """Race `names` in this process, in turns: a round is one run of each; warm-up rounds are not counted."""
        opener = import_module(self.module).contestant
        with ExitStack() as stack:
            running: dict[str, Contestant] = {}
            for name in names:
                progress(f"loading {name}")
                running[name] = opener(name, self.settings)
                stack.callback(running[name].close)
            times: dict[str, dict[str, list[float]]] = {name: {} for name in names}
            for number in range(-self.warm_up, self.runs):
                for name, contestant in running.items():
                    time.sleep(REST_SECONDS)
                    taken = contestant.run()
                    if number >= 0:
                        for part, value in taken.items():
                            times[name].setdefault(part, []).append(round(value, DIGITS))
                    label = f"round {number + 1} of {self.runs}" if number >= 0 else "warm-up"
                    progress(f"{label}, {name}: " + ", ".join(f"{key} {value:.1f} ms" for key, value in taken.items()))
            return {name: Measured(times[name], running[name].outputs(), peak_bytes()) for name in names}

    def apart(self, names: Sequence[str], progress: Progress) -> dict[str, Measured]:
        """The same in a process of its own, which gives all its memory back."""
        with tempfile.TemporaryDirectory() as folder:
            request = {
                "module": self.module,
                "settings": dict(self.settings),
                "runs": self.runs,
                "warm_up": self.warm_up,
                "names": list(names),
                "folder": folder,
            }
            child = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert child.stdin is not None
            assert child.stdout is not None
            with child:
                child.stdin.write(json.dumps(request))
                child.stdin.close()
                answer = _listen(child.stdout, progress)
            if answer is None:
                raise MemrtError(
                    f"measuring {', '.join(names)}",
                    expected="a measurement",
                    found=f"a process that ended with status {child.returncode}",
                    fix="see its last lines above; status -9 usually is too little memory",
                )
            return {name: _read(Path(folder), name, found) for name, found in answer.items()}


def relative_l2(reference: Array, found: Array) -> float:
    """|found − reference| / |reference| over all elements."""
    exact = reference.astype(np.float64)
    return float(np.linalg.norm(found.astype(np.float64) - exact) / max(float(np.linalg.norm(exact)), 1e-12))


def _listen(stream: Any, progress: Progress) -> dict[str, Any] | None:
    """Events of a child, one JSON object a line, until its answer. Raises the MemrtError that it met."""
    for line in stream:
        event = json.loads(line)
        if "progress" in event:
            progress(event["progress"])
        elif "error" in event:
            raise MemrtError(**event["error"])
        else:
            answer: dict[str, Any] = event["answer"]
            return answer
    return None


def _read(folder: Path, name: str, found: Mapping[str, Any]) -> Measured:
    with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
        return Measured(found["times"], dict(arrays), found["peak"])


def main() -> None:
    """The child: a request on stdin, events on stdout."""
    events = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no event

    def tell(event: dict[str, Any]) -> None:
        print(json.dumps(event), file=events, flush=True)

    request = json.load(sys.stdin)
    race = Race(request["module"], request["settings"], request["runs"], request["warm_up"])
    try:
        found = race.together(request["names"], lambda line: tell({"progress": line}))
    except MemrtError as error:
        tell({"error": error.parts})
        return
    for name, measured in found.items():
        arrays: dict[str, Any] = dict(measured.outputs)
        np.savez(Path(request["folder"]) / f"{name}.npz", **arrays)
    tell({"answer": {name: {"times": one.times, "peak": one.peak} for name, one in found.items()}})


if __name__ == "__main__":
    main()
