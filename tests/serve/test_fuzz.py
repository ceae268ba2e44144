"""A hundred thousand damaged messages against the decoders and conversations: values or a refusal, never anything else.

MEMRT_FUZZ=1000000 pytest tests/serve/test_fuzz.py runs a million.
"""

import numpy as np
import pytest
from damage import damage, how_many
from served import POLICY, SETTINGS, CountingHighLevel, EchoingLowLevel, robomme_request, vla_eval_observation
from test_vla_eval import encoded

from memrt.robot_io.serve.arrays import pack, unpack
from memrt.robot_io.serve.keys import load_keys
from memrt.robot_io.serve.serving import Serving
from memrt.runtime.errors import MemrtError

MESSAGES = how_many(100_000)
SMALL = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def requests():
    small = {"observation/image": SMALL, "observation/wrist_image": SMALL}
    yield "robomme", robomme_request(**small, grounded_subgoal="lift it"), False
    yield "robomme", {"add_buffer": True, "images": SMALL[None, None], "state": np.zeros((1, 8))}, False
    yield "robomme", {"reset": True}, False
    observation = vla_eval_observation() | {"images": {"agentview": encoded(SMALL), "wrist": SMALL}}
    for kind, payload in (("hello", {"protocol_version": 1}), ("observation", observation), ("episode_start", {})):
        yield "vla-eval", {"type": kind, "payload": payload, "seq": 3, "timestamp": 1.5}, True


@pytest.mark.timeout(3600)
def test_damaged_messages_are_answered_or_refused():
    rng = np.random.default_rng(0)
    servers = {
        name: Serving(POLICY, CountingHighLevel(), EchoingLowLevel(), SETTINGS, load_keys(name)).server()
        for name in ("robomme", "vla-eval")
    }
    conversations = {name: server.converse() for name, server in servers.items()}
    messages = [(name, pack(request, text_keys=text_keys)) for name, request, text_keys in requests()]
    answered = refused = 0
    for index in range(MESSAGES):
        name, data = messages[index % len(messages)]
        conversation = conversations[name]
        message = None
        try:
            message = conversation.read(damage(rng, data, messages[int(rng.integers(len(messages)))][1]))
            reply = conversation.answer(message)
            assert reply is None or isinstance(unpack(reply), dict)
            answered += 1
        except MemrtError as error:
            refused += bool(conversation.refusal(error, message))
        if index % 1000 == 0:
            conversations[name] = servers[name].converse()  # what the test doubles remember stays small
    assert answered + refused == MESSAGES
    assert min(answered, refused) > MESSAGES / 50  # the damage is neither total nor without effect
