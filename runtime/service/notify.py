"""What systemd is told (sd_notify(3)): datagrams of `KEY=value` lines to the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping

US_PER_S = 1_000_000
_MAX_STATUS = 500  # characters; what `systemctl status` shows is one line


class Notifier:
    """Every method may be called from any thread. Without a socket, as in a terminal or a container, nothing is sent.

    What cannot be sent is lost: a service must not fail because its manager restarts.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """`address`: a path, or a name in the abstract namespace after `@`. `watchdog_s`: how often to be heard of."""
        self.watchdog_s = watchdog_s
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """As systemd says. Its variables are removed, so that no child process speaks in this one's name."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        process = environment.pop("WATCHDOG_PID", "")
        meant = process in ("", str(os.getpid()))
        return cls(address, int(microseconds) / US_PER_S if microseconds.isdigit() and meant else None)

    def ready(self) -> None:
        """The service has begun; what is ordered after it may start."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """The service ends because it was told to."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._tell(f"STATUS={' '.join(text.split())[:_MAX_STATUS]}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._tell("WATCHDOG=1")

    def stuck(self) -> None:
        """Do not wait for the watchdog: what it guards against has happened (systemd 243)."""
        self._tell("WATCHDOG=trigger")

    def needs(self, seconds: float) -> None:
        """While it starts: the start may take so much longer, counted from now."""
        self._tell(f"EXTEND_TIMEOUT_USEC={round(seconds * US_PER_S)}")

    def _tell(self, line: str) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.sendto(line.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._address)
