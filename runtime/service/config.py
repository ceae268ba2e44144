"""The service's settings, as `/etc/memrt/service.yaml` states them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.loop.settings import check_speed
from memrt.runtime.strict_config import Count, Natural, NotNegative, Positive, convert, read_yaml

SETTINGS = Layout().settings / "service.yaml"
CURRENT = str(Layout().current)


class ServiceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What runs, on which robot. What is not named here is the policy's or the robot's own.

    `robot`: a packaged robot or a robot YAML, `host` its own address. `bundle`: the bundle's folder, by default what
    was flashed last; `cache`: where its engines and proofs lie, by default beside it. `keys`: the folder of the public
    keys that this robot trusts, by default `/etc/memrt/keys`; a physical robot runs a bundle that none of them signed
    only with `allow_unsigned`. `goal`: what to do when arming says nothing else. `record`: a folder; every run is
    recorded there, as long as more than `record_free_gb` of its disk is free: a flash, a log want room too. With
    `record_keep_gb` the folder's oldest recordings are deleted before a run, until they are no more than that.
    `hang_s`: a part of the runtime that has not been heard of for longer is stuck. `health_calls`: low-level calls that
    the health check times at most. `task` and `seed` are the simulator's.
    """

    robot: str
    host: str | None = None
    bundle: Annotated[str, msgspec.Meta(min_length=1)] = CURRENT
    cache: str | None = None
    keys: str | None = None
    allow_unsigned: bool = False
    goal: str | None = None
    remote: str | None = None
    speed: float = 1.0
    threads: str | None = None
    record: str | None = None
    record_frames: Literal["all", "used"] = "used"
    record_free_gb: NotNegative = 2.0
    record_keep_gb: Positive | None = None
    hang_s: Positive = 10.0
    health_calls: Count = 100
    task: str = "PickXtimes"
    seed: Natural = 1_000_000


def read_settings(path: Path) -> ServiceConfig:
    """The settings of a file. Raises MemrtError for a missing file, an unknown key, a wrong value."""
    config: ServiceConfig = convert(read_yaml(path), ServiceConfig, str(path))
    check_speed(config.speed)
    return config
