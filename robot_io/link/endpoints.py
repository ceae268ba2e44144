"""Where a node's three sockets are, and whether other computers can reach them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from memrt.runtime.errors import MemrtError


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The three sockets' addresses, made of one: `ipc:///path` gets suffixes, `tcp://host:port` the next two ports."""

    control: str
    chunks: str
    state: str

    @classmethod
    def of(cls, base: str) -> Endpoints:
        """Raises MemrtError for anything but `ipc:///absolute/path` and `tcp://host:port`."""
        if base.startswith("ipc:///"):
            return cls(f"{base}.control", f"{base}.chunks", f"{base}.state")
        host, _, port = base.removeprefix("tcp://").rpartition(":")
        if base.startswith("tcp://") and host and port.isdigit() and 0 < int(port) < 65_534:
            return cls(*(f"tcp://{host}:{int(port) + offset}" for offset in range(3)))
        raise MemrtError(
            "robot endpoint",
            expected="ipc:///absolute/path or tcp://host:port",
            found=repr(base),
            fix="correct the endpoint in the robot's YAML",
        )


def needs_keys(base: str) -> bool:
    """Whether an endpoint reaches beyond this computer. Every name but `localhost` does: names can change hands."""
    if base.startswith("ipc://"):
        return False
    host = base.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True  # a name, `*`, or a network interface
