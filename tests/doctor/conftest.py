"""Snapshots of other computers: `machines/*.json`.

Written by hand after what such computers print (published outputs, the kernel's and NVIDIA's documentation); none was
saved on one. `memrt doctor --save FILE` writes the real thing: put it here, without what names a person.
"""

from pathlib import Path

import pytest

from memrt.runtime.doctor.snapshot import load

MACHINES = Path(__file__).parent / "machines"
NAMES = sorted(path.stem for path in MACHINES.glob("*.json"))


@pytest.fixture(scope="session")
def machines():
    return {name: load(MACHINES / f"{name}.json") for name in NAMES}
