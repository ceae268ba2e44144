"""The build recipe of an engine that is compiled on the robot's computer: `recipe/<engine>.json` in the bundle.

The bundle carries the graph and this file; `memrt build` makes the engine from them, beside the bundle, never in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from memrt.runtime.bundle import Bundle
from memrt.runtime.engine.tensorrt_profiles import Profile
from memrt.runtime.errors import MemrtError
from memrt.runtime.strict_config import convert

FOLDER = "recipe"


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one engine is built.

    `engine`: its name in the manifest, such as `hl/decoder`. `graph`: the ONNX file in the bundle. `precision`: what
    the plan calls it, for reports; the graph's types decide. `weights_bytes`: what its weights need by the plan, which
    the built engine is held to. `timing_cache`: engines with one key share a timing cache.
    """

    schema_version: Literal[1] = 1
    engine: str
    graph: str
    backend: Literal["tensorrt"] = "tensorrt"
    precision: str
    profiles: tuple[Profile, ...]
    workspace_bytes: Annotated[int, msgspec.Meta(gt=0)]
    weights_bytes: Annotated[int, msgspec.Meta(ge=0)]
    timing_cache: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


def recipe_file(engine: str) -> str:
    """Where the recipe of an engine lies in a bundle: `hl/decoder` has `recipe/hl_decoder.json`."""
    return f"{FOLDER}/{engine.replace('/', '_')}.json"


def write_recipe(root: Path, recipe: Recipe) -> Path:
    """Write the recipe into the bundle folder `root` (before its manifest). Equal recipes give equal bytes."""
    path = root / recipe_file(recipe.engine)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(msgspec.to_builtins(recipe), sort_keys=True, indent=2, ensure_ascii=True)
    path.write_text(f"{text}\n", encoding="ascii")
    return path


def read_recipe(path: Path) -> Recipe:
    """Read and check one file. Raises `MemrtError` naming the wrong key."""
    try:
        values = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(values, dict):
        raise _unreadable(path, f"a {type(values).__name__}")
    recipe: Recipe = convert(values, Recipe, str(path))
    return recipe


def read_recipes(bundle: Bundle) -> dict[str, Recipe]:
    """All recipes of a bundle by engine; empty for one whose engines come ready to run.

    Raises `MemrtError` when a recipe's engine or graph is not in the manifest, or it lies under another's name.
    """
    recipes: dict[str, Recipe] = {}
    for relative in sorted(name for name in bundle.manifest.files if name.startswith(f"{FOLDER}/")):
        recipe = read_recipe(bundle.file(relative))
        known = recipe.engine in bundle.manifest.engines and recipe.graph in bundle.manifest.files
        if not known or relative != recipe_file(recipe.engine):
            raise MemrtError(
                f"recipe {relative} of bundle {bundle.path}",
                expected="an engine and a graph that the manifest names",
                found=f"engine `{recipe.engine}`, graph `{recipe.graph}`",
                fix="export the policy again",
            )
        recipes[recipe.engine] = recipe
    return recipes


def _unreadable(path: Path, found: object) -> MemrtError:
    return MemrtError(f"recipe {path}", expected="a JSON object", found=found, fix="export the policy again")
