"""Damages messages, for the tests that fuzz decoders."""

import os

PROMISES = [0xDD, 0xDF, 0xC6, 0xDB, 0xC9, 0x91, 0x81]  # msgpack headers that promise more than is there


def how_many(default: int) -> int:
    """How many messages a test damages: as many as MEMRT_FUZZ says, else `default`."""
    return int(os.environ.get("MEMRT_FUZZ", default))


def damage(rng, data: bytes, other: bytes) -> bytes:
    """A few of: flipped bytes, a cut, a repeated stretch, a stretch of another message, a header that promises more."""
    damaged = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, length = int(rng.integers(0, len(damaged) + 1)), int(rng.integers(1, 16))
        match int(rng.integers(0, 6)):
            case 0:
                damaged[at : at + 1] = rng.bytes(1)
            case 1:
                del damaged[at:]
            case 2:
                damaged[at:at] = damaged[at : at + length]
            case 3:
                start = int(rng.integers(0, len(other)))
                damaged[at:at] = other[start : start + length]
            case 4:
                damaged[at : at + 1] = bytes([int(rng.choice(PROMISES))])
            case _:
                del damaged[at : at + length]
    return bytes(damaged)
