"""A VLM as the bench needs it: questions about images, engines, and transformers' model.

The weights are random at a real model's sizes, with fewer decoder layers where asked, or those of the reference policy.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from memrt.export.bench.engines import Progress, kept, make_engine
from memrt.export.checkpoints.random_vlm import VLMS
from memrt.export.checkpoints.renamed import RenamedSource
from memrt.export.checkpoints.vlm import VlmCheckpoint, open_vlm
from memrt.export.checkpoints.vlm_family import EMBEDDING, MODELS, is_tied
from memrt.export.pipeline import reference_weights
from memrt.export.plan import EnginePlan, Scheme
from memrt.export.streaming.job import Feed, Job, plain_feed, streamed_unit
from memrt.export.streaming.skeleton import DynamicShapes, fake_mode
from memrt.export.streaming.stand_ins import Listening
from memrt.export.vlm_decoder import DecoderGraph
from memrt.export.vlm_families import family_of, vision_graph
from memrt.export.vlm_graphs import (
    DECODER_OUTPUTS,
    VISION_INPUTS,
    decoder_example,
    decoder_inputs,
    decoder_shapes,
    engine_sizes,
    vision_outputs,
    vlm_config,
)
from memrt.export.vlm_processor import read_resize
from memrt.export.vlm_units import streaming_units
from memrt.runtime.bench.memer_calls import synthetic_frame
from memrt.runtime.engine import open_engine
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.chat import render_chat
from memrt.runtime.policy.vlm_config import VlmConfig, write_vlm_config
from memrt.runtime.policy.vlm_image import fit
from memrt.runtime.policy.vlm_session import VlmSession

IMAGE_SIZE = (256, 256)  # one view of RoboMME's policies
CAPACITY = 768  # K/V rows, as policies have by default
SEED = 40
SYSTEM = "You are a helpful assistant to help guide the robot to complete the task."
USER = (
    "The task goal is: pick up the red cube two times, then press the button to stop\n"
    "The current action memory: <mem>picked up the red cube for the first time</mem>\n"
    "<image>What's the next grounded language subgoal based on current observation?"
)
BLOCK = 32  # weights that share an int4 scale: what ONNX Runtime's CPU kernels are fastest and most exact with


REFERENCE = "reference"  # the size's name of the reference policy's VLM
_LAYER = re.compile(r"^model\.language_model\.layers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt and the seeds of its images (`BenchVlm.image`)."""

    system: str
    user: str
    seeds: tuple[int, ...]


ONE_IMAGE = Question(SYSTEM, USER, (SEED,))


@dataclass(frozen=True)
class BenchVlm:
    """`size` is a name of `random:` checkpoints, or `reference`; `example` is like the questions that will be asked.

    Engines are calibrated on `example`, with images that are not asked about.
    """

    size: str
    checkpoint: VlmCheckpoint
    settings: VlmConfig
    example: Question = ONE_IMAGE

    @classmethod
    def open(
        cls, size: str, *, layers: int | None = None, capacity: int = CAPACITY, example: Question = ONE_IMAGE
    ) -> BenchVlm:
        """The model with its first `layers` decoder layers, or all. Raises MemrtError for an unknown size."""
        if size not in VLMS and size != REFERENCE:
            known = ", ".join((*VLMS, REFERENCE))
            raise MemrtError("size of the VLM", expected=f"one of {known}", found=size, fix="choose one")
        if size == REFERENCE:
            weights = reference_weights()
            checkpoint = open_vlm(weights / "high_level_base", weights / "am_grounded")
        else:
            checkpoint = open_vlm(f"random:{size}")
        if layers is not None:
            checkpoint = _with_layers(checkpoint, layers)
        config: Any = checkpoint.config
        resize = read_resize(Path(size), family_of(config), config.vision_config)
        settings = vlm_config(config, capacity, engine_sizes([IMAGE_SIZE], resize), resize=resize)
        # A random model may end its answer at any token: every run shall write as many as it was asked for.
        return cls(size, checkpoint, msgspec.structs.replace(settings, stop_tokens=()), example)

    @cached_property
    def elements(self) -> int:
        """Weights of the whole model, a tied head counted once."""
        source = self.checkpoint.source
        return sum(int(np.prod(source.shape(name))) for name in self.weight_names())

    def weight_names(self) -> list[str]:
        """Every tensor once."""
        tied = is_tied(self.checkpoint.config)
        return [name for name in self.checkpoint.source.names() if not (tied and name == "lm_head.weight")]

    def image(self, seed: int = SEED) -> NDArray[np.uint8]:
        """A frame uint8 [256, 256, 3]: coarse blocks and fine noise."""
        return synthetic_frame(seed, *IMAGE_SIZE)

    def prompt_ids(self, question: Question = ONE_IMAGE) -> list[int]:
        """A question as token ids, a placeholder per visual token."""
        visual = [self.settings.image_sizes[0].tokens] * len(question.seeds)
        text = render_chat(question.system, question.user, visual)
        ids: list[int] = self.tokenizer().encode(text, add_special_tokens=False).ids
        return ids

    def tokenizer(self) -> Tokenizer:
        """The checkpoint's."""
        return Tokenizer.from_str(self.checkpoint.tokenizer.decode())

    def session(self, folder: Path, threads: int) -> tuple[VlmSession, LastLogits]:
        """The runtime's session over the engines in `folder`, and what its decoder said."""
        heard = LastLogits(open_engine(folder / "decoder.onnx", threads=threads))
        return self.session_over(folder, self.vision_engines(folder, threads), heard), heard

    def vision_engines(self, folder: Path, threads: int) -> dict[str, Any]:
        """The vision engine in `folder`, by its name."""
        graph = self.settings.vision_graph(self.settings.image_sizes[0])
        return {graph: open_engine(folder / f"{graph}.onnx", threads=threads)}

    def session_over(self, folder: Path, vision: Mapping[str, Any], decoder: Any, **options: Any) -> VlmSession:
        """A session over open engines, with the embedding table in `folder`; `options` are those of `VlmSession`."""
        embedding = np.load(folder / "embed.npy", mmap_mode="r", allow_pickle=False)
        return VlmSession(self.settings, self.tokenizer(), embedding, vision, decoder, **options)

    def decoder_sample(self, folder: Path) -> tuple[Tensor, ...]:
        """The decoder's inputs for `example`, about other images, with features of the vision engine in `folder`."""
        config, inputs = self.settings, decoder_inputs(self.checkpoint.config)

        def silent(feeds: Mapping[str, NDArray[Any]]) -> Feed:
            rows = np.zeros((config.layers, config.kv_heads, len(feeds["embeddings"]), config.head_dim), np.float32)
            return {"logits": np.zeros((1, config.vocabulary), np.float32), "new_keys": rows, "new_values": rows}

        decoder = Listening(silent, inputs)
        session = self.session_over(folder, self.vision_engines(folder, torch.get_num_threads()), decoder)
        images = [self.image(seed + 100) for seed in self.example.seeds]
        session.generate(self.example.system, self.example.user, images, 1)
        session.close()
        empty = np.zeros((config.layers, config.kv_heads, 1, config.head_dim), np.float32)
        known = {**decoder.heard[0], "keys": empty, "values": empty}
        return tuple(torch.from_numpy(np.ascontiguousarray(known[name])) for name in inputs)


def _with_layers(checkpoint: VlmCheckpoint, layers: int) -> VlmCheckpoint:
    """The checkpoint cut off after `layers` decoder layers; the vision tower and the head stay."""
    config: Any = copy.deepcopy(checkpoint.config)
    found, fewest = config.text_config.num_hidden_layers, max(1, family_of(config).deepstack_layers(config))
    if not fewest <= layers <= found:
        raise MemrtError(
            "layers of the decoder", expected=f"{fewest} to {found}", found=layers, fix="leave --layers out for all"
        )
    config.text_config.num_hidden_layers = layers
    if getattr(config.text_config, "layer_types", None):
        config.text_config.layer_types = config.text_config.layer_types[:layers]
    kept = [
        name for name in checkpoint.source.names() if (match := _LAYER.match(name)) is None or int(match[1]) < layers
    ]
    return replace(checkpoint, config=config, source=RenamedSource(checkpoint.source, {name: name for name in kept}))


class LastLogits:
    """A decoder engine that keeps the logits of the prompt's end, and which tokens they and later ones chose."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.logits: list[NDArray[np.float32]] = []

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """As the engine."""
        found: dict[str, NDArray[Any]] = self._engine.run(feeds)
        self.logits.append(found["logits"][0])
        return found

    def close(self) -> None:
        """Release the engine."""
        self._engine.close()


def vlm_engines(model: BenchVlm, scheme: Scheme, work: Path, progress: Progress) -> Path:
    """The folder of vision (int8), decoder (`scheme`), embedding table and settings, as in a bundle's `hl`."""

    def make(folder: Path) -> None:
        checkpoint, size = model.checkpoint, model.settings.image_sizes[0]
        (folder / "tokenizer.json").write_bytes(checkpoint.tokenizer)
        write_vlm_config(model.settings, folder / "config.json")
        table = checkpoint.source.read(EMBEDDING)
        np.save(folder / "embed.npy", table.to(torch.float16).numpy(), allow_pickle=False)
        del table
        with fake_mode():
            traced = empty_model(model)
        pixels = [(torch.from_numpy(fit(model.image(SEED + seed), size).copy()),) for seed in (100, 101)]
        _make(
            model,
            "vision",
            vision_graph(traced, size.pixels),
            (VISION_INPUTS, vision_outputs(checkpoint.config)),
            ((torch.zeros(*size.pixels, 3, dtype=torch.uint8),), None),
            pixels,
            (EnginePlan(scheme="int8", compute="fp32"), ("patch*",)),
            folder,
            progress,
        )
        _make(
            model,
            "decoder",
            DecoderGraph(traced),
            (decoder_inputs(checkpoint.config), DECODER_OUTPUTS),
            (decoder_example(model.settings), decoder_shapes(checkpoint.config, model.settings.capacity)),
            [model.decoder_sample(folder)],
            (EnginePlan(scheme=scheme, compute="fp32", block=BLOCK), ()),
            folder,
            progress,
        )

    key = {
        "weights": model.checkpoint.source.fingerprint(),
        "config": model.checkpoint.config.to_dict(),
        "settings": msgspec.to_builtins(model.settings),
        "scheme": scheme,
        "block": BLOCK,
        "prompt": [model.example.system, model.example.user, *model.example.seeds],
    }
    name = f"{model.size}-{model.settings.layers}-layers-{model.settings.capacity}-rows-{scheme}"
    return kept(work, name, key, make)


def _make(
    model: BenchVlm,
    name: str,
    graph: torch.nn.Module,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    traced_at: tuple[tuple[Tensor, ...], DynamicShapes | None],
    calibration: Sequence[tuple[Tensor, ...]],
    chosen: tuple[EnginePlan, tuple[str, ...]],
    folder: Path,
    progress: Progress,
) -> None:
    with torch.device("meta"):
        blank = empty_model(model)
    sizes = [size.pixels for size in model.settings.image_sizes]
    job = Job(
        name=f"hl/{name}",
        file=f"{name}.onnx",
        graph=graph,
        units=[
            streamed_unit(unit.prefix, blank, unit.sources, unit.build, model.checkpoint.source)
            for unit in streaming_units(blank, sizes)
            if unit.graph == name
        ],
        inputs=names[0],
        outputs=names[1],
        example=traced_at[0],
        shapes=traced_at[1],
        calibration=calibration,
        gate=(),
        feed=plain_feed(names[0]),
    )
    make_engine(job, job.skeleton(), folder / f"{name}.onnx", *chosen, progress)


def empty_model(model: BenchVlm, dtype: torch.dtype = torch.float32) -> Any:
    """transformers' model, without values where the device has none."""
    kind: Any = MODELS[model.checkpoint.family]
    return kind._from_config(model.checkpoint.config, attn_implementation="sdpa", dtype=dtype).eval()


def filled_model(model: BenchVlm, dtype: torch.dtype) -> Any:
    """transformers' model in `dtype`, filled tensor by tensor: never two copies in memory."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        built = empty_model(model, dtype)
    built.tie_weights()  # a part of the initialisation that was skipped
    values = built.state_dict()
    with torch.no_grad():
        for name in model.weight_names():
            values[name].copy_(model.checkpoint.source.read(name))
    return built
