"""π0.5's share of a streamed export: vision, prefix and step, in this order, each fed by the exact outputs before it.

The recorded moments pass through the runtime's own `LowLevelSession`, whose engines stand in: those that are done hand
out what torch computed, the next one listens. So prompts, positions and the denoising loop exist once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from memrt.calib.calibration_set import ROLES, CalibrationSet
from memrt.calib.observations import policy_wording
from memrt.export.checkpoints.pi05 import Pi05Checkpoint
from memrt.export.gates import CHAIN, GRIPPER, gate, gripper_agreement
from memrt.export.low_level_export import TAPPED_STEPS
from memrt.export.memory_verdict import EngineSize, activation_bytes, kv_bytes
from memrt.export.pi05_graphs import INPUTS, OUTPUTS, example, graphs, shapes
from memrt.export.pi05_tables import read_modulation_table, table_times, write_embedding_table
from memrt.export.pi05_units import streaming_units
from memrt.export.plan import plan_key
from memrt.export.recorded_chunks import Chunks, Moment, chunks, moments
from memrt.export.streaming.engine import BuildSettings, carry_out, stored_elements
from memrt.export.streaming.job import Job, plain_feed, streamed_unit
from memrt.export.streaming.made import Made
from memrt.export.streaming.resume import WorkFolder
from memrt.export.streaming.skeleton import fake_mode
from memrt.export.streaming.stand_ins import Known, Listening, TorchEngine
from memrt.export.streaming.stream import Progress
from memrt.runtime.config import PolicyConfig
from memrt.runtime.engine import open_engine
from memrt.runtime.policy.low_level import LowLevelInterface
from memrt.runtime.policy.low_level_config import LowLevelModel, prefix_profiles, write_low_level_model
from memrt.runtime.policy.low_level_session import Denoised, LowLevelSession, read_tables
from memrt.runtime.policy.preprocess import NormStats
from memrt.runtime.policy.prompt_tokens import PromptTokens
from memrt.runtime.types import Engine
from memrt.train.pi05.model import Pi05
from memrt.train.pi05.policy import runtime_model

Array = NDArray[Any]
ENGINES = ("vision", "prefix", "step")


class LowLevelStream:
    """The engines of one π0.5 checkpoint, in the bundle's `ll`."""

    def __init__(
        self,
        policy: PolicyConfig,
        checkpoint: Pi05Checkpoint,
        recorded: CalibrationSet,
        work: WorkFolder,
        settings: BuildSettings,
        progress: Progress,
    ) -> None:
        """Read the recorded moments; nothing of the checkpoint's weights is read or written yet."""
        self._policy, self._checkpoint, self._settings, self._progress = policy, checkpoint, settings, progress
        self._work, self._folder = work, work.staging / "ll"
        self._config = _with_policy(checkpoint, policy)
        low_level, bos = policy.low_level, checkpoint.bos_token
        model: LowLevelModel = runtime_model(self._config, bos=bos, denoise_steps=low_level.denoise_steps)
        self._model = model
        tokenizer = Tokenizer.from_str(checkpoint.tokenizer.decode())
        tokens = PromptTokens(tokenizer, bos, min(model.max_token_len, low_level.max_token_len))
        stats = NormStats.parse(checkpoint.norm_stats, checkpoint.source.label)
        self._interface = LowLevelInterface(low_level, model, tokens, stats)
        with fake_mode():
            self._graphs = graphs(Pi05(self._config), model, step_rtc=settings.step_rtc)
        with torch.device("meta"):
            self._blank = Pi05(self._config)  # what units are copied from and filled
        wordings = (policy_wording(policy),)
        self._moments = {
            role: list(moments(recorded, recorded.low_level(role), self._interface, model, wordings)) for role in ROLES
        }
        self._tables: tuple[Array, Array] = (np.empty(0), np.empty(0))
        self._units = streaming_units(self._config, model, step_rtc=settings.step_rtc)
        self.gates: dict[str, Any] = {}

    def sizes(self) -> list[EngineSize]:
        """What the engines will take on the device."""
        config, model, settings = self._config, self._model, self._settings
        longest = prefix_profiles(model)[-1]
        rows = longest + model.horizon
        shapes_of = {
            "vision": (config.vision, config.vision.tokens, config.vision.tokens),
            "prefix": (config.prefix, longest, longest),
            "step": (config.expert, model.horizon, rows),
            "step_rtc": (config.expert, model.horizon, rows),
        }
        cache = kv_bytes(layers=model.layers, kv_heads=model.kv_heads, rows=longest, head_dim=model.head_dim)
        return [
            EngineSize(
                f"ll/{name}",
                stored_elements(
                    self._graphs[name],
                    settings.plan.engine(f"ll/{name}"),
                    settings.keep_fp32.get(plan_key(f"ll/{name}"), ()),
                ),
                kv_bytes=cache if name == "prefix" else 0,
                activation_bytes=activation_bytes(
                    tokens=tokens, width=stack.width, mlp=stack.mlp_width, heads=stack.heads, context=context
                ),
            )
            for name, (stack, tokens, context) in shapes_of.items()
            if name in self._graphs
        ]

    @property
    def table_bytes(self) -> int:
        """The embedding table in the host's memory."""
        return self._config.vocabulary * self._config.prefix.width * 4

    def run(self) -> dict[str, Made]:
        """All engines and the gates of the whole chain, by the engines' names."""
        self._write_tables()
        made: dict[str, Made] = {}
        stand_ins: dict[str, Engine] = {}
        for name in ("vision", "prefix"):
            feeds = self._listen(name, stand_ins)
            made[name] = self._make(name, feeds)
            stand_ins[name] = Known.of(
                [*feeds["calibration"], *feeds["gate"]],
                [*made[name].calibration, *made[name].reference],
                OUTPUTS[name],
            )
        step = TorchEngine(self._whole("step"), INPUTS["step"], OUTPUTS["step"], kept=TAPPED_STEPS)
        feeds, chunks = {}, {}
        for role in ROLES:
            step.heard.clear()
            chunks[role] = self._chunks({**stand_ins, "step": step}, self._moments[role], step.begin)
            feeds[role] = list(step.heard)
        del step
        made["step"] = self._make("step", feeds)
        if self._settings.step_rtc:
            made["step_rtc"] = self._make("step_rtc", {role: self._begun(found) for role, found in feeds.items()})
        self._judge(chunks["gate"], made)
        return {f"ll/{name}": found for name, found in made.items()}

    def _begun(self, feeds: Sequence[dict[str, Array]]) -> list[dict[str, Array]]:
        """Denoise steps of chunks whose first quarter is decided already: clean from the start, at flow time 0."""
        clean = self._tables[1][-1]
        row = (np.arange(self._model.horizon) < self._model.horizon // 4).astype(np.int64)
        return [{**feed, "modulation": np.stack((feed["modulation"], clean)), "row": row} for feed in feeds]

    def _listen(self, name: str, known: Mapping[str, Engine]) -> dict[str, list[dict[str, Array]]]:
        """What the engine `name` is fed for the recorded moments, each different feed once."""
        found = {}
        for role in ROLES:
            listeners = {engine: Listening(self._silence(engine)) for engine in ENGINES}
            self._chunks({**listeners, **known}, self._moments[role], lambda: None)
            unique = {feed[INPUTS[name][0]].tobytes(): feed for feed in listeners[name].heard}
            found[role] = list(unique.values())
        return found

    def _silence(self, engine: str) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
        """Outputs of the right shapes, all zero."""
        model = self._model

        def zeros(feed: Mapping[str, Array]) -> dict[str, Array]:
            if engine == "vision":
                return {"tokens": np.zeros((1, model.vision_tokens, model.width), np.float32)}
            if engine == "prefix":
                shape = (model.layers, model.kv_heads, feed["embeddings"].shape[1], model.head_dim)
                return {"keys": np.zeros(shape, np.float32), "values": np.zeros(shape, np.float32)}
            return {"velocity": np.zeros_like(feed["x"])}

        return zeros

    def _make(self, name: str, feeds: Mapping[str, list[dict[str, Array]]]) -> Made:
        def samples(role: str) -> list[tuple[Tensor, ...]]:
            return [
                tuple(torch.from_numpy(np.ascontiguousarray(feed[key])) for key in INPUTS[name]) for feed in feeds[role]
            ]

        job = Job(
            name=f"ll/{name}",
            file=f"ll/{name}.onnx",
            graph=self._graphs[name],
            units=[
                streamed_unit(unit.prefix, self._blank, unit.sources, unit.build, self._checkpoint.source)
                for unit in self._units
                if unit.graph == name
            ],
            inputs=INPUTS[name],
            outputs=OUTPUTS[name],
            example=example(self._model, name),
            shapes=shapes(self._model, name),
            calibration=samples("calibration"),
            gate=samples("gate"),
            feed=plain_feed(INPUTS[name]),
        )
        return carry_out(job, self._work, self._settings, self._progress)

    def _whole(self, name: str) -> nn.Module:
        """A graph with all its weights, for the one that is small enough (the expert: 1.2 GB in fp32)."""
        with fake_mode():
            network = Pi05(self._config)
        graph = graphs(network, self._model)[name]
        for unit in self._units:
            if unit.graph == name:
                built = streamed_unit(unit.prefix, self._blank, unit.sources, unit.build, self._checkpoint.source)
                parent, _, last = built.path.rpartition(".")
                setattr(graph.get_submodule(parent), last, built.build())
        return graph.eval()

    def _judge(self, reference: Chunks, made: Mapping[str, Made]) -> None:
        """Whole chunks of the engines against torch's, with the same noise."""
        engines = {name: open_engine(made[name].proof, threads=self._settings.threads) for name in ENGINES}
        try:
            found = self._chunks(engines, self._moments["gate"], lambda: None)
        finally:
            for engine in engines.values():
                engine.close()
        precision = self._settings.plan.engine("ll/step").scheme
        rehearsal = self._settings.random_weights
        self.gates[CHAIN] = gate(CHAIN, precision, reference.arm, found.arm, random_weights=rehearsal)
        self.gates[GRIPPER] = gripper_agreement(precision, reference.closed, found.closed)

    def _chunks(self, engines: Mapping[str, Engine], recorded: Sequence[Moment], begin: Callable[[], None]) -> Chunks:
        session = LowLevelSession(self._model, *self._tables, **engines)

        def denoise(
            images: Sequence[NDArray[np.uint8]], tokens: NDArray[np.int64], noise: NDArray[np.float32]
        ) -> Denoised:
            begin()
            return session.denoise(images, tokens, noise)

        return chunks(denoise, recorded, self._interface)

    def _write_tables(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._progress("ll: embedding and modulation tables")
        read, config = self._checkpoint.source.read, self._config
        table = read_modulation_table(
            read, config, table_times(self._model.denoise_steps, step_rtc=self._settings.step_rtc)
        )
        np.save(self._folder / "modulation.npy", table, allow_pickle=False)
        write_embedding_table(read, config, self._folder / "embed.npy")
        (self._folder / "tokenizer.json").write_bytes(self._checkpoint.tokenizer)
        stats = msgspec.json.format(msgspec.json.encode(self._checkpoint.norm_stats), indent=2)
        (self._folder / "norm_stats.json").write_bytes(stats + b"\n")
        write_low_level_model(self._model, self._folder / "config.json")
        self._tables = read_tables(self._folder.joinpath)


def _with_policy(checkpoint: Pi05Checkpoint, policy: PolicyConfig) -> Any:
    """The checkpoint's sizes with the policy's horizon and prompt length: no weight depends on either."""
    low_level = policy.low_level
    return replace(checkpoint.config, horizon=low_level.horizon, max_token_len=low_level.max_token_len)
