"""Who may talk over a link with keys: a node lets only the clients in that it knows, and a client learns why not."""

from __future__ import annotations

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import recv_monitor_message

from memrt.robot_io.link.keys import DOMAIN, NodeKeys


class KeyCheck:
    """Judges every client that knocks at the sockets of one context, in a thread of pyzmq's. Start it before binding.

    `refused` counts handshakes of unknown clients; a refused ZMQ client does not try again by itself.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: NodeKeys) -> None:
        self._clients = keys.clients
        self.refused = 0
        self._thread = ThreadAuthenticator(context)
        self._thread.start()
        self._thread.configure_curve_callback(domain=DOMAIN, credentials_provider=self)

    def callback(self, domain: str, key: bytes) -> bool:
        """Asked by the authenticator: whether the client with this public key (Z85) may come in."""
        known = key in self._clients
        self.refused += not known
        return known

    def close(self) -> None:
        """End the thread."""
        self._thread.stop()


class HandshakeWatch:
    """Listens to what happens while one client socket connects: made before it connects, closed before it is."""

    def __init__(self, socket: zmq.Socket[bytes], has_keys: bool) -> None:
        self._socket = socket
        self._has_keys = has_keys
        events = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        events |= zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_SUCCEEDED
        self._monitor = socket.get_monitor_socket(events)
        self._failure, self._final = "", False

    def failure(self, final: bool = False) -> str:
        """Why the newest handshake failed, "" when none has; with `final`, only what no further attempt will change."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)
            self._failure, self._final = self._explain(event["event"], event["value"])
        return self._failure if self._final or not final else ""

    def close(self) -> None:
        """Stop listening."""
        self._socket.disable_monitor()
        self._monitor.close()

    def _explain(self, event: int, value: int) -> tuple[str, bool]:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return "", False
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return "a node that does not know this client's key", True
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return "a node without keys" if self._has_keys else "a node that demands keys", True
        if self._has_keys:  # a node that cannot read what was meant for another one hangs up without a word
            return "a node with another key than this client's `node.public`, or one without keys", False
        return "something else than a robot's node, or a node that is just ending", False
