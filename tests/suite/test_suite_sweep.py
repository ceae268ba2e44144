"""Playing cells: real episodes cut short, interruptions, changed bundles, workers that die."""

import json
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import pytest
from suite_pieces import NOWHERE, Dying, InProcess, Losing, Silent, expert_cell, make_episode

from memrt.runtime.bundle import EngineRecord, write_bundle
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.sim.suite.candidates import find_candidate
from memrt.sim.suite.cells import Cell
from memrt.sim.suite.local_workers import LocalWorkers
from memrt.sim.suite.realtime_runs import RealtimeRuns
from memrt.sim.suite.results import cell_file, read_cell
from memrt.sim.suite.sweep import plan_cells, play
from memrt.sim.suite.verify import chosen, verify
from memrt.sim.suite.work import Crash, Done, Job

STEPS = 3  # control steps of an episode here
CELLS = [expert_cell("PickXtimes"), expert_cell("StopCube")]
SEEDS = (5, 6)


class Interrupting(Silent):
    """Ctrl-C after so many episodes."""

    def __init__(self, after: int) -> None:
        self.after = after

    def episode(self, plan, episode):
        self.after -= 1
        if self.after == 0:
            raise KeyboardInterrupt


class Heard(Silent):
    """Notes what was lost."""

    def __init__(self) -> None:
        self.crashes: list[tuple[int, str, bool]] = []

    def crash(self, plan, seed, why, again):
        self.crashes.append((seed, why, again))


def planned(results, cells=CELLS, seeds=SEEDS, **options):
    return plan_cells(cells, seeds, results=results, bundles=NOWHERE, cap_steps=STEPS, **options)


def played(plans, executor, results, watcher=None):
    play(plans, executor, results=results, watcher=watcher or Silent(), cap_steps=STEPS)
    return {(plan.cell, seed): episode for plan in plans for seed, episode in plan.episodes.items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    results = tmp_path_factory.mktemp("uninterrupted")
    return results, played(planned(results), InProcess(), results)


def make_bundle(folder: Path, policy: str, weights: bytes) -> Path:
    staging = folder.with_name("staging")
    staging.mkdir(parents=True)
    (staging / "step.onnx").write_bytes(weights)
    engine = EngineRecord(file="step.onnx", precision="int8", inputs=(), outputs=())
    engines = dict.fromkeys(("hl/decoder", "ll/step"), engine)
    write_bundle(staging, folder, policy=load_policy(policy), precision="int8", engines=engines)
    return folder


def outcomes(episodes):
    return {which: (episode.outcome, episode.actions_sha256) for which, episode in episodes.items()}


def test_every_cell_is_played_and_stored(uninterrupted):
    results, episodes = uninterrupted
    assert len(episodes) == 4
    assert all(episode.status == "time_over" and episode.steps == STEPS for episode in episodes.values())
    assert len({episode.actions_sha256 for episode in episodes.values()}) == 4
    again = planned(results)
    assert [plan.missing for plan in again] == [[], []]
    assert again[0].by[0]["mujoco"]


def test_an_interrupted_sweep_goes_on_where_it_was(uninterrupted, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        played(planned(tmp_path), InProcess(), tmp_path, Interrupting(after=3))
    executor = InProcess()
    episodes = played(planned(tmp_path), executor, tmp_path)
    assert len(executor.played) == 1
    assert outcomes(episodes) == outcomes(uninterrupted[1])


def test_more_seeds_add_to_what_is_stored(uninterrupted):
    results, _ = uninterrupted
    plan = planned(results, cells=CELLS[:1], seeds=(6, 7, 8))[0]
    assert (sorted(plan.episodes), plan.missing) == ([6], [7, 8])


def test_a_killed_process_loses_only_what_it_was_playing(uninterrupted, tmp_path):
    """SIGKILL, so that nothing can be tidied up."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_suite_sweep import CELLS, SEEDS, InProcess, Path, planned, played\n"
        "results = Path(sys.argv[1])\n"
        "played(planned(results, seeds=(*SEEDS, *range(1000))), InProcess(), results)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.DEVNULL)
    path = cell_file(tmp_path, CELLS[0])
    while process.poll() is None and not (path.exists() and read_cell(path) and len(read_cell(path).episodes) >= 2):
        time.sleep(0.01)
    process.kill()
    process.wait()
    plan = planned(tmp_path, cells=CELLS[:1])[0]
    assert plan.missing == []
    assert (
        outcomes({(plan.cell, seed): plan.episodes[seed] for seed in SEEDS}).items()
        <= outcomes(uninterrupted[1]).items()
    )


def test_episodes_of_another_bundle_are_neither_mixed_nor_thrown_away(tmp_path):
    bundles, results = tmp_path / "bundles", tmp_path / "results"
    cell = Cell("PickXtimes", "am_grounded", "int8", "lockstep")
    make_bundle(bundles / "am_grounded-int8", "am_grounded", b"old")
    first = plan_cells([cell], [1], results=results, bundles=bundles)
    play(first, InProcess(Losing(0)), results=results, watcher=Silent())
    assert plan_cells([cell], [1], results=results, bundles=bundles)[0].missing == []
    make_bundle(bundles / "am_grounded-int8", "am_grounded", b"new")
    with pytest.raises(MemrtError, match=r"bundle_sha256 was .* is .* --replace"):
        plan_cells([cell], [1], results=results, bundles=bundles)
    anew = plan_cells([cell], [1], results=results, bundles=bundles, replace=True)
    assert anew[0].missing == [1]
    play(anew, InProcess(Losing(0)), results=results, watcher=Silent())
    assert plan_cells([cell], [1], results=results, bundles=bundles)[0].missing == []


def test_what_nothing_can_play_stops_nothing_else(tmp_path):
    cells = [expert_cell(), Cell("PickXtimes", "am_simple", "int8", "lockstep")]
    plans = planned(tmp_path, cells=cells, seeds=(5,))
    assert "no bundle" in plans[1].candidate
    assert len(played(plans, InProcess(), tmp_path)) == 1
    assert "lock-step" in find_candidate("oracle_simple", "int8", "realtime", NOWHERE)


def test_an_oracle_borrows_the_low_level_of_another_bundle(tmp_path):
    make_bundle(tmp_path / "am_grounded-int8", "am_grounded", b"weights")
    candidate = find_candidate("oracle_grounded", "int8", "lockstep", tmp_path)
    assert candidate.folder.name == "am_grounded-int8"
    settings = candidate.settings(Cell("StopCube", "oracle_grounded", "int8", "lockstep"), 1300)
    assert settings.borrowed["high_level"] == "oracle"
    assert isinstance(find_candidate("oracle_grounded", "fp32", "lockstep", tmp_path), str)
    assert isinstance(find_candidate("memoryless", "int8", "lockstep", tmp_path), str)


def test_a_bundle_without_a_vlm_lends_its_low_level_first(tmp_path):
    """What is played with it stays valid when a VLM is trained again."""
    make_bundle(tmp_path / "am_grounded-int8", "am_grounded", b"weights")
    make_bundle(tmp_path / "oracle_simple-int8", "oracle_simple", b"weights")
    assert find_candidate("flat", "int8", "lockstep", tmp_path).folder.name == "oracle_simple-int8"


def test_a_bundle_that_changes_under_way_is_refused(tmp_path):
    make_bundle(tmp_path / "am_grounded-int8", "am_grounded", b"old")
    candidate = find_candidate("am_grounded", "int8", "lockstep", tmp_path)
    make_bundle(tmp_path / "am_grounded-int8", "am_grounded", b"new")
    with pytest.raises(MemrtError, match="the one that the evaluation began with"):
        candidate.open()


@pytest.mark.parametrize(("times", "crashes"), [(1, 0), (2, 1)])
def test_a_lost_episode_is_tried_once_more(tmp_path, times, crashes):
    plans = planned(tmp_path, cells=CELLS[:1], seeds=(5,))
    executor = InProcess(Losing(times))
    assert len(played(plans, executor, tmp_path)) == 1 - crashes
    assert executor.played == [5, 5]
    assert len(plans[0].crashes) == crashes
    assert plans[0].missing == [5] * crashes


def test_a_worker_that_dies_takes_its_episode_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("SUITE_TEST_FLAG", str(tmp_path / "died"))
    plans = planned(tmp_path, cells=CELLS[:1], seeds=(0, 1, 3, 4))
    heard = Heard()
    episodes = played(plans, LocalWorkers(1, Dying), tmp_path, heard)
    assert sorted(seed for _, seed in episodes) == [0, 1, 4]
    assert plans[0].crashes == {3: "RuntimeError: not with me"}
    assert heard.crashes[0] == (1, "its process died (SIGKILL)", True)


def test_stored_episodes_are_played_again_and_compared(uninterrupted):
    results, _ = uninterrupted
    plans = planned(results)
    picked = chosen(plans, cells=1, episodes=None, seed=0)
    assert picked == chosen(plans, cells=1, episodes=None, seed=0)
    assert {chosen(plans, 1, None, seed)[0][0].cell for seed in range(20)} == set(CELLS)
    told = []
    verdict = verify(picked, InProcess(), on_episode=lambda *all_of_it: told.append(all_of_it[2]), cap_steps=STEPS)
    assert (verdict["episodes"], verdict["same_outcome"], verdict["identical_actions"]) == (2, 2, 2)
    assert told == [True, True]


def test_an_episode_that_ends_otherwise_is_told(uninterrupted):
    plans = planned(uninterrupted[0], cells=CELLS[:1])
    plans[0].episodes[5] = make_episode(5, reason="placed twice")
    verdict = verify([(plans[0], [5])], InProcess(), on_episode=lambda *_: None, cap_steps=STEPS)
    assert verdict["same_outcome"] == 0
    assert verdict["differing"][0]["stored"][1] == "placed twice"


RUN = {
    "success": False,
    "outcome": "held",
    "reason": "3 chunks rejected",
    "steps": 40,
    "duration_s": 2.5,
    "latency_ms": {"high level": {"p50": 110.0}, "low level": {"p50": 20.0}},
    "starved_ms": 15.0,
    "actions_sha256": "ab",
}


def run_instead(script: str) -> RealtimeRuns:
    return RealtimeRuns([sys.executable, "-c", script])


def real_time_job() -> Job:
    cell = Cell("PickXtimes", "expert", "int8", "realtime")
    return Job(cell, find_candidate("expert", "int8", "realtime", NOWHERE), 5, 1300)


def test_a_run_in_real_time_is_told_by_its_own_report():
    script = f"import sys; print('note', file=sys.stderr); assert '--policy' in sys.argv; print({json.dumps(RUN)!r})"
    job = real_time_job()
    [(_, done)] = run_instead(script).run(deque([job]))
    assert isinstance(done, Done)
    assert (done.episode.status, done.episode.starved_ms, done.episode.progress) == ("held", 15.0, None)
    assert done.episode.difficulty in ("easy", "medium", "hard")


def test_a_run_without_a_report_is_lost():
    job = real_time_job()
    executor = run_instead("import sys; sys.exit('no robot here')")
    [(_, crash)] = executor.run(deque([job]))
    assert crash == Crash("memrt run gave no report, exit status 1: no robot here")
