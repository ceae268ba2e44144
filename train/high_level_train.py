"""Train the reference high-level policy's base: `python -m memrt.train.high_level_train STAGE --out RUN …`.

Each stage reads the weights of an earlier run (`--weights`) or starts from a seeded initialisation, and leaves
`RUN/STAGE/model` in the checkpoint format of transformers. Interrupted runs continue where they were saved.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from memrt.train.high_level_data import POSES_PER_LAYOUT, Scenes
from memrt.train.high_level_looking import HEADS
from memrt.train.high_level_loop import Loop, Schedule, training_device
from memrt.train.high_level_model import build_model, high_level_config, save_model
from memrt.train.high_level_stages import STAGES, StageData, StageModule, stage_losses
from memrt.train.high_level_text import ExampleEncoder
from memrt.train.high_level_turns import read_calls
from memrt.train.high_level_vocabulary import load_with_tokenizer
from memrt.train.text_tokenizer import reference_tokenizer, save_tokenizer

# The policies that have an adapter each, in the order in which those are trained.
POLICIES = (
    *("am_grounded", "memoryless", "am_simple", "am_sm_grounded", "memer"),
    *("subgoal_grounded", "language_memory", "am_sm_simple", "subgoal_simple"),
)


def main(arguments: list[str] | None = None) -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--out", type=Path, required=True, help="run folder; the stage writes OUT/STAGE")
    parser.add_argument("--weights", type=Path, help="model folder of an earlier stage; it may know fewer words")
    parser.add_argument("--scenes", type=Path, help="recorded grounding folder")
    parser.add_argument("--calls", type=Path, nargs="*", default=[], help="recorded high_level or episodes folders")
    parser.add_argument("--policies", nargs="*", default=POLICIES, help="whose chats the base learns from")
    parser.add_argument("--features", type=Path, help="folder for a frozen tower's features (default: OUT/features)")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.2, help="share of the steps over which the rate falls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("highest")
    tokenizer = reference_tokenizer()
    if options.weights:
        model = load_with_tokenizer(options.weights, tokenizer)
    else:
        model = build_model(high_level_config(tokenizer), options.seed)
    torch.manual_seed(options.seed)
    module = StageModule(model.train()).to(training_device())
    if options.weights and (options.weights / HEADS).exists():
        _load_heads(module, options.weights / HEADS)
    data = None
    if options.scenes:
        # A decoder learns as much from every layout once, and fewer features have to be computed.
        scenes = Scenes.load(options.scenes, POSES_PER_LAYOUT if options.stage == "decoder" else 1)
        data = StageData(scenes, read_calls(options.policies, options.calls), tuple(options.policies))

    folder = options.out / options.stage
    schedule = Schedule(options.steps, options.rate, decay=options.decay)
    loop = Loop(_trained_part(module, options.stage), schedule, folder / "state", folder / "log.jsonl", options.stage)
    encoder, features = ExampleEncoder(tokenizer), options.features or options.out / "features"
    loop.run(stage_losses(options.stage, module, encoder, data, features, options.batch, options.seed, loop.step))
    save_model(model, folder / "model")
    save_tokenizer(tokenizer, folder / "model")
    heads = {name: value for name, value in module.state_dict().items() if not name.startswith("model.")}
    save_file(heads, str(folder / "model" / HEADS))


def _load_heads(module: StageModule, path: Path) -> None:
    """Read the heads; one that has since learned further names keeps the rows of those it knew."""
    state = module.state_dict()
    for name, rows in load_file(str(path)).items():
        state[name][: len(rows)] = rows


def _trained_part(module: StageModule, stage: str) -> StageModule:
    """Leave out of the optimiser what the stage does not touch."""
    if stage == "language":
        module.model.model.visual.requires_grad_(False)
        module.head.requires_grad_(False)
    if stage == "decoder":
        module.model.model.visual.requires_grad_(False)
        module.head.requires_grad_(False)
    if stage == "vision":
        module.model.model.language_model.requires_grad_(False)
        module.model.model.visual.deepstack_merger_list.requires_grad_(False)
    return module


if __name__ == "__main__":
    main()
