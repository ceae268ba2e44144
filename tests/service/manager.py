"""What systemd is to a service: a datagram socket that is told things."""

from __future__ import annotations

import socket
import time
from pathlib import Path


class Manager:
    """Listens at a socket of its own; `said` returns what came, oldest first."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._heard: list[str] = []

    def said(self) -> list[str]:
        while True:
            try:
                self._heard.append(self._socket.recv(4096, socket.MSG_DONTWAIT).decode())
            except BlockingIOError:
                return self._heard

    def close(self) -> None:
        self._socket.close()


def eventually(condition, seconds: float = 30.0) -> bool:
    end_s = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True
