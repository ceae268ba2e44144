"""One message of every kind, each sent in session 7."""

import numpy as np

from memrt.robot_io.link.streams import Chunk, State
from memrt.robot_io.link.wire import (
    VERSION,
    Ack,
    Command,
    Configure,
    FromNode,
    Heartbeat,
    Hello,
    Pulse,
    Report,
    ToNode,
    Welcome,
)
from memrt.runtime.types import ActionSpace, RobotMode

CONTROL = {
    "hello": (Hello(7, 1, VERSION, "a computer"), ToNode),
    "welcome": (
        Welcome(7, 1, VERSION, "a computer", "arm", "hold still", {"front": "ring-front"}, [0, 2], 0.5),
        FromNode,
    ),
    "command": (Command(7, 2, "stop", 3), ToNode),
    "configure": (Configure(7, 5, 0.25), ToNode),
    "ack": (Ack(7, 2, "", "stopped", 41), FromNode),
    "heartbeat": (Heartbeat(7, 3, 123_456_789), ToNode),
    "pulse": (Pulse(7, 3, 123_456_789, 987_654_321), FromNode),
    "report": (Report(7, 43, "", "joint 3 reflex", {"control ticks": 9.0}, {"last refusal": "too late"}), Report),
}
CHUNK = Chunk(
    session=7,
    sequence=4,
    sent_ns=999_000_000,
    deadline_ns=1_050_000_000,
    t0_ns=1_000_000_000,
    dt_ns=50_000_000,
    revision=5,
    space=ActionSpace.JOINT_POSITION,
    actions=np.arange(16, dtype=np.float64).reshape(2, 8) / 8,
)
STATE = State(
    session=7,
    sequence=42,
    sent_ns=1_000_000_500,
    deadline_ns=1_500_000_500,
    t_ns=1_000_000_000,
    mode=RobotMode.RUNNING,
    outcome="success",
    proprioception=np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.5, 0.75, 1.0]),
    remaining_ns=800_000_000,
    revision=5,
    refused_in_a_row=1,
)
