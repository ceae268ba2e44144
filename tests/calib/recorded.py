"""A made-up dataset folder in the format of `memrt.sim`, for tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

GOAL = "pick up the red cube and place it on the target, repeating this action two times, then press the button to stop"
SUBGOALS = {
    "simple": [
        "pick up the red cube for the first time",
        "place the red cube onto the target",
        "pick up the red cube for the second time",
        "place the red cube onto the target",
        "press the button to stop",
    ],
    "grounded": [
        "pick up the red cube <120, 88> for the first time",
        "place the red cube onto the target <140, 75>",
        "pick up the red cube <141, 76> for the second time",
        "place the red cube onto the target <140, 75>",
        "press the button <60, 100> to stop",
    ],
}


def write_dataset(root: Path, episodes: int = 30, low_level_size: int = 16, high_level_size: int = 32) -> Path:
    """`episodes` episodes of two high-level and three low-level samples per subgoal."""
    rng = np.random.default_rng(0)
    low, high = root / "low_level", root / "high_level"
    low.mkdir(parents=True)
    high.mkdir()
    texts = [*SUBGOALS["simple"], *SUBGOALS["grounded"], GOAL]
    columns: dict[str, list[int]] = {"episode": [], "goal": [], "subgoal_simple": [], "subgoal_grounded": []}
    records = []
    for episode in range(100, 100 + episodes):
        for segment in range(5):
            for _ in range(3):
                columns["episode"].append(episode)
                columns["goal"].append(texts.index(GOAL))
                for style in ("simple", "grounded"):
                    columns[f"subgoal_{style}"].append(texts.index(SUBGOALS[style][segment]))
            for call in range(2):
                records.append(
                    {
                        "episode": episode,
                        "step": 16 * (2 * segment + call),
                        "goal": GOAL,
                        "segment": segment,
                        "previous_segment": segment - (call == 0),
                        **{f"subgoal_{style}": SUBGOALS[style][segment] for style in SUBGOALS},
                        **{f"history_{style}": SUBGOALS[style][:segment] for style in SUBGOALS},
                        "scene": "red cube <120, 88>; target <140, 75>; button <155, 109>; gripper <77, 126> open",
                    }
                )
    count = len(columns["episode"])
    for name, column in columns.items():
        np.save(low / f"{name}.npy", np.array(column, np.int32))
    for camera in ("front", "wrist"):
        np.save(low / f"{camera}.npy", rng.integers(0, 255, (count, low_level_size, low_level_size, 3), dtype=np.uint8))
    np.save(low / "proprioception.npy", rng.normal(size=(count, 8)).astype(np.float32))
    np.save(low / "actions.npy", rng.normal(size=(count, 16, 8)).astype(np.float32))
    (low / "texts.json").write_text(json.dumps(texts))
    np.save(
        high / "front.npy", rng.integers(0, 255, (len(records), high_level_size, high_level_size, 3), dtype=np.uint8)
    )
    (high / "samples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return root
