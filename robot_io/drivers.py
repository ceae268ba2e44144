"""Finds the driver of a robot's YAML by name: ours, and those that other packages bring.

A package registers its own as an entry point of the group `memrt.drivers`, whose value is a function like `OpenDriver`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, cast

from memrt.robot_io.driver import Driver
from memrt.runtime.errors import MemrtError
from memrt.runtime.strict_config import nearest

if TYPE_CHECKING:
    from memrt.robot_io.config import RobotConfig

GROUP = "memrt.drivers"
# As pyproject.toml registers them; known here too, so that an installation older than its sources finds them.
OURS = {"franka": "memrt.robot_io.franka.driver:open_driver", "sim": "memrt.sim.driver:open_driver"}
EXTRAS = {"franka": "franka", "sim": "sim"}  # what brings the packages that ours need


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverOptions:
    """What a driver is told besides the robot's YAML.

    `host` is the robot's own address, `speed` a factor (above 0, at most 1) on all limits of speed, `rings` the
    shared-memory ring of each camera that the node has opened; a driver whose robot brings its own pictures adds to
    them. `task` and `seed` are for simulated robots.
    """

    host: str | None = None
    speed: float = 1.0
    rings: Mapping[str, str] = field(default_factory=dict)
    task: str = ""
    seed: int = 0


OpenDriver = Callable[["RobotConfig", DriverOptions], AbstractContextManager[Driver]]


def driver_names() -> list[str]:
    """Every driver that is installed, sorted."""
    return sorted({point.name for point in _points()})


def check_driver(name: str, source: str) -> None:
    """Raises MemrtError, listing the known drivers, unless exactly one of this name is installed."""
    _find(name, source)


def find_driver(name: str, source: str) -> OpenDriver:
    """The factory of a driver. Raises MemrtError for an unknown name, and when a package that it needs is missing."""
    try:
        return cast(OpenDriver, _find(name, source).load())
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(name)
        raise MemrtError(
            f"driver `{name}` of {source}",
            expected=f"the package {error.name}",
            found="an installation without it",
            fix=f"pip install 'memrt[{extra}]'" if extra else f"install what driver `{name}` needs",
        ) from error
    except (ImportError, AttributeError) as error:
        raise MemrtError(
            f"driver `{name}` of {source}",
            expected="its module to load",
            found=error,
            fix="install the driver's package again",
        ) from error


def _find(name: str, source: str) -> EntryPoint:
    points = {point.value: point for point in _points() if point.name == name}
    if len(points) == 1:
        return next(iter(points.values()))
    if points:
        raise MemrtError(
            f"driver `{name}` of {source}",
            expected="one driver of this name",
            found=f"{len(points)}: {', '.join(sorted(points))}",
            fix="uninstall the others, or rename yours",
        )
    known = driver_names()
    close = nearest(name, known)
    raise MemrtError(
        f"unknown driver `{name}` in {source}",
        expected=f"one of {', '.join(known)}, or `node` for a node that runs already",
        found=f"`{name}`",
        fix=f"did you mean `{close}`?" if close else f"install the package that registers it under `{GROUP}`",
    )


def _points() -> list[EntryPoint]:
    ours = [EntryPoint(name, value, GROUP) for name, value in OURS.items()]
    return [*ours, *entry_points(group=GROUP)]
