"""Rotations as unit quaternions (w, x, y, z) and as axis-angle vectors [rad], for arrays of them."""

from __future__ import annotations

import numpy as np

from memrt.runtime.types import FloatArray

SMALL = 1e-12  # below this angle a rotation vector is its own sine


def from_axis_angle(vectors: FloatArray) -> FloatArray:
    """[..., 3] in rad → quaternions [..., 4]. The sign tells angles above π: `to_axis_angle` gives the same vector."""
    angles = np.linalg.norm(vectors, axis=-1, keepdims=True)
    axes = vectors / np.maximum(angles, SMALL)
    return np.concatenate([np.cos(angles / 2), axes * np.sin(angles / 2)], axis=-1)


def to_axis_angle(quaternions: FloatArray) -> FloatArray:
    """Unit quaternions [..., 4] → vectors [..., 3] of 0 to 2π rad: above π where the quaternion's w is negative."""
    sines = np.linalg.norm(quaternions[..., 1:], axis=-1, keepdims=True)
    angles = 2.0 * np.arctan2(sines, quaternions[..., :1])
    vectors: FloatArray = quaternions[..., 1:] * np.where(sines > SMALL, angles / np.maximum(sines, SMALL), 2.0)
    return vectors


def times(first: FloatArray, second: FloatArray) -> FloatArray:
    """The rotation `second`, then `first`: their product, [..., 4]."""
    aw, ax, ay, az = np.moveaxis(first, -1, 0)
    bw, bx, by, bz = np.moveaxis(second, -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def unit(quaternions: FloatArray) -> FloatArray:
    """Scaled to length 1; NaN where there is no length."""
    lengths = np.linalg.norm(quaternions, axis=-1, keepdims=True)
    return quaternions / np.where(lengths > SMALL, lengths, np.nan)
