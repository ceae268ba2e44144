"""`memrt run` with the high level here and the low level on a policy server, `memrt serve` in another process."""

import json
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.real_time

MEMRT = [sys.executable, "-c", "from memrt.runtime.cli import main; main()"]
SEED = "1000003"


@pytest.fixture(scope="module")
def server():
    command = [*MEMRT, "serve", "--protocol", "robomme", "--port", "0", "--seed", SEED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield re.search(r"ws://\S+", process.stdout.readline())[0]
        process.kill()


def run(tmp_path, url, *arguments, timeout_ms=2000):
    robot = tmp_path / "served.yaml"
    settings = f"{{url: '{url}', keys: robomme, timeout_ms: {timeout_ms}}}"
    robot.write_text(f"name: served\ndriver: sim\ncameras: [front, wrist]\npolicy_server: {settings}\n")
    command = [*MEMRT, "run", "--robot", str(robot), "--seed", SEED, "--json", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


def test_no_server_is_one_line_before_anything_moves(tmp_path):
    done = run(tmp_path, "ws://127.0.0.1:9", "--lockstep")
    assert done.returncode == 2
    assert "policy server ws://127.0.0.1:9: expected an openpi policy server" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", [["--lockstep"], []], ids=["lock-step", "real time"])
def test_the_loop_drives_with_a_servers_chunks(tmp_path, server, mode):
    done = run(tmp_path, server, "--duration", "2", *mode)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["outcome"] == "time_over"
    assert record["counts"]["chunks"] >= 2
    assert record["counts"].get("rejected chunks", 0) == 0
    assert record["latency_ms"]["low level"]["count"] >= 2
