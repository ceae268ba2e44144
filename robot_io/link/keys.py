"""The link's keys (CURVE: both ends prove who they are, all of it is encrypted), one folder for every computer.

`memrt link-keys FOLDER` makes `FOLDER/node` (the node's secret, its clients' public keys) and `FOLDER/client` (the
client's secret, the node's public key). A file holds one key, 40 characters of Z85.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from memrt.robot_io.link.endpoints import needs_keys
from memrt.runtime.errors import MemrtError

KEY_LENGTH = 40  # 32 bytes as Z85
DOMAIN = "memrt"  # of ZAP: with it libzmq asks about every client (zmq_setsockopt(3), ZMQ_ZAP_DOMAIN)
NODE, CLIENT = "node", "client"


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """A node's own key, and the clients it talks to."""

    secret: bytes = field(repr=False)
    clients: frozenset[bytes]

    def protect(self, socket: zmq.Socket[bytes]) -> None:
        """Let only clients in that know this node's public key; `KeyCheck` looks at theirs."""
        socket.curve_server = True
        socket.curve_secretkey = self.secret
        socket.zap_domain = DOMAIN.encode()


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """A client's own key, and the one node it talks to."""

    secret: bytes = field(repr=False)
    node: bytes

    def protect(self, socket: zmq.Socket[bytes]) -> None:
        """Talk to nobody but that node."""
        socket.curve_serverkey = self.node
        socket.curve_publickey = zmq.curve_public(self.secret)
        socket.curve_secretkey = self.secret


def node_keys(endpoint: str, folder: str | Path | None) -> NodeKeys | None:
    """The keys that a node at `endpoint` uses; None where it needs none and is given none.

    Raises MemrtError when other computers can reach the endpoint and there is no folder, or the folder is incomplete.
    """
    if folder is None:
        return _none(endpoint, "the robot's node", "`--keys FOLDER`")
    own = _own(folder, NODE)
    secret = _secret(own / "node.secret")
    clients = frozenset(_key(path) for path in own.glob("*.public"))
    if not clients:
        raise MemrtError(
            f"the keys in {own}",
            expected="the public key of at least one client, as NAME.public",
            found="none",
            fix="make one with `memrt link-keys`, or copy it here",
        )
    return NodeKeys(secret, clients)


def client_keys(endpoint: str, folder: str | Path | None) -> ClientKeys | None:
    """The keys that a client of the node at `endpoint` uses. Raises as `node_keys` does."""
    if folder is None:
        return _none(endpoint, "the link to the robot", "`keys: FOLDER` under `link` in the robot's YAML")
    own = _own(folder, CLIENT)
    return ClientKeys(_secret(own / "client.secret"), _key(own / "node.public"))


def make_keys(folder: Path, client: str) -> tuple[Path, Path]:
    """A pair of keys for the node, unless it has one, and a pair for a new client. Returns the two folders.

    Raises MemrtError when the client has keys already, or the folder cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", client):
        raise MemrtError(
            "the client's name",
            expected="letters, digits, `_`, `.` and `-`: it names a folder",
            found=repr(client),
            fix="give another --client",
        )
    node, own = folder / NODE, folder / client
    if client == NODE or own.exists():
        raise MemrtError(
            f"keys for client `{client}`",
            expected=f"no folder {own} yet",
            found="one",
            fix="give another --client NAME, or delete the folder to make new keys",
        )
    try:
        node.mkdir(parents=True, exist_ok=True)
        secret = node / "node.secret"
        if not secret.exists():
            _write_secret(secret, zmq.curve_keypair()[1])
        node_public = zmq.curve_public(_secret(secret))
        public, private = zmq.curve_keypair()
        own.mkdir()
        _write_secret(own / "client.secret", private)
        (own / "node.public").write_bytes(node_public + b"\n")
        (node / f"{client}.public").write_bytes(public + b"\n")
    except OSError as error:
        raise MemrtError(
            f"the keys in {folder}", expected="a folder that can be written", found=error, fix="choose another folder"
        ) from error
    return node, own


def _own(folder: str | Path, role: str) -> Path:
    """The folder itself, or the one of this role in what `memrt link-keys` made: so one YAML can serve both sides."""
    path = Path(folder).expanduser()
    inside = path / role
    return inside if (inside / f"{role}.secret").exists() and not (path / f"{role}.secret").exists() else path


def _none(endpoint: str, who: str, how: str) -> None:
    if needs_keys(endpoint):
        raise MemrtError(
            f"{who} at {endpoint}, which other computers can reach",
            expected="keys, so that nobody else commands the robot",
            found="none",
            fix=f"make some with `memrt link-keys FOLDER` and give {how}; or stay on 127.0.0.1",
        )


def _secret(path: Path) -> bytes:
    key = _key(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise MemrtError(
            f"the secret key {path}",
            expected="a file that only its owner can read",
            found=f"mode {mode:04o}",
            fix=f"chmod 600 {path}",
        )
    return key


def _key(path: Path) -> bytes:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise MemrtError(
            f"the link's key {path}",
            expected="a file that `memrt link-keys` made; a node's folder holds node.secret, a client's client.secret",
            found=error.strerror,
            fix="give the folder that was made for this side of the link",
        ) from error
    try:
        zmq.curve_public(key)
    except (ValueError, zmq.ZMQError) as error:
        raise MemrtError(
            f"the link's key {path}",
            expected=f"{KEY_LENGTH} characters of Z85",
            found=f"{len(key)} bytes that are none",
            fix="make new keys with `memrt link-keys`",
        ) from error
    return key


def _write_secret(path: Path, key: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key + b"\n")
