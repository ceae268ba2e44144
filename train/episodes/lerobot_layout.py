"""Where a LeRobot dataset keeps what: versions 2.0, 2.1 (one file per episode) and 3.0 (many episodes per file).

Format: `meta/info.json` of the dataset itself, and LeRobot's documentation ("LeRobotDataset v3.0", "Dataset subtasks").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import parquet

from memrt.runtime.errors import MemrtError

VERSIONS = ("v2.0", "v2.1", "v3.0")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a camera's pictures of one episode lie: the file, and the time in it at which the episode begins."""

    path: Path
    from_s: float = 0.0


class Layout:
    """A dataset's description. `subtasks` are the texts of `subtask_index`, by number; none without the annotation."""

    def __init__(self, root: Path) -> None:
        """Raises MemrtError for a folder that is no LeRobot dataset, or one of another version."""
        self.root = root
        try:
            self.info: dict[str, Any] = json.loads((root / "meta" / "info.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _refused(root, f"no readable meta/info.json ({error})") from error
        version = self.info.get("codebase_version")
        if version not in VERSIONS:
            raise _refused(root, f"version {version}")
        self._one_file_each = not str(version).startswith("v3")
        self.fps = float(self.info["fps"])
        self.features: Mapping[str, Mapping[str, Any]] = self.info["features"]
        self.episodes = self._rows("episodes")
        self.tasks = {int(row["task_index"]): _name(row, "task") for row in self._rows("tasks")}
        self.subtasks: dict[int, str] = {}
        if "subtask_index" in self.features and (root / "meta" / "subtasks.parquet").is_file():
            rows = parquet.read_table(root / "meta" / "subtasks.parquet").to_pylist()
            self.subtasks = {int(row["subtask_index"]): _name(row, "subtask") for row in rows}

    def is_video(self, feature: str) -> bool:
        """Whether a camera's pictures are an MP4; otherwise they lie in the table, as PNG or JPEG."""
        return self.features[feature]["dtype"] == "video"

    def frames(self, episode: Mapping[str, Any], columns: list[str]) -> dict[str, list[Any]]:
        """The rows of one episode, in their order."""
        index = int(episode["episode_index"])
        if self._one_file_each:
            path = self.info["data_path"].format(episode_chunk=self._chunk(index), episode_index=index)
        else:
            path = self.info["data_path"].format(
                chunk_index=int(episode["data/chunk_index"]), file_index=int(episode["data/file_index"])
            )
        try:
            table = parquet.read_table(
                self.root / path, columns=[*columns, "frame_index"], filters=[("episode_index", "=", index)]
            )
        except (OSError, ValueError) as error:
            raise _refused(self.root, f"{path}: {error}") from error
        return {name: column for name, column in table.sort_by("frame_index").to_pydict().items() if name in columns}

    def video(self, episode: Mapping[str, Any], feature: str) -> Place:
        """Where a camera's video of one episode lies."""
        index, template = int(episode["episode_index"]), self.info["video_path"]
        if self._one_file_each:
            path = template.format(episode_chunk=self._chunk(index), video_key=feature, episode_index=index)
            return Place(self.root / path)
        key = f"videos/{feature}"
        path = template.format(
            video_key=feature,
            chunk_index=int(episode[f"{key}/chunk_index"]),
            file_index=int(episode[f"{key}/file_index"]),
        )
        return Place(self.root / path, float(episode[f"{key}/from_timestamp"]))

    def _chunk(self, episode: int) -> int:
        return episode // int(self.info["chunks_size"])

    def _rows(self, what: str) -> list[dict[str, Any]]:
        """`meta/<what>`: lines of JSON, or tables."""
        meta = self.root / "meta"
        try:
            if self._one_file_each:
                lines = (meta / f"{what}.jsonl").read_text(encoding="utf-8").splitlines()
                return [json.loads(line) for line in lines if line.strip()]
            files = sorted(meta.glob(f"{what}/chunk-*/file-*.parquet")) or [meta / f"{what}.parquet"]
            # Statistics are columns, too: hundreds that nobody needs.
            found: list[dict[str, Any]] = []
            for file in files:
                names = [name for name in parquet.read_schema(file).names if not name.startswith("stats/")]
                found += parquet.read_table(file, columns=names).to_pylist()
            return found
        except (OSError, ValueError) as error:
            raise _refused(self.root, f"meta/{what}: {error}") from error


def _name(row: Mapping[str, Any], column: str) -> str:
    """pandas writes a table's index under its name, or under one of its own."""
    return str(next(row[name] for name in (column, "__index_level_0__") if name in row))


def _refused(root: Path, found: object) -> MemrtError:
    return MemrtError(
        f"dataset {root}",
        expected=f"a LeRobot dataset of version {', '.join(VERSIONS)}",
        found=found,
        fix="name the folder that holds meta/, or convert the dataset with LeRobot",
    )
