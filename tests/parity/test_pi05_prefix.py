"""Vision tower, projector and prefix against transformers' SigLIP, PaliGemma projector and Gemma with the same tensors.

transformers computes the padded batch with masks, as training did; the exported graphs are given only what is there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnxruntime")
pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parent))

from parity_pi05 import Listened, exported_pi05, random_call
from transformers import DynamicCache, GemmaConfig, GemmaModel, SiglipVisionConfig, SiglipVisionModel
from transformers.models.paligemma.modeling_paligemma import PaliGemmaMultiModalProjector

from memrt.runtime.policy.low_level_session import LowLevelSession
from memrt.train.pi05.model import Pi05

PALIGEMMA = "paligemma_with_expert.paligemma.model."
TOLERANCE = 1e-4
PADDED = 20  # tokens of the padded prompt


class TransformersPrefix:
    """transformers' modules, loaded strictly: every tensor of the checkpoint has a place in them."""

    def __init__(self, model: Pi05) -> None:
        vision, prefix = model.config.vision, model.config.prefix
        tensors = {k.removeprefix(PALIGEMMA): v for k, v in model.state_dict().items() if k.startswith(PALIGEMMA)}

        def load(module: torch.nn.Module, name: str) -> torch.nn.Module:
            module.load_state_dict({k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)})
            return module.eval()

        self.vision = load(
            SiglipVisionModel(
                SiglipVisionConfig(
                    hidden_size=vision.width,
                    intermediate_size=vision.mlp_width,
                    num_hidden_layers=vision.depth,
                    num_attention_heads=vision.heads,
                    image_size=vision.image_size,
                    patch_size=vision.patch_size,
                    vision_use_head=False,
                )
            ),
            "vision_tower.vision_model.",
        )
        sizes = SimpleNamespace(hidden_size=vision.width, projection_dim=prefix.width)
        self.projector = load(
            PaliGemmaMultiModalProjector(SimpleNamespace(vision_config=sizes)), "multi_modal_projector."
        )
        self.gemma = load(
            GemmaModel(
                GemmaConfig(
                    vocab_size=model.config.vocabulary,
                    hidden_size=prefix.width,
                    intermediate_size=prefix.mlp_width,
                    num_hidden_layers=prefix.depth,
                    num_attention_heads=prefix.heads,
                    num_key_value_heads=prefix.kv_heads,
                    head_dim=prefix.head_dim,
                )
            ),
            "language_model.",
        )
        self.depth = prefix.depth

    @torch.no_grad()
    def view(self, image: np.ndarray) -> torch.Tensor:
        """uint8 [S, S, 3] → tokens [1, tokens, width]."""
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255.0 * 2.0 - 1.0
        return self.projector(self.vision(pixels).last_hidden_state)

    @torch.no_grad()
    def keys_and_values(
        self, images: np.ndarray, present: list[bool], ids: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of every layer, [kv_heads, valid tokens, head_dim]: all views computed, the missing ones masked."""
        views = [
            self.view(image if there else np.zeros_like(image)) for image, there in zip(images, present, strict=True)
        ]
        padded = torch.zeros(1, PADDED, dtype=torch.long)
        padded[0, : len(ids)] = torch.from_numpy(ids)
        embeddings = torch.cat((*views, self.gemma.embed_tokens(padded)), dim=1)
        valid = torch.cat((torch.tensor(present).repeat_interleave(views[0].shape[1]), torch.arange(PADDED) < len(ids)))
        hidden = torch.finfo(torch.float32).min
        mask = torch.where(valid, 0.0, hidden).expand(1, 1, len(valid), len(valid))
        cache = DynamicCache(config=self.gemma.config)
        self.gemma(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=(valid.long().cumsum(0) - 1).clamp(min=0)[None],
            past_key_values=cache,
            use_cache=True,
        )
        layers = [cache.layers[layer] for layer in range(self.depth)]
        return [(layer.keys[0, :, valid].numpy(), layer.values[0, :, valid].numpy()) for layer in layers]


@pytest.fixture(scope="module")
def theirs() -> TransformersPrefix:
    return TransformersPrefix(exported_pi05().model)


@pytest.fixture(scope="module")
def session() -> LowLevelSession:
    return exported_pi05().session


def compare(session: LowLevelSession, theirs: TransformersPrefix, present: list[bool], tokens: int, seed: int) -> None:
    images, ids, noise = random_call(seed, tokens)
    step = session._step
    assert isinstance(step, Listened)
    step.feeds.clear()
    session.denoise([image for image, there in zip(images, present, strict=True) if there], ids, noise)
    keys, values = step.feeds[0]["keys"], step.feeds[0]["values"]
    expected = theirs.keys_and_values(images, present, ids)
    assert len(expected) == len(keys) == len(values)
    for layer, (key, value) in enumerate(expected):
        np.testing.assert_allclose(keys[layer], key, atol=TOLERANCE, rtol=TOLERANCE, err_msg=f"keys of layer {layer}")
        np.testing.assert_allclose(values[layer], value, atol=TOLERANCE, rtol=TOLERANCE, err_msg=f"values {layer}")


def test_a_views_tokens_are_transformers(session: LowLevelSession, theirs: TransformersPrefix) -> None:
    images, _, _ = random_call(5, 1)
    for image in images:
        ours = session._vision.run({"image": image})["tokens"]
        np.testing.assert_allclose(ours, theirs.view(image).numpy(), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(
    "present", [[True, True, True], [True, False, True], [False, True, False], [False, False, False]], ids=str
)
def test_keys_and_values_of_every_layer(
    session: LowLevelSession, theirs: TransformersPrefix, present: list[bool]
) -> None:
    compare(session, theirs, present, tokens=11, seed=1)


def test_a_prompt_without_padding(session: LowLevelSession, theirs: TransformersPrefix) -> None:
    compare(session, theirs, [True, True, False], tokens=PADDED, seed=2)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(present=st.lists(st.booleans(), min_size=3, max_size=3), tokens=st.integers(2, PADDED), seed=st.integers(0, 99))
def test_any_views_and_any_prompt(
    session: LowLevelSession, theirs: TransformersPrefix, present: list[bool], tokens: int, seed: int
) -> None:
    compare(session, theirs, present, tokens, seed)
