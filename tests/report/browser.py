"""A headless Chromium, driven over the DevTools protocol (chromedevtools.github.io/devtools-protocol)."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 120.0  # a machine may stand still for a while


def find_browser() -> str | None:
    """The program, None where none is installed."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Browser:
    """One browser process with one page at a time. A context manager."""

    def __init__(self, program: str, folder: Path) -> None:
        """`folder` takes its profile, which is new."""
        self._stack = ExitStack()
        self._process = subprocess.Popen(
            [
                program,
                "--headless",
                "--no-sandbox",  # tests may run as root
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--autoplay-policy=no-user-gesture-required",
                "--window-size=1280,900",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        try:
            self._socket = self._connected(folder / "DevToolsActivePort")
            target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
            self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.send(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise

    def _connected(self, port_file: Path) -> ClientConnection:
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            lines = port_file.read_text().splitlines() if port_file.is_file() else []
            if len(lines) == 2:  # the file is there before both lines are
                address = f"ws://127.0.0.1:{lines[0]}{lines[1]}"
                # A machine that stands still answers no pings, and needs no proxy to reach itself.
                opened = connect(address, max_size=None, open_timeout=PATIENCE_S, ping_interval=None, proxy=None)
                return self._stack.enter_context(opened)
            assert self._process.poll() is None, "the browser has ended"
            time.sleep(0.05)
        raise AssertionError("the browser does not answer")

    def _call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            found = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if found.get("id") == number:
                assert "error" not in found, f"{method}: {found['error']}"
                return found["result"]
            if "method" in found:
                self.events.append(found)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command to the page."""
        return self._call(method, parameters, self._session)

    def open(self, page: Path, fragment: str = "") -> None:
        """Open a file as from a disk, and wait until it has drawn itself; `events` are then this page's."""
        self.send("Page.navigate", url="about:blank")  # so that another fragment loads the page again, too
        self.wait("location.href === 'about:blank'")
        self.events.clear()
        self.send("Page.navigate", url=page.as_uri() + fragment)
        self.wait("location.protocol === 'file:' && document.readyState === 'complete'")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression is true."""
        end_s = time.monotonic() + PATIENCE_S
        while not self.run(condition):
            assert time.monotonic() < end_s, f"never: {condition}"
            time.sleep(0.02)

    def press(self, key: str, *, shift: bool = False) -> None:
        """One key, as from a keyboard."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, modifiers=8 if shift else 0)

    def click(self, x: float, y: float) -> None:
        """The left mouse button, at a place of the window [CSS pixels]."""
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def complaints(self) -> list[dict[str, Any]]:
        """Errors and warnings of the page since it was opened."""
        return [
            event
            for event in self.events
            if event["method"] == "Runtime.exceptionThrown"
            or (event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] in ("error", "warning"))
            or (event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] in ("error", "warning"))
        ]

    def requested(self) -> list[str]:
        """Everything that was asked for since the page was opened."""
        sent = (event for event in self.events if event["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(timeout=PATIENCE_S)
        self._stack.close()
