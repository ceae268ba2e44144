"""Tiny LeRobot datasets in the layouts of versions 2.1 and 3.0, whose pictures say which frame they are.

Two episodes of 1.2 and 1.8 s at 10 frames per second; camera `top` is a video, `hand` may be one or lie in the table.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

FPS, SIDE = 10, 32
LENGTHS = (12, 18)
TOP, HAND = "observation.images.top", "observation.images.hand"
TASKS = ["put the cup on the shelf", "put the cup back"]
SUBTASKS = ["grasp the cup <10, 20>", "lift the cup"]
LIFT_AT = 6  # frame of an episode
GREY = 6  # levels between two pictures: more than H.264 changes


def level(episode: int, frame: int) -> int:
    """The grey of a picture."""
    return 20 + GREY * (frame + sum(LENGTHS[:episode]))


def state(episode: int, frame: int) -> np.ndarray:
    return np.array([0.1 * joint + 0.01 * frame + episode for joint in range(7)] + [0.25], np.float32)


def target(episode: int, frame: int) -> np.ndarray:
    """The state that the next frame will have, but for the gripper."""
    return np.append(state(episode, frame + 1)[:7], np.float32(0.75))


def write_v21(root: Path) -> Path:
    """One file per episode, metadata as lines of JSON; the hand's pictures lie in the table as PNG."""
    info = _info("v2.1", "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet")
    info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    info["features"] = _features(hand="image")
    _write_json(root, info)
    episodes = [{"episode_index": e, "tasks": [TASKS[e]], "length": n} for e, n in enumerate(LENGTHS)]
    _lines(root / "meta/episodes.jsonl", episodes)
    _lines(root / "meta/tasks.jsonl", [{"task_index": i, "task": text} for i, text in enumerate(TASKS)])
    for episode, length in enumerate(LENGTHS):
        table = _rows(episode)
        table[HAND] = [{"bytes": _png(255 - level(episode, frame)), "path": None} for frame in range(length)]
        _table(root / f"data/chunk-000/episode_{episode:06d}.parquet", table)
        _film(root / f"videos/chunk-000/{TOP}/episode_{episode:06d}.mp4", _levels([episode]))
    return root


def write_v30(root: Path, codec: str = "libx264") -> Path:
    """All episodes in one table and one video per camera, metadata as tables, with subtasks."""
    info = _info("v3.0", "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet")
    info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    info["features"] = _features(hand="video") | {"subtask_index": {"dtype": "int64", "shape": [1], "names": None}}
    _write_json(root, info)
    rows: dict[str, list[Any]] = {}
    for episode, length in enumerate(LENGTHS):
        told = _rows(episode) | {"subtask_index": [int(frame >= LIFT_AT) for frame in range(length)]}
        for name, column in told.items():
            rows.setdefault(name, []).extend(column)
    _table(root / "data/chunk-000/file-000.parquet", rows)
    starts = np.cumsum([0, *LENGTHS])
    episodes: dict[str, list[Any]] = {
        "episode_index": [0, 1],
        "tasks": [[text] for text in TASKS],
        "length": list(LENGTHS),
        "data/chunk_index": [0, 0],
        "data/file_index": [0, 0],
        "dataset_from_index": starts[:-1].tolist(),
        "dataset_to_index": starts[1:].tolist(),
        "stats/action/mean": [[0.0], [0.0]],
    }
    for camera in (TOP, HAND):
        episodes[f"videos/{camera}/chunk_index"] = episodes[f"videos/{camera}/file_index"] = [0, 0]
        episodes[f"videos/{camera}/from_timestamp"] = (starts[:-1] / FPS).tolist()
        episodes[f"videos/{camera}/to_timestamp"] = (starts[1:] / FPS).tolist()
    _table(root / "meta/episodes/chunk-000/file-000.parquet", episodes)
    _table(root / "meta/tasks.parquet", {"task_index": [0, 1], "task": TASKS})
    _table(root / "meta/subtasks.parquet", {"subtask_index": [0, 1], "__index_level_0__": SUBTASKS})
    _film(root / f"videos/{TOP}/chunk-000/file-000.mp4", _levels([0, 1]), codec)
    _film(root / f"videos/{HAND}/chunk-000/file-000.mp4", (255 - each for each in _levels([0, 1])), codec)
    return root


def _info(version: str, data_path: str) -> dict[str, Any]:
    return {"codebase_version": version, "fps": FPS, "chunks_size": 1000, "data_path": data_path, "total_episodes": 2}


def _features(hand: str) -> dict[str, Any]:
    vector = {"dtype": "float32", "shape": [8], "names": None}
    pictures = {"shape": [SIDE, SIDE, 3], "names": ["height", "width", "channels"]}
    return {
        "observation.state": vector,
        "action": vector,
        TOP: {"dtype": "video", **pictures},
        HAND: {"dtype": hand, **pictures},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    }


def _rows(episode: int) -> dict[str, list[Any]]:
    frames = range(LENGTHS[episode])
    return {
        "observation.state": [state(episode, frame).tolist() for frame in frames],
        "action": [target(episode, frame).tolist() for frame in frames],
        "timestamp": [frame / FPS for frame in frames],
        "frame_index": list(frames),
        "episode_index": [episode for _ in frames],
        "task_index": [episode for _ in frames],
    }


def _levels(episodes: Iterable[int]) -> list[int]:
    return [level(episode, frame) for episode in episodes for frame in range(LENGTHS[episode])]


def _png(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (grey,) * 3).save(file, "PNG")
    return file.getvalue()


def _film(path: Path, levels: Iterable[int], codec: str = "libx264") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = imageio_ffmpeg.write_frames(
        str(path), (SIDE, SIDE), fps=FPS, codec=codec, quality=9, macro_block_size=2, output_params=["-g", "5"]
    )
    next(writer)
    for grey in levels:
        writer.send(np.full((SIDE, SIDE, 3), grey, np.uint8))
    writer.close()


def _table(path: Path, columns: dict[str, list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)


def _write_json(root: Path, info: dict[str, Any]) -> None:
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
