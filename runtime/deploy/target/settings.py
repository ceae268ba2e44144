"""How this computer restarts its service and hears of its health: `/etc/memrt/deploy.yaml`, which may be missing."""

from __future__ import annotations

from pathlib import Path

import msgspec

from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.strict_config import NotNegative, Positive, convert, read_yaml


class DeploySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`restart`: the command that restarts the service, e.g. `[docker, restart, memrt]` where it is a container.

    `control`: the service's socket. `start_s`, `health_s`: how long starting, and then being found healthy, may take;
    opening the engines of a large policy takes minutes on a small computer. `patience_s`: how long cameras and latency
    may fall short at first, since the service looks again every few seconds.
    """

    restart: tuple[str, ...] = ("systemctl", "restart", "memrt.service")
    control: str = "/run/memrt/control"
    start_s: Positive = 300.0
    health_s: Positive = 120.0
    patience_s: NotNegative = 12.0


def read_deploy_settings(layout: Layout) -> DeploySettings:
    """The file's settings, or the defaults. Raises MemrtError for an unknown key or a wrong value."""
    path: Path = layout.settings / "deploy.yaml"
    return convert(read_yaml(path), DeploySettings, str(path)) if path.is_file() else DeploySettings()
