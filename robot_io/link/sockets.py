"""Every socket of the link is opened here, so that none lacks its bounds."""

from __future__ import annotations

import zmq

from memrt.robot_io.link.keys import ClientKeys, NodeKeys
from memrt.robot_io.link.wire import MAX_TRANSPORT_BYTES

QUEUE = 100  # messages waiting on either side of a socket; of the largest size they are 13 MB


def open_socket(
    context: zmq.Context[zmq.Socket[bytes]],
    kind: int,
    address: str,
    *,
    keys: NodeKeys | ClientKeys | None = None,
    queue: int = QUEUE,
) -> zmq.Socket[bytes]:
    """A socket for `address`, to be bound or connected, with `keys` closed to strangers.

    It refuses oversized messages, keeps at most `queue` of them, and does not linger when closed.
    """
    socket = context.socket(kind)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_TRANSPORT_BYTES)
    socket.setsockopt(zmq.SNDHWM, queue)
    socket.setsockopt(zmq.RCVHWM, queue)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IPV6, "[" in address)
    if keys is not None:
        keys.protect(socket)
    return socket
