"""A policy server as openpi's: its order of messages, and the packing of the real openpi-client. Prints its port."""

import http

import numpy as np
import websockets.sync.server
from openpi_client import msgpack_numpy


def talk(socket):
    packer = msgpack_numpy.Packer()
    socket.send(packer.pack({"robot": "a peer"}))
    for message in socket:
        request = msgpack_numpy.unpackb(message)
        state = np.concatenate([request["observation/joint_position"], request["observation/gripper_position"]])
        actions = np.tile(state, (16, 1)).astype(np.float32)
        shape = list(request["observation/wrist_image_left"].shape)
        reply = {"actions": actions, "prompt": request["prompt"], "shape": shape, "server_timing": {"infer_ms": 0.1}}
        socket.send(packer.pack(reply))


def health(connection, request):
    return connection.respond(http.HTTPStatus.OK, "OK\n") if request.path == "/healthz" else None


with websockets.sync.server.serve(talk, "127.0.0.1", 0, compression=None, process_request=health) as server:
    print(server.socket.getsockname()[1], flush=True)
    server.serve_forever()
