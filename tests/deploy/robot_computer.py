"""A robot's computer on loopback: a private sshd, folders to install into, and a service that says it is well."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from memrt.runtime.bundle import write_bundle
from memrt.runtime.config import load_policy
from memrt.runtime.deploy.host.flash import Outcome, flash
from memrt.runtime.deploy.host.ssh import Robot
from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.deploy.target.switch import Switch
from memrt.runtime.signing import load_private_key, load_trusted, sign_bundle, verify_bundle
from memrt.runtime.signing.key_files import public_path

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
WARM = Path(__file__).with_name("warm_memrt.py")
PAYLOAD = 3_000_000  # bytes of a test bundle: more than all buffers on the way hold


class Sshd:
    """Listens on a free port of loopback, for one key. MEMRT_* variables of the client reach the commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {folder}/host",
            f"AuthorizedKeysFile {folder}/user.pub",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "AcceptEnv MEMRT_*",
        ]
        (folder / "sshd_config").write_text("\n".join(lines))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # Debian's unit makes it
        self._log = (folder / "sshd.log").open("wb")
        self._process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=self._log)
        self.warm = folder / "warm"
        self._warm = subprocess.Popen([sys.executable, str(WARM), "serve", str(self.warm)])
        self._await()

    def client(self, **environment: str) -> str:
        """The ssh command for it."""
        options = [f"Port={self.port}", f"IdentityFile={self.folder}/user", "IdentitiesOnly=yes", "IdentityAgent=none"]
        options += [f"UserKnownHostsFile={self.folder}/known", "StrictHostKeyChecking=accept-new", "LogLevel=ERROR"]
        words = [f"{name}={value}" for name, value in {**environment, "MEMRT_WARM": str(self.warm)}.items()]
        return " ".join(["ssh", "-F", "none", *(f"-o{option}" for option in options), f"-oSetEnv='{' '.join(words)}'"])

    def close(self) -> None:
        for process in (self._process, self._warm):
            process.terminate()
            process.wait()
        self._log.close()

    def _await(self) -> None:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0 and self.warm.exists():
                    return
            assert self._process.poll() is None, (self.folder / "sshd.log").read_text()
            assert self._warm.poll() is None
            time.sleep(0.1)
        raise AssertionError("sshd did not come up")


class ServiceDouble:
    """Speaks the service's control protocol; its "restart" is a command that notes what is current (`running`)."""

    def __init__(self, layout: Layout) -> None:
        self.running = layout.root / "running"
        self.path = layout.settings / "control"
        self.phase, self.reason = "disarmed", ""
        self.answered = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def bundle(self) -> Path:
        return (self.running.parent / os.readlink(self.running)).resolve()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                client.recv(1 << 16)
                health = {"healthy": self.phase == "disarmed", "checks": []}
                status = {"phase": self.phase, "reason": self.reason, "bundle": "", "health": health}
                if self.running.is_symlink():
                    status["bundle"] = str(self.bundle)
                client.send(json.dumps({"status": status, "refused": None}).encode())
                self.answered.set()


class Silent:
    """A watcher that keeps what it is told. `on_sent` is called with the bytes sent so far."""

    def __init__(self, on_sent=lambda sent: None, on_step=lambda name: None) -> None:
        self.steps, self.lines, self._on_sent, self._on_step = [], [], on_sent, on_step

    def step(self, name):
        self.steps.append(name)
        self._on_step(name)

    def line(self, text):
        self.lines.append(text)

    def sending(self, sent, total):
        self._on_sent(sent)


@dataclass
class RobotComputer:
    """`flash` a bundle from `source`; what is there afterwards is on this very disk."""

    sshd: Sshd
    folder: Path
    key: Path  # the private one, which this computer trusts
    layout: Layout = field(init=False)
    service: ServiceDouble = field(init=False)

    def __post_init__(self) -> None:
        self.layout = Layout(self.folder / "root", self.folder / "opt", self.folder / "etc")
        for part in (self.layout.root, self.layout.runtimes / "dev" / "bin", self.layout.settings / "keys"):
            part.mkdir(parents=True)
        command = self.layout.runtimes / "dev" / "bin" / "memrt"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {WARM} call "$MEMRT_WARM" "$@"\n')
        command.chmod(0o755)
        self.layout.runtime.symlink_to("dev")
        self.memrt = [str(self.layout.runtime / "bin" / "memrt")]
        shutil.copy(public_path(self.key), self.layout.settings / "keys")
        self.service = ServiceDouble(self.layout)
        restart = ["cp", "-PT", "--remove-destination", str(self.layout.current), str(self.service.running)]
        settings = {"restart": restart, "control": str(self.service.path), "health_s": 60, "patience_s": 0}
        (self.layout.settings / "deploy.yaml").write_text(json.dumps(settings))

    @property
    def environment(self) -> dict[str, str]:
        keys = str(self.layout.settings / "keys")
        return {
            "MEMRT_ROOT": str(self.layout.root),
            "MEMRT_RUNTIMES": str(self.layout.runtimes),
            "MEMRT_SETTINGS": str(self.layout.settings),
            "MEMRT_KEYS": keys,
        }

    @property
    def switch(self) -> Switch:
        return Switch(self.layout)

    def robot(self, **environment: str) -> Robot:
        return Robot("127.0.0.1", self.sshd.client(**{**self.environment, **environment}))

    def make(self, version: int, payload: int = PAYLOAD, *, key: Path | None = None, signed: bool = True) -> Path:
        """A signed bundle of one incompressible file and a small one. Its engines are none: nothing is to be proven."""
        staging, bundle = self.folder / "staging", self.folder / f"bundle-{version}"
        (staging / "ll").mkdir(parents=True)
        (staging / "ll" / "weights.bin").write_bytes(os.urandom(payload))
        (staging / "readme.txt").write_text(f"release {version}")
        (staging / "empty").touch()
        shutil.rmtree(bundle, ignore_errors=True)
        write_bundle(staging, bundle, policy=load_policy("am_grounded"), precision="int8", engines={})
        if signed:
            sign_bundle(bundle, load_private_key(key or self.key), version=version)
        return bundle

    def flash(
        self, bundle: Path, watcher: Silent | None = None, *, allow_unsigned=False, **environment: str
    ) -> Outcome:
        verified = verify_bundle(bundle, (), allow_unsigned=True).bundle
        robot = self.robot(**environment)
        return flash(robot, self.memrt, verified, watcher or Silent(), allow_unsigned=allow_unsigned)

    def cut(self) -> None:
        """Cut the connections that this process has to the sshd."""
        marker = f"-oPort={self.sshd.port}"
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().decode().split("\0")
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            except (OSError, UnicodeDecodeError):
                continue
            if command[0] == "ssh" and marker in command and int(parent) == os.getpid():
                os.kill(int(process.name), signal.SIGKILL)

    def unchanged(self, folder: str) -> None:
        """Asserts that `folder` runs, and that nothing is left undecided."""
        self.settled()
        assert self.switch.current() == folder
        assert self.service.bundle == self.layout.bundle(folder).resolve()
        assert self.switch.ledger().trial is None
        verify_bundle(self.layout.current, load_trusted(self.layout.settings / "keys"))

    def settled(self) -> None:
        """Wait until nobody holds the lock any more."""
        from memrt.runtime.deploy.target.lock import held

        for _ in range(300):
            if held(self.layout.lock) is None:
                return
            time.sleep(0.05)
        raise AssertionError(held(self.layout.lock))

    def close(self) -> None:
        self.service.close()
