"""The starting noise of flow matching, reproducible from two integers on any computer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_UINT64 = 2**64


def chunk_noise(seed: int, call_index: int, horizon: int, action_dim: int) -> NDArray[np.float32]:
    """Standard normal noise float32 [horizon, action_dim] of one call.

    A counter-based generator (Philox) is keyed by both numbers, so call 1000 needs no calls before it and two runs with
    neighbouring seeds share nothing.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed % _UINT64, call_index % _UINT64]))
    return generator.standard_normal((horizon, action_dim), dtype=np.float32)
