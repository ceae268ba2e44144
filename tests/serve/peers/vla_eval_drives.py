"""Runs with the real vla-eval: its runner plays the recorded episode as a benchmark. ADDRESS EPISODE.npz OUT.npz"""

import sys

import anyio
import numpy as np
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.connection import Connection
from vla_eval.runners.live_runner import LiveEpisodeRunner
from vla_eval.runners.sync_runner import SyncEpisodeRunner

address, recorded, out = sys.argv[1:]
episode = np.load(recorded)
actions = []


class Recorded(StepBenchmark):
    """A benchmark whose world goes on as it was recorded, whatever it is told to do."""

    def get_tasks(self):
        return [{"name": "recorded"}]

    def reset(self, task):
        self.at = 0
        return self.at

    def step(self, action):
        actions.append(action["actions"])
        self.at += 1
        over = self.at == len(episode["state"])
        return StepResult(obs=min(self.at, len(episode["state"]) - 1), reward=0.0, done=over, info={})

    def make_obs(self, raw_obs, task):
        images = {"agentview": episode["front"][raw_obs], "wrist": episode["wrist"][raw_obs]}
        return {"images": images, "states": episode["state"][raw_obs], "task_description": str(episode["goal"])}

    def get_hold_action(self, last_action):
        return last_action or {"actions": np.zeros(8)}

    def check_done(self, step_result):
        return step_result.done

    def get_step_result(self, step_result):
        return {"success": True}

    def get_metadata(self):
        return {"max_steps": 1000}


async def main():
    benchmark = Recorded()
    async with Connection(address) as connection:
        assert connection.server_info["observation_params"] == {"send_wrist_image": True, "send_state": True}
        for _ in range(2):  # the second episode must not remember the first
            result = await SyncEpisodeRunner().run_episode(benchmark, {"name": "recorded"}, connection, max_steps=1000)
            assert result["metrics"]["success"]
        np.savez(out, actions=actions)
        try:
            await connection.act({"images": {}})
        except RuntimeError as error:
            print(error)
    async with Connection(address) as connection:  # the world goes on at 25 Hz, answered or not
        runner = LiveEpisodeRunner(hz=25.0, wait_first_action=True)
        result = await runner.run_episode(benchmark, {"name": "recorded"}, connection, max_steps=1000)
        assert result["steps"] == len(episode["state"])
        assert result["rt_metrics"]["update_count"] >= 1
        assert np.isfinite(actions[-1]).all()


anyio.run(main)
