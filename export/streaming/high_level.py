"""The VLM's share of a streamed export: vision first, then the decoder on the features that vision gives.

What the decoder is fed comes from the runtime's own session over recorded calls: its vision engine hands out features
that torch computed, its decoder is told the recorded answer and writes down what it is asked. Prompt and answer become
one sequence; under the causal mask that is the same as reading the answer token by token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from memrt.calib.calibration_set import ROLES, CalibrationSet, Role
from memrt.calib.chats import Chat, chats
from memrt.export.checkpoints.vlm import VlmCheckpoint
from memrt.export.context_room import check_context
from memrt.export.engine_runs import run_engine
from memrt.export.gates import ANSWERS, HIGH_LEVEL_CHAIN, answer_agreement, gate, label
from memrt.export.high_level_export import ForcedDecoder, answer_ids
from memrt.export.memory_verdict import EngineSize, activation_bytes, kv_bytes
from memrt.export.streaming.engine import BuildSettings, carry_out, stored_elements
from memrt.export.streaming.job import Feed, Job, plain_feed, streamed_unit
from memrt.export.streaming.made import Made
from memrt.export.streaming.resume import WorkFolder
from memrt.export.streaming.skeleton import fake_mode
from memrt.export.streaming.stand_ins import Known, Listening
from memrt.export.streaming.stream import Progress
from memrt.export.streaming.vlm_model import embedding_table, empty_model
from memrt.export.vlm_decoder import DecoderGraph
from memrt.export.vlm_families import vision_graph
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
from memrt.export.vlm_units import streaming_units
from memrt.runtime.config import PolicyConfig
from memrt.runtime.engine import open_engine
from memrt.runtime.policy.vlm_config import Resize, VlmConfig, write_vlm_config
from memrt.runtime.policy.vlm_image import fit
from memrt.runtime.policy.vlm_session import VlmSession
from memrt.runtime.types import Engine

Array = NDArray[Any]
PER_TOKEN = {"embeddings": 0, "cos": 0, "sin": 0, "deepstack": 1}  # inputs with one entry per new token, and its axis


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """A recorded call: the decoder's inputs over prompt and answer, and the answer's ids int64 [n] up to its end."""

    inputs: dict[str, Array]
    answer: NDArray[np.int64]


class HighLevelStream:
    """The engines of one VLM checkpoint, in the bundle's `hl`."""

    def __init__(
        self,
        policy: PolicyConfig,
        checkpoint: VlmCheckpoint,
        resize: Resize | None,
        recorded: CalibrationSet,
        work: WorkFolder,
        settings: BuildSettings,
        progress: Progress,
    ) -> None:
        """Nothing is read or written yet. `resize` is what the checkpoint's image processor does to the images."""
        self._checkpoint, self._settings, self._progress = checkpoint, settings, progress
        self._work, self._folder = work, work.staging / "hl"
        sizes, rows = engine_sizes([policy.high_level.frame_size], resize), policy.high_level.context_tokens
        self._config: VlmConfig = vlm_config(checkpoint.config, rows, sizes, resize=resize)
        check_context(policy, self._config, checkpoint.tokenizer.decode(), recorded)
        self._tokenizer = Tokenizer.from_str(checkpoint.tokenizer.decode())
        self._chats = {role: chats(recorded, policy, role) for role in ROLES}
        with fake_mode():
            self._model = empty_model(checkpoint)  # what graphs are traced from
        with torch.device("meta"):
            self._blank = empty_model(checkpoint)  # what units are copied from and filled
        self._units = streaming_units(self._model, sizes)
        self.gates: dict[str, Any] = {}

    def sizes(self) -> list[EngineSize]:
        """What the engines will take on the device."""
        config, plan, keep = self._config, self._settings.plan, self._settings.keep_fp32
        text, vision = self._checkpoint.config.text_config, self._checkpoint.config.vision_config
        pixels = config.image_sizes[0]
        rows = config.capacity
        patches = 4 * pixels.tokens  # 2 x 2 patches per visual token in both families
        attention = {"heads": int(text.num_attention_heads), "width": config.width, "mlp": int(text.intermediate_size)}
        tower = vision_graph(self._model, pixels.pixels)
        return [
            EngineSize(
                "hl/vision",
                stored_elements(tower, plan.engine("hl/vision"), keep.get("hl/vision", ())),
                activation_bytes=activation_bytes(
                    tokens=patches,
                    width=int(vision.hidden_size),
                    mlp=int(vision.intermediate_size),
                    heads=int(vision.num_heads),
                    context=patches,
                ),
            ),
            EngineSize(
                "hl/decoder",
                stored_elements(DecoderGraph(self._model), plan.engine("hl/decoder"), keep.get("hl/decoder", ())),
                kv_bytes=kv_bytes(layers=config.layers, kv_heads=config.kv_heads, rows=rows, head_dim=config.head_dim),
                activation_bytes=activation_bytes(tokens=rows, context=2 * rows, **attention),
            ),
        ]

    @property
    def table_bytes(self) -> int:
        """The embedding table in the host's memory."""
        wide = self._checkpoint.source.read("model.language_model.norm.weight").dtype == torch.float32
        return self._config.vocabulary * self._config.width * (4 if wide else 2)

    def run(self) -> dict[str, Made]:
        """Both engines and the gates of whole calls, by the engines' names."""
        self._write_tables()
        vision = self._vision()
        names = vision_outputs(self._checkpoint.config)
        images = {role: [{"image": image} for image in self._images(role)] for role in ROLES}
        exact = Known.of([*images["calibration"], *images["gate"]], [*vision.calibration, *vision.reference], names)
        calls = {role: self._calls(self._chats[role], exact) for role in ROLES}
        decoder = self._decoder(calls)
        pixels = [image["image"].tobytes() for image in images["gate"]]
        rounded = Known({key: dict(found) for key, found in zip(pixels, vision.found, strict=True)})
        self._judge(calls["gate"], rounded, decoder)
        return {"hl/vision": vision, "hl/decoder": decoder}

    def _write_tables(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_vlm_config(self._config, self._folder / "config.json")
        (self._folder / "tokenizer.json").write_bytes(self._checkpoint.tokenizer)
        self._progress("hl: embedding table")
        np.save(self._folder / "embed.npy", embedding_table(self._checkpoint), allow_pickle=False)

    def _vision(self) -> Made:
        size = self._config.image_sizes[0]
        graph = self._config.vision_graph(size)
        example = (torch.zeros(*size.pixels, 3, dtype=torch.uint8),)

        def samples(role: Role) -> list[tuple[Tensor, ...]]:
            return [(torch.from_numpy(image.copy()),) for image in self._images(role)]

        job = Job(
            name="hl/vision",
            file=f"hl/{graph}.onnx",
            graph=vision_graph(self._model, size.pixels),
            units=self._units_of(graph),
            inputs=VISION_INPUTS,
            outputs=vision_outputs(self._checkpoint.config),
            example=example,
            shapes=None,
            calibration=samples("calibration"),
            gate=samples("gate"),
            feed=plain_feed(VISION_INPUTS),
        )
        return carry_out(job, self._work, self._settings, self._progress)

    def _decoder(self, calls: Mapping[str, Sequence[_Call]]) -> Made:
        inputs = decoder_inputs(self._checkpoint.config)
        job = Job(
            name="hl/decoder",
            file="hl/decoder.onnx",
            graph=DecoderGraph(self._model),
            comparable=lambda outputs: (outputs[0][-1:], *outputs[1:]),
            units=self._units_of("decoder"),
            inputs=inputs,
            outputs=DECODER_OUTPUTS,
            example=decoder_example(self._config),
            shapes=decoder_shapes(self._checkpoint.config, self._config.capacity),
            calibration=[self._sample(call) for call in calls["calibration"]],
            gate=[self._sample(call) for call in calls["gate"]],
            feed=partial(self._feed, inputs),
        )
        return carry_out(job, self._work, self._settings, self._progress)

    def _units_of(self, graph: str) -> list[Any]:
        source = self._checkpoint.source
        return [
            streamed_unit(unit.prefix, self._blank, unit.sources, unit.build, source)
            for unit in self._units
            if unit.graph == graph
        ]

    def _images(self, role: Role) -> list[NDArray[np.uint8]]:
        """The pictures that the chats of `role` show, as the vision engine takes them, each once."""
        shown = (fit(image, self._config.image_sizes[0]) for chat in self._chats[role] for image in chat.images)
        return list({image.tobytes(): image for image in shown}.values())

    def _calls(self, recorded: Sequence[Chat], vision: Known) -> list[_Call]:
        """`recorded` as the session asks the decoder, with features from `vision`."""
        decoder = Listening(self._dictated, decoder_inputs(self._checkpoint.config), PER_TOKEN)
        session = self._session(vision, decoder)
        calls = []
        for chat in recorded:
            self._answer = answer_ids(chat, self._tokenizer, self._config)
            session.forget()
            decoder.heard.clear()
            self._said = 0
            session.generate(chat.system, chat.user, chat.images, len(self._answer))
            joined = {
                name: np.concatenate([heard[name] for heard in decoder.heard], axis=axis)
                for name, axis in PER_TOKEN.items()
                if name in decoder.heard[0]
            }
            calls.append(_Call(joined, np.asarray(self._answer, np.int64)))
        return calls

    def _answers(self, vision: Known, proof: Path) -> list[NDArray[np.int64]]:
        """What the engines would write at every position of the gate's answers, told the tokens before."""
        decoder = ForcedDecoder(open_engine(proof, threads=self._settings.threads))
        session = self._session(vision, decoder)
        said = []
        for chat in self._chats["gate"]:
            answer = answer_ids(chat, self._tokenizer, self._config)
            session.forget()
            decoder.dictate(answer)
            session.generate(chat.system, chat.user, chat.images, len(answer))
            said.append(np.asarray(decoder.said, np.int64))
        session.close()
        return said

    def _session(self, vision: Engine, decoder: Engine) -> VlmSession:
        embedding = np.load(self._folder / "embed.npy", mmap_mode="r", allow_pickle=False)
        graph = self._config.vision_graph(self._config.image_sizes[0])
        return VlmSession(self._config, self._tokenizer, embedding, {graph: vision}, decoder)

    def _dictated(self, feeds: Mapping[str, Array]) -> Feed:
        """The next token of the recorded answer; empty keys and values."""
        config = self._config
        logits = np.zeros((1, config.vocabulary), np.float32)
        logits[0, self._answer[self._said]] = 1.0
        self._said += 1
        rows = np.zeros((config.layers, config.kv_heads, len(feeds["embeddings"]), config.head_dim), np.float32)
        return {"logits": logits, "new_keys": rows, "new_values": rows}

    def _sample(self, call: _Call) -> tuple[Tensor, ...]:
        """The call as the graph's inputs, with a cache of one row, which holds nothing."""
        config = self._config
        cache = torch.zeros(config.layers, config.kv_heads, 1, config.head_dim)
        known = {
            **{name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in call.inputs.items()},
            "keys": cache,
            "values": cache,
            "past_length": torch.zeros(1, dtype=torch.int64),
            "asked": torch.arange(len(call.inputs["embeddings"]))[-len(call.answer) :],
        }
        return tuple(known[name] for name in decoder_inputs(self._checkpoint.config))

    def _feed(self, inputs: Sequence[str], sample: Sequence[Tensor]) -> Feed:
        """The same for the engine, whose cache has all its rows; of the logits, those of the last token."""
        config = self._config
        rows = (config.layers, config.kv_heads, config.capacity, config.head_dim)
        feed = plain_feed(inputs)(sample)
        empty = np.zeros(rows, np.float32)
        return {**feed, "asked": feed["asked"][-1:], "keys": empty, "values": empty}

    def _judge(self, exact: Sequence[_Call], vision: Known, decoder: Made) -> None:
        """Whole calls of the engines, vision included, against torch: the last logits, every token of the answers."""
        settings = self._settings
        precision = settings.plan.engine("hl/decoder").scheme
        inputs = decoder_inputs(self._checkpoint.config)
        calls = self._calls(self._chats["gate"], vision)
        feeds = (self._feed(inputs, self._sample(call)) for call in calls)
        found = [{"logits": outputs["logits"]} for outputs in run_engine(decoder.proof, feeds, settings.threads).found]
        reference = [{"logits": outputs[0][-1:].numpy()} for outputs in decoder.reference]
        self.gates[HIGH_LEVEL_CHAIN] = gate(
            HIGH_LEVEL_CHAIN, precision, reference, found, random_weights=settings.random_weights
        )
        wanted = [
            outputs[0][-len(call.answer) :].argmax(-1).numpy()
            for outputs, call in zip(decoder.reference, exact, strict=True)
        ]
        said = self._answers(vision, decoder.proof)
        if settings.random_weights:
            # A random model's next token is a coin toss between equals: how often it falls the same way tells nothing.
            same = np.concatenate([a == b for a, b in zip(wanted, said, strict=True)])
            self.gates[ANSWERS] = {"identical_tokens": float(same.mean()), "answers": len(said), **label(True)}
            return
        self.gates[ANSWERS] = answer_agreement(precision, wanted, said)
