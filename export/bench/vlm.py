"""A VLM of random weights as the bench needs it: one question about one image, engines, and transformers' model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from memrt.export.checkpoints.vlm import VlmCheckpoint, open_vlm
from memrt.export.checkpoints.vlm_family import EMBEDDING, MODELS, is_tied
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


@dataclass(frozen=True)
class BenchVlm:
    """`size` is a name of `random:` checkpoints."""

    size: str
    checkpoint: VlmCheckpoint
    settings: VlmConfig

    @classmethod
    def open(cls, size: str) -> BenchVlm:
        """Raises MemrtError for an unknown size."""
        if size not in VLMS:
            raise MemrtError("size of the VLM", expected=f"one of {', '.join(VLMS)}", found=size, fix="choose one")
        checkpoint = open_vlm(f"random:{size}")
        config: Any = checkpoint.config
        resize = read_resize(Path(size), family_of(config), config.vision_config)
        settings = vlm_config(config, CAPACITY, engine_sizes([IMAGE_SIZE], resize), resize=resize)
        # A random model may end its answer at any token: every run shall write as many as it was asked for.
        return cls(size, checkpoint, msgspec.structs.replace(settings, stop_tokens=()))

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
        rng = np.random.default_rng(seed)
        blocks = rng.integers(0, 200, (IMAGE_SIZE[0] // 16, IMAGE_SIZE[1] // 16, 3))
        coarse = blocks.repeat(16, axis=0).repeat(16, axis=1)
        return (coarse + rng.integers(0, 56, (*IMAGE_SIZE, 3))).astype(np.uint8)

    def prompt_ids(self) -> list[int]:
        """The question as token ids, a placeholder per visual token."""
        text = render_chat(SYSTEM, USER, [self.settings.image_sizes[0].tokens])
        ids: list[int] = self.tokenizer().encode(text, add_special_tokens=False).ids
        return ids

    def tokenizer(self) -> Tokenizer:
        """The checkpoint's."""
        return Tokenizer.from_str(self.checkpoint.tokenizer.decode())

    def session(self, folder: Path, threads: int) -> tuple[VlmSession, LastLogits]:
        """The runtime's session over the engines in `folder`, and what its decoder said."""
        heard = LastLogits(open_engine(folder / "decoder.onnx", threads=threads))
        return self._session(folder, heard, threads), heard

    def _session(self, folder: Path, decoder: Any, threads: int) -> VlmSession:
        graph = self.settings.vision_graph(self.settings.image_sizes[0])
        vision = {graph: open_engine(folder / f"{graph}.onnx", threads=threads)}
        embedding = np.load(folder / "embed.npy", mmap_mode="r", allow_pickle=False)
        return VlmSession(self.settings, self.tokenizer(), embedding, vision, decoder)

    def decoder_sample(self, folder: Path) -> tuple[Tensor, ...]:
        """The decoder's inputs for a question about another image, with features of the vision engine in `folder`."""
        config, inputs = self.settings, decoder_inputs(self.checkpoint.config)

        def silent(feeds: Mapping[str, NDArray[Any]]) -> Feed:
            rows = np.zeros((config.layers, config.kv_heads, len(feeds["embeddings"]), config.head_dim), np.float32)
            return {"logits": np.zeros((1, config.vocabulary), np.float32), "new_keys": rows, "new_values": rows}

        decoder = Listening(silent, inputs)
        session = self._session(folder, decoder, torch.get_num_threads())
        session.generate(SYSTEM, USER, [self.image(SEED + 100)], 1)
        session.close()
        empty = np.zeros((config.layers, config.kv_heads, 1, config.head_dim), np.float32)
        known = {**decoder.heard[0], "keys": empty, "values": empty}
        return tuple(torch.from_numpy(np.ascontiguousarray(known[name])) for name in inputs)


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
            (decoder_example(model.settings), decoder_shapes(checkpoint.config, CAPACITY)),
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
        "prompt": [SYSTEM, USER, SEED],
    }
    return kept(work, f"{model.size}-{scheme}", key, make)


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
