"""Runs with the real openpi-client: sends the recorded observations, writes the chunks. ADDRESS EPISODE.npz OUT.npz"""

import sys

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

address, recorded, out = sys.argv[1:]
episode = np.load(recorded)
client = WebsocketClientPolicy(address)
robomme = client.get_server_metadata()["protocol"] == "robomme"
if robomme:
    assert client.infer({"reset": True})["reset_finished"] is True
names = ("observation/image", "observation/wrist_image")
if not robomme:
    names = ("observation/exterior_image_1_left", "observation/wrist_image_left")
replies = []
for step in range(0, len(episode["state"]), client.get_server_metadata()["execute"]):
    state = episode["state"][step]
    request = {names[0]: episode["front"][step], names[1]: episode["wrist"][step], "prompt": str(episode["goal"])}
    if robomme:
        request["observation/state"] = state
    else:
        request["observation/joint_position"] = state[:7]
        request["observation/gripper_position"] = state[7:]
    replies.append(client.infer(request))
    assert replies[-1]["server_timing"]["infer_ms"] > 0
try:
    client.infer({"prompt": "no pictures"})
except RuntimeError as error:
    print(error)
np.savez(out, actions=[reply["actions"] for reply in replies], subgoals=[reply["subgoal"] for reply in replies])
