"""The process of a real `memrt run`: what it has imported, how soon it was ready, what it holds."""

import json
import subprocess
import sys

RUN = """
import atexit, sys
from memrt.runtime.cli import main
found = lambda: print("imported:", sorted({"torch", "transformers"} & set(sys.modules)), file=sys.stderr)
atexit.register(found)
main()
"""


def test_a_run_imports_neither_torch_nor_transformers():
    """The reference bundle's own engines, two calls of each policy."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, "run", "--robot", "sim", "--lockstep", "--duration", "0.9", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "imported: []" in done.stderr
    values = json.loads(done.stdout)
    assert values["training_libraries"] == []
    assert values["latency_ms"]["high level: decode"]["count"] == 2
    assert 0 < values["engines_ready_s"] < values["process_ready_s"]
    assert 50e6 < values["memory"]["resident_bytes"] <= values["memory"]["peak_bytes"]
