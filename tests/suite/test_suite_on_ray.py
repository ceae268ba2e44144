"""Ray's actors play what processes of this computer would; skipped where Ray is not installed."""

from collections import deque

import pytest
from suite_pieces import NOWHERE, InProcess, expert_cell

pytest.importorskip("ray")

from memrt.sim.suite.candidates import Candidate, find_candidate
from memrt.sim.suite.ray_workers import RayWorkers
from memrt.sim.suite.work import Crash, Done, Job


def test_a_local_cluster_plays_the_same_and_tells_what_it_cannot():
    expert = find_candidate("expert", "int8", "lockstep", NOWHERE)
    gone = Candidate("am_grounded", "int8", NOWHERE / "am_grounded-int8", "0" * 64)
    jobs = [Job(expert_cell(), expert, seed, 3) for seed in (5, 6)] + [Job(expert_cell(), gone, 7, 3)]
    answers = {job.seed: answer for job, answer in RayWorkers(None, 1).run(deque(jobs))}
    for job, expected in InProcess().run(deque(jobs[:2])):
        found = answers[job.seed]
        assert isinstance(found, Done)
        assert found.episode.actions_sha256 == expected.episode.actions_sha256
    assert isinstance(answers[7], Crash)
    assert "nothing there" in answers[7].why
