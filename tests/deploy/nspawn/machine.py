"""A computer with a systemd and an sshd of its own, booted by systemd-nspawn from a Debian root. Needs root."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT_SCRIPT = Path(__file__).parents[1] / "root.sh"
# What a robot's computer has besides Debian itself: its service manager, ssh, Python, and the simulator's rendering.
PACKAGES = ["systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "python3-venv"]
PACKAGES += ["libegl1", "libegl-mesa0", "libgl1-mesa-dri", "libgles2", "libusb-1.0-0"]
LEFT_BEHIND = ("var/lib/memrt", "opt/memrt", "etc/memrt", "etc/systemd/system/memrt.service.d")
LEFT_BEHIND += ("etc/systemd/system/memrt-node.service.d",)
BOOT_S = 120.0
COMMAND_S = 120.0  # for the longest, installing the service
NSPAWN = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "--console=pipe")
NSPAWN += ("--resolv-conf=off", "--link-journal=no", "--settings=no")


class Machine:
    """`boot`, `pull_the_plug`, `ssh`: what one does to a robot's computer."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.port = root, port
        self.keys = root.with_name(f"{root.name}.keys")
        self._process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """The root, without anything that an earlier test left, and a key to log in with."""
        subprocess.run([ROOT_SCRIPT, self.root, *PACKAGES], check=True, stdout=2)
        for relative in LEFT_BEHIND:
            shutil.rmtree(self.root / relative, ignore_errors=True)
        for unit in (self.root / "etc/systemd/system").glob("**/memrt*"):
            unit.unlink()
        shutil.rmtree(self.keys, ignore_errors=True)
        self.keys.mkdir(mode=0o700)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.keys / "login"], check=True)
        settings = f"Port {self.port}\nListenAddress 127.0.0.1\nPermitRootLogin prohibit-password\n"
        (self.root / "etc/ssh/sshd_config.d/flash.conf").write_text(settings)
        (self.root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        shutil.copy(self.keys / "login.pub", self.root / "root/.ssh/authorized_keys")

    @property
    def client(self) -> str:
        """The ssh command for it."""
        options = {
            "Port": self.port,
            "IdentityFile": self.keys / "login",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.keys / "known",
            "StrictHostKeyChecking": "accept-new",
            "LogLevel": "ERROR",
        }
        return shlex.join(["ssh", "-F", "none", *(f"-o{name}={value}" for name, value in options.items())])

    def boot(self) -> float:
        """Start it; seconds until it answers over ssh."""
        with socket.socket() as ours:  # or another computer would answer in its place
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ours.bind(("127.0.0.1", self.port))
        began_s = time.monotonic()
        self._process = subprocess.Popen(
            [*NSPAWN, f"--directory={self.root}"],
            stdin=subprocess.DEVNULL,
            stdout=self.root.with_name(f"{self.root.name}.console").open("ab"),
            stderr=subprocess.STDOUT,
        )
        while time.monotonic() - began_s < BOOT_S:
            if self._process.poll() is not None:
                raise RuntimeError(f"it did not boot: see {self.root}.console")
            if self.run("true", check=False).returncode == 0:
                return time.monotonic() - began_s
            time.sleep(1)
        raise RuntimeError(f"no sshd within {BOOT_S:.0f} s: see {self.root}.console")

    def pull_the_plug(self) -> None:
        """Kill the first process in it, and so all. What was not synced is still there: the kernel lives on."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for first in children:  # systemd-nspawn itself could die without it
            os.kill(int(first), signal.SIGKILL)
        self._process.wait(30)
        self._process = None

    def off(self) -> None:
        """Shut it down."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.pull_the_plug()
            self._process = None

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A shell command there."""
        line = [*shlex.split(self.client), "root@127.0.0.1", command]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=COMMAND_S)
        if check and done.returncode:
            raise RuntimeError(f"`{command}` there: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def flash(self, *arguments: str, memrt: str, check: bool = True) -> dict[str, Any]:
        """`memrt flash` to it, and what it printed; with its refusal under `refused`, unless `check`."""
        line = [memrt, "flash", "root@127.0.0.1", *arguments, "--json"]
        environment = {**os.environ, "MEMRT_SSH": self.client}
        stderr = None if check else subprocess.PIPE
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=stderr, env=environment, check=False)
        if done.returncode and check:
            raise RuntimeError(f"{shlex.join(arguments)}: exit status {done.returncode}")
        found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        return found if check or not done.returncode else {**found, "refused": done.stderr.decode().splitlines()[-1]}

    def status(self, memrt: str) -> dict[str, Any]:
        """`memrt flash --status`."""
        return self.flash("--status", memrt=memrt)
