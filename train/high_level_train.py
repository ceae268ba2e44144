"""Train the reference high-level policy's base: `python -m memrt.train.high_level_train STAGE --out RUN …`.

Each stage reads the weights of an earlier run (`--weights`) or starts from a seeded initialisation, and leaves
`RUN/STAGE/model` in the checkpoint format of transformers. Interrupted runs continue where they were saved.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from memrt.train.high_level_data import Calls, Scenes
from memrt.train.high_level_loop import Loop, Schedule, training_device
from memrt.train.high_level_model import build_model, high_level_config, load_model, save_model
from memrt.train.high_level_stages import STAGES, Frames, StageModule, stage_losses
from memrt.train.high_level_text import ExampleEncoder
from memrt.train.text_tokenizer import reference_tokenizer, save_tokenizer

POINTING = "pointing.safetensors"  # the throw-away heads, kept beside the weights for the next stage


def main(arguments: list[str] | None = None) -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--out", type=Path, required=True, help="run folder; the stage writes OUT/STAGE")
    parser.add_argument("--weights", type=Path, help="model folder of an earlier stage")
    parser.add_argument("--scenes", type=Path, help="recorded grounding folder")
    parser.add_argument("--calls", type=Path, help="recorded high_level folder")
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
    model = load_model(options.weights) if options.weights else build_model(high_level_config(tokenizer), options.seed)
    torch.manual_seed(options.seed)
    module = StageModule(model.train()).to(training_device())
    if options.weights and (options.weights / POINTING).exists():
        _load_heads(module, options.weights / POINTING)
    frames = None
    if options.scenes:
        frames = Frames(Scenes.load(options.scenes), Calls.load(options.calls) if options.calls else None)

    folder = options.out / options.stage
    schedule = Schedule(options.steps, options.rate, decay=options.decay)
    loop = Loop(_trained_part(module, options.stage), schedule, folder / "state", folder / "log.jsonl", options.stage)
    loop.run(
        stage_losses(options.stage, module, ExampleEncoder(tokenizer), frames, options.batch, options.seed, loop.step)
    )
    save_model(model, folder / "model")
    save_tokenizer(tokenizer, folder / "model")
    heads = {name: value for name, value in module.state_dict().items() if not name.startswith("model.")}
    save_file(heads, str(folder / "model" / POINTING))


def _load_heads(module: StageModule, path: Path) -> None:
    """Read what fits; a head that has changed its shape starts anew."""
    current = module.state_dict()
    kept = {name: value for name, value in load_file(str(path)).items() if current[name].shape == value.shape}
    module.load_state_dict(kept, strict=False)


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
