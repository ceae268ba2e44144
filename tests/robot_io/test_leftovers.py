from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from memrt.robot_io.parent import forget_rings_of_the_dead


def test_only_rings_of_processes_that_have_ended_go(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f"memrt-{ended.pid}-front", f"memrt-{os.getpid()}-front", "memrt-lab-front", f"other-{ended.pid}-x"):
        (tmp_path / name).touch()
    forget_rings_of_the_dead(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"memrt-{os.getpid()}-front", "memrt-lab-front", f"other-{ended.pid}-x"]
    )
