"""One picture of all tasks: a row of moments from an episode of the scripted expert, with the subgoals it follows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from memrt.sim.env import TabletopEnv
from memrt.sim.expert_episodes import Spoken, follow_expert
from memrt.sim.tasks.base import Difficulty

MOMENTS = 6  # per task
CELL = 176  # side of a picture [pixels]
GAP = 6
TITLE, CAPTION = 38, 52  # heights of the text above and below the pictures [pixels]
FONT_PIXELS = 12
COLUMNS = 28  # characters beside each other below a picture
GOAL_COLUMNS = 208
PALETTE = 256  # colours of the PNG: flat shading has few
EVERY = 4  # control steps between the moments to choose from


def contact_sheet(tasks: Sequence[str], seed: int, difficulty: Difficulty) -> Image.Image:
    """Run one episode of every task and lay out its moments, row by row."""
    height = TITLE + CELL + CAPTION
    sheet = Image.new("RGB", (MOMENTS * (CELL + GAP) + GAP, len(tasks) * height), (250, 250, 250))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_PIXELS)
    for row, name in enumerate(tasks):
        goal, moments = _moments(name, seed, difficulty)
        top = row * height
        draw.text((GAP, top + 4), name, font=ImageFont.load_default(FONT_PIXELS + 3), fill=(0, 0, 0))
        draw.text((GAP, top + 22), textwrap.shorten(goal, GOAL_COLUMNS), font=font, fill=(90, 90, 90))
        for column, (image, subgoal) in enumerate(moments):
            left = GAP + column * (CELL + GAP)
            sheet.paste(Image.fromarray(image), (left, top + TITLE))
            lines = "\n".join(textwrap.wrap(subgoal, COLUMNS)[:3])
            draw.text((left, top + TITLE + CELL + 3), lines, font=font, fill=(0, 60, 130), spacing=2)
    return sheet.quantize(PALETTE, dither=Image.Dither.NONE)


def _moments(name: str, seed: int, difficulty: Difficulty) -> tuple[str, list[tuple[NDArray[np.uint8], str]]]:
    """The goal, and moments spread evenly over the stretches with one subgoal, however long these last."""
    seen: list[tuple[NDArray[np.uint8], str]] = []
    with TabletopEnv(name, seed, difficulty) as env:

        def look(spoken: Spoken) -> None:
            if env.step_index % EVERY == 0:
                picture = Image.fromarray(env.render("front")).resize((CELL, CELL), Image.Resampling.LANCZOS)
                seen.append((np.asarray(picture), spoken.simple))

        follow_expert(env, look)
        stretches = [list(same) for _, same in groupby(seen, key=lambda moment: moment[1])]
        spread = (np.arange(MOMENTS) + 0.5) * len(stretches) / MOMENTS
        return env.goal, [stretches[int(at)][int(len(stretches[int(at)]) * (at % 1.0))] for at in spread]
