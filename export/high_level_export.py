"""The high level's share of an export: its graphs, what its engines are fed, and its answers beside the torch model's.

Answers are compared under teacher forcing: both models read the recorded reply token by token, and each says at every
position which token it would have written. One early difference then counts as one, instead of derailing the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from memrt.calib.chats import Chat
from memrt.export.engine_build import Part
from memrt.export.taps import FeedStore, TappedEngine
from memrt.export.torch_callable import torch_callable
from memrt.export.vlm_decoder import DecoderGraph
from memrt.export.vlm_families import family_of, vision_graph
from memrt.export.vlm_graphs import DECODER_OUTPUTS, VISION_INPUTS, decoder_inputs, vision_outputs
from memrt.runtime.engine import open_engine
from memrt.runtime.policy.chat import render_chat
from memrt.runtime.policy.vlm_config import VlmConfig, read_vlm_config
from memrt.runtime.policy.vlm_image import engine_size, fit
from memrt.runtime.policy.vlm_session import VlmSession
from memrt.runtime.types import Engine, TensorSpec

Array = NDArray[Any]
# Of one answer: reading the prompt, and a few of the one-token steps.
TAPPED_DECODER_CALLS = (0, 1, 6)


class ForcedDecoder:
    """A decoder engine whose answer is dictated: it notes what the model would say, then says what was recorded."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._answer: list[int] = []
        self.said: list[int] = []

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The engine's inputs."""
        return self._engine.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The engine's outputs."""
        return self._engine.outputs

    def dictate(self, answer: Sequence[int]) -> None:
        """Start a new answer; its last token ends it."""
        self._answer, self.said = list(answer), []

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the engine and replace its logits by the recorded token's."""
        outputs = self._engine.run(feeds)
        token = self._answer[len(self.said)]
        self.said.append(int(outputs["logits"][0].argmax()))
        forced = np.zeros_like(outputs["logits"])
        forced[0, token] = 1.0
        return {**outputs, "logits": forced}

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


class ForcedSession:
    """The exported VLM in `folder`, reading recorded chats; its engines can be tapped."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.config: VlmConfig = read_vlm_config(folder / "config.json")
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        graphs = [self.config.vision_graph(size) for size in self.config.image_sizes]
        # A frame that several requests show counts once: policies that see the same frames get the same vision engine.
        self.vision = {
            graph: TappedEngine(open_engine(folder / f"{graph}.onnx", threads=threads), distinct=True)
            for graph in graphs
        }
        self.decoder = TappedEngine(open_engine(folder / "decoder.onnx", threads=threads), TAPPED_DECODER_CALLS)
        self._forced = ForcedDecoder(self.decoder)
        embedding = np.load(folder / "embed.npy", mmap_mode="r", allow_pickle=False)
        self._session = VlmSession(self.config, self.tokenizer, embedding, self.vision, self._forced)

    def read(self, chat: Chat) -> NDArray[np.int64]:
        """The most likely token at every position of the recorded answer, its end included: int64 [n]."""
        answer = answer_ids(chat, self.tokenizer, self.config)
        self._session.forget()
        for engine in (*self.vision.values(), self.decoder):
            engine.begin()
        self._forced.dictate(answer)
        self._session.generate(chat.system, chat.user, chat.images, len(answer))
        return np.asarray(self._forced.said, np.int64)

    def close(self) -> None:
        """Release the engines."""
        self._session.close()


def answer_ids(chat: Chat, tokenizer: Tokenizer, config: VlmConfig) -> list[int]:
    """Token ids of the recorded reply and the token that ends it."""
    ids = tokenizer.encode(chat.reply, add_special_tokens=False).ids
    return [*ids, _token(tokenizer, config.stop_tokens[0])]


def _token(tokenizer: Tokenizer, text: str) -> int:
    found = tokenizer.token_to_id(text)
    assert found is not None  # VlmSession refuses a tokenizer without its control tokens
    return int(found)


def tap(folder: Path, chats: Sequence[Chat], work: Path, threads: int = 1) -> dict[str, FeedStore]:
    """Read `chats` with the engines in `folder`; returns what they were fed, written below `work`."""
    session = ForcedSession(folder, threads)
    engines = {**session.vision, "decoder": session.decoder}
    stores = {name: FeedStore(work / name) for name in engines}
    for name, engine in engines.items():
        engine.store = stores[name]
    for chat in chats:
        session.read(chat)
    session.close()
    return stores


def engine_answers(folder: Path, chats: Sequence[Chat], threads: int = 1) -> list[NDArray[np.int64]]:
    """What the engines in `folder` would write at every position of the recorded answers."""
    session = ForcedSession(folder, threads)
    try:
        return [session.read(chat) for chat in chats]
    finally:
        session.close()


def torch_answers(model: Any, folder: Path, chats: Sequence[Chat]) -> list[NDArray[np.int64]]:
    """The same of transformers' own forward, which shares no code with the exported graphs in `folder`."""
    config, tokenizer = read_vlm_config(folder / "config.json"), Tokenizer.from_file(str(folder / "tokenizer.json"))
    answers = []
    merge = int(model.config.vision_config.spatial_merge_size)
    image_token = _token(tokenizer, config.image_token)
    for chat in chats:
        sizes = [engine_size(*image.shape[:2], config.image_sizes, config.resize) for image in chat.images]
        pixels = [pixel_values(fit(image, size), model) for image, size in zip(chat.images, sizes, strict=True)]
        prompt = render_chat(chat.system, chat.user, [size.tokens for size in sizes])
        ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        answer = answer_ids(chat, tokenizer, config)
        sequence = torch.tensor([[*ids, *answer[:-1]]])
        with torch.no_grad():
            logits = model(
                input_ids=sequence,
                pixel_values=torch.cat(pixels),
                image_grid_thw=torch.tensor([[1, size.grid[0] * merge, size.grid[1] * merge] for size in sizes]),
                mm_token_type_ids=(sequence == image_token).long(),
            ).logits[0]
        answers.append(logits[len(ids) - 1 :].argmax(-1).numpy().astype(np.int64))
    return answers


def pixel_values(image: NDArray[np.uint8], model: Any) -> Tensor:
    """An image as Qwen's processor hands it over: patches in blocks of merge x merge, each (channel, frame, y, x)."""
    settings: Any = model.config.vision_config
    patch, merge, frames = int(settings.patch_size), int(settings.spatial_merge_size), int(settings.temporal_patch_size)
    family = family_of(model.config)
    scaled = (torch.from_numpy(image.copy()).float() / 255.0 - torch.tensor(family.mean)) / torch.tensor(
        family.deviation
    )
    rows, columns = image.shape[0] // (patch * merge), image.shape[1] // (patch * merge)
    blocks = scaled.view(rows, merge, patch, columns, merge, patch, 3).permute(0, 3, 1, 4, 6, 2, 5)
    return blocks[:, :, :, :, :, None].expand(-1, -1, -1, -1, -1, frames, -1, -1).reshape(rows * columns * merge**2, -1)


def parts(
    model: Any, config: VlmConfig, calibration: Mapping[str, FeedStore], gate: Mapping[str, FeedStore]
) -> list[Part]:
    """The engines of the high level, to be built: one for vision per image size of `config`, and the decoder."""
    modules: dict[str, tuple[nn.Module, Sequence[str], Sequence[str]]] = {
        config.vision_graph(size): (
            vision_graph(model, size.pixels),
            VISION_INPUTS,
            vision_outputs(model.config),
        )
        for size in config.image_sizes
    }
    modules["decoder"] = (DecoderGraph(model), decoder_inputs(model.config), DECODER_OUTPUTS)
    return [
        Part(f"hl/{name}", f"hl/{name}.onnx", torch_callable(*module), calibration[name], gate[name])
        for name, module in modules.items()
    ]
