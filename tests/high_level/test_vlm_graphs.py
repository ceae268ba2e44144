"""The exported graphs compute what transformers computes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_qwen as tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import DynamicCache

from memrt.export.onnx_graph import OPSET
from memrt.export.vlm_graphs import load_vlm
from memrt.runtime.engine import open_engine
from memrt.runtime.errors import MemrtError

CAPACITY = 448


def test_vision_graph(exported: Path) -> None:
    outputs = open_engine(exported / "vision.onnx").run({"image": tiny.image(8)})
    with torch.no_grad():
        expected = tiny.model().model.visual(*tiny.qwen_pixels(tiny.image(8)))
    tiny.assert_same(outputs["tokens"], expected.pooler_output)
    tiny.assert_same(outputs["deepstack"], torch.stack(expected.deepstack_features))


def test_decoder_graph_prefill_then_steps(exported: Path) -> None:
    engine = open_engine(exported / "decoder.onnx")
    settings = tiny.model().config.text_config
    text = tiny.model().model.language_model
    generator = torch.Generator().manual_seed(0)
    cache = DynamicCache(config=settings)
    shape = (settings.num_hidden_layers, settings.num_key_value_heads, CAPACITY, settings.head_dim)
    keys, values = np.full(shape, 3.0, np.float32), np.full(shape, -2.0, np.float32)  # stale rows must not matter
    past = 0
    for tokens in (9, 1, 4, 1):
        embeddings = torch.randn(1, tokens, settings.hidden_size, generator=generator)
        deepstack = torch.randn(2, tokens, settings.hidden_size, generator=generator)
        positions = torch.randint(0, 50, (3, 1, tokens), generator=generator)
        index = torch.arange(past, past + tokens)[None, None]
        with torch.no_grad():
            hidden = text(
                inputs_embeds=embeddings,
                position_ids=torch.cat([index, positions]),
                past_key_values=cache,
                use_cache=True,
                visual_pos_masks=torch.ones(1, tokens, dtype=torch.bool),
                deepstack_visual_embeds=list(deepstack),
            ).last_hidden_state
            logits = tiny.model().lm_head(hidden[0])
            cos, sin = text.rotary_emb(embeddings, positions)
        half = settings.head_dim // 2
        outputs = engine.run(
            {
                "embeddings": embeddings[0].numpy(),
                "deepstack": deepstack.numpy(),
                "cos": np.ascontiguousarray(cos[0, :, :half]),
                "sin": np.ascontiguousarray(sin[0, :, :half]),
                "keys": keys,
                "values": values,
                "past_length": np.asarray([past], np.int64),
                "asked": np.arange(tokens),
            }
        )
        tiny.assert_same(outputs["logits"], logits)
        assert outputs["new_keys"].shape == (*shape[:2], tokens, shape[3])
        for layer in range(settings.num_hidden_layers):
            new = cache.layers[layer].keys[0, :, past:]
            tiny.assert_same(outputs["new_keys"][layer], new)
        keys[:, :, past : past + tokens] = outputs["new_keys"]
        values[:, :, past : past + tokens] = outputs["new_values"]
        past += tokens


def test_graphs_are_fp32_opset_20_with_constant_weights(exported: Path) -> None:
    for name in ("vision", "decoder"):
        graph = onnx.load(str(exported / f"{name}.onnx"))
        assert [entry.version for entry in graph.opset_import if not entry.domain] == [OPSET]
        constants = {initialiser.name for initialiser in graph.graph.initializer}
        products = [node for node in graph.graph.node if node.op_type in ("MatMul", "Gemm")]
        weighted = [node for node in products if node.input[1] in constants]
        # The decoder attends to its cache and to the new tokens with two products each.
        blocks = tiny.model().model.visual.blocks
        attention = 2 * len(blocks) if name == "vision" else 4 * len(tiny.model().model.language_model.layers)
        assert len(products) - len(weighted) == attention  # every other product has a constant weight


def test_merged_adapter_is_the_adapted_model(tmp_path: Path, checkpoint: Path) -> None:
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=r".*language_model.*(q_proj|down_proj)", init_lora_weights=False
    )
    torch.manual_seed(0)
    adapted = get_peft_model(load_vlm(checkpoint, None), config).eval()
    adapted.save_pretrained(str(tmp_path / "adapter"))
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = adapted(input_ids=ids).logits
        plain = tiny.model()(input_ids=ids).logits
        merged = load_vlm(checkpoint, tmp_path / "adapter")(input_ids=ids).logits
    tiny.assert_same(merged, expected)
    assert (plain - merged).abs().max() > 0.01


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MemrtError, match=r"model\.safetensors"):
        load_vlm(tmp_path, None)


@pytest.mark.parametrize("config", ["{}", '{"model_type": "gpt2"}', "not JSON"])
def test_another_architecture_is_refused(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(MemrtError, match=r"config\.json|architecture"):
        load_vlm(tmp_path, None)
