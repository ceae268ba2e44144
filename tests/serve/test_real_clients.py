"""The real openpi-client and vla-eval drive `memrt serve`, and get bit for bit what lock-step gives for what they show.

Each runs in a process of its own, in the virtual environment that `make test` creates (tests/serve/peers).
"""

import json
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from memrt.robot_io.serve.keys import load_keys
from memrt.runtime.actions_config import ActionsConfig
from memrt.runtime.bundle import load_bundle
from memrt.runtime.cli.default_bundle import find_bundle
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.policy.low_level import LowLevelPolicy
from memrt.sim.env import TabletopEnv

HERE = Path(__file__).parent
PEERS = Path(sys.prefix) / "peers" / "bin" / "python"
PROTOCOLS = ("openpi", "robomme", "vla-eval")
SEED, STEPS = 1_000_003, 40  # three high-level calls, five chunks

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(
        not PEERS.is_file() or sys.version_info >= (3, 13),
        reason=f"no openpi-client and vla-eval in {PEERS.parent.parent}: run `make peers` (Python < 3.13)",
    ),
]


class Recording:
    """Passes calls on and keeps what was answered."""

    def __init__(self, policy):
        self.policy, self.chunks = policy, []

    def __getattr__(self, name):
        return getattr(self.policy, name)

    def act(self, *arguments, **more):
        reply = self.policy.act(*arguments, **more)
        self.chunks.append(reply.chunk.actions)
        return reply


@pytest.fixture(scope="module")
def lockstep(tmp_path_factory):
    """An episode in lock-step: what was seen at each control step, the chunks, the subgoals."""
    bundle = load_bundle(find_bundle(None, "am_grounded", "int8"))
    settings = replace(LoopSettings.from_policy(bundle.policy, seed=SEED), cap_steps=STEPS)
    high_level, low_level = HighLevelPolicy(bundle), Recording(LowLevelPolicy(bundle))
    seen, subgoals = [], []
    with TabletopEnv("PickXtimes", SEED) as env:

        class Watched:
            def __getattr__(self, name):
                return getattr(env, name)

            def advance(self, steps):
                seen.append(env.observe())
                env.advance(steps)

        run_lockstep(
            Watched(),
            high_level,
            low_level,
            env.goal,
            settings,
            on_step=lambda view: subgoals.append(view.subgoal.text),
        )
        goal = env.goal
    high_level.close()
    low_level.close()
    file = tmp_path_factory.mktemp("recorded") / "episode.npz"
    np.savez(
        file,
        goal=goal,
        state=[observation.proprioception for observation in seen],
        front=[observation.frames["front"].image for observation in seen],
        wrist=[observation.frames["wrist"].image for observation in seen],
    )
    return file, np.array(low_level.chunks), subgoals[:: bundle.policy.low_level.execute]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """`memrt serve` for each protocol, started together."""
    folder = tmp_path_factory.mktemp("keys")
    with ExitStack() as stack:
        started = {}
        for protocol in PROTOCOLS:
            # The simulator's gripper units are ours: DROID's would cost the last bit.
            keys = load_keys(protocol)
            gripper = msgspec.structs.replace(keys.gripper, closed=0.0, open=1.0)
            keys = msgspec.structs.replace(keys, gripper=gripper, actions=ActionsConfig())
            file = folder / f"{protocol}.yaml"
            file.write_text(json.dumps(msgspec.to_builtins(keys)))
            command = [sys.executable, "-c", "from memrt.runtime.cli import main; main()", "serve", "--port", "0"]
            command += ["--protocol", protocol, "--seed", str(SEED), "--keys", str(file)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stack.callback(process.kill)
            started[protocol] = process
        addresses = {}
        for protocol, process in started.items():
            line = process.stdout.readline()
            found = re.search(r"ws://127\.0\.0\.1:\d+", line)
            assert found, f"{line} {process.stderr.read()}"
            addresses[protocol] = found[0]
        yield addresses
        for protocol, process in started.items():
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
            assert process.returncode == 0, told
            assert "served:" in told, protocol
            assert "Traceback" not in told


def drive(script, address, episode, tmp_path):
    out = tmp_path / "out.npz"
    command = [str(PEERS), str(HERE / "peers" / script), address, str(episode), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return np.load(out), done.stdout


@pytest.mark.parametrize("protocol", ["openpi", "robomme"])
def test_openpi_client_gets_the_chunks_and_subgoals_of_lockstep(protocol, lockstep, servers, tmp_path):
    episode, chunks, subgoals = lockstep
    got, printed = drive("openpi_client_drives.py", servers[protocol], episode, tmp_path)
    assert np.array_equal(got["actions"], chunks)
    assert list(got["subgoals"]) == subgoals
    assert "Error in inference server" in printed
    assert "expected `observation/" in printed


def test_vla_eval_gets_the_actions_of_lockstep_in_each_episode(lockstep, servers, tmp_path):
    episode, chunks, _ = lockstep
    got, printed = drive("vla_eval_drives.py", servers["vla-eval"], episode, tmp_path)
    played = chunks[:, : STEPS // len(chunks)].reshape(-1, 8)
    assert np.array_equal(got["actions"], np.concatenate([played, played]))
    assert "Server error: {'error': 'request: expected `task_description`" in printed
