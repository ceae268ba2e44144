"""Qwen3-VL checkpoint and LoRA adapter to ONNX graphs, embedding table, tokenizer and settings of a bundle's `hl`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration

from memrt.export.merge import merge_adapter
from memrt.export.vlm_modules import DecoderGraph, VisionGraph
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.chat import END_OF_TEXT, IMAGE_PAD, TURN_END
from memrt.runtime.policy.vlm_config import VlmConfig, write_vlm_config

OPSET = 20  # fp32 graphs for ONNX Runtime; TensorRT's fp16 graphs need 23
CAPACITY = 768  # K/V rows: the longest prompt of the action-memory policies is under 300 tokens, a reply under 128
IMAGE_SIZE = 256  # report: 256x256, not resized
VISION_INPUTS = ("image",)
VISION_OUTPUTS = ("tokens", "deepstack")
DECODER_INPUTS = ("embeddings", "deepstack", "cos", "sin", "keys", "values", "past_length")
DECODER_OUTPUTS = ("logits", "new_keys", "new_values")


def load_vlm(weights_dir: Path, adapter_dir: Path | None) -> Qwen3VLForConditionalGeneration:
    """The fp32 model with the adapter's LoRA merged into its weights. Raises MemrtError when a folder is missing."""
    for folder, file in ((weights_dir, "model.safetensors*"), (adapter_dir, "adapter_model.safetensors")):
        if folder is not None and not list(folder.glob(file)):
            raise MemrtError(
                f"checkpoint {folder}",
                expected=f"a folder with {file.rstrip('*')}",
                found="no such file",
                fix="train it (memrt train) or name its folder in the policy's high_level settings",
            )
    model = Qwen3VLForConditionalGeneration.from_pretrained(
        str(weights_dir), dtype=torch.float32, attn_implementation="sdpa"
    )
    if adapter_dir is not None:
        merged = merge_adapter(model, adapter_dir)
        assert isinstance(merged, Qwen3VLForConditionalGeneration)
        model = merged
    return model.eval()


def vlm_config(model: Qwen3VLForConditionalGeneration, capacity: int, image_size: int) -> VlmConfig:
    """The runtime's settings of `model`."""
    text, vision = model.config.text_config, model.config.vision_config
    side = image_size // (int(vision.patch_size) * vision.spatial_merge_size)
    first, second, third = text.rope_parameters["mrope_section"]
    return VlmConfig(
        layers=text.num_hidden_layers,
        kv_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        width=text.hidden_size,
        vocabulary=text.vocab_size,
        deepstack_layers=len(vision.deepstack_visual_indexes),
        capacity=capacity,
        rope_theta=float(text.rope_parameters["rope_theta"]),
        mrope_section=(first, second, third),
        image_size=image_size,
        visual_grid=(side, side),
        image_token=IMAGE_PAD,
        stop_tokens=(TURN_END, END_OF_TEXT),
    )


def export_vlm(
    weights_dir: Path,
    adapter_dir: Path | None,
    out_dir: Path,
    *,
    capacity: int = CAPACITY,
    image_size: int = IMAGE_SIZE,
) -> None:
    """Write `vision.onnx`, `decoder.onnx` (fp32, opset 20), `embed.npy`, `tokenizer.json` and `config.json`."""
    out_dir.mkdir(parents=True, exist_ok=True)
    model = load_vlm(weights_dir, adapter_dir)
    config = vlm_config(model, capacity, image_size)
    vision = VisionGraph(model, image_size)
    image = torch.zeros(image_size, image_size, 3, dtype=torch.uint8)
    _export(vision, (image,), out_dir / "vision.onnx", VISION_INPUTS, VISION_OUTPUTS, None)
    length = torch.export.Dim("length", min=1, max=capacity)
    shapes = ({0: length}, {1: length}, {0: length}, {0: length}, None, None, None)
    _export(
        DecoderGraph(model), decoder_example(config), out_dir / "decoder.onnx", DECODER_INPUTS, DECODER_OUTPUTS, shapes
    )
    embedding = model.model.language_model.embed_tokens.weight.detach().float().numpy()
    np.save(out_dir / "embed.npy", np.ascontiguousarray(embedding), allow_pickle=False)
    shutil.copyfile(weights_dir / "tokenizer.json", out_dir / "tokenizer.json")
    write_vlm_config(config, out_dir / "config.json")


def decoder_example(config: VlmConfig, tokens: int = 5) -> tuple[Tensor, ...]:
    """Zero inputs of the right shapes for `tokens` new tokens."""
    cache = torch.zeros(config.layers, config.kv_heads, config.capacity, config.head_dim)
    return (
        torch.zeros(tokens, config.width),
        torch.zeros(config.deepstack_layers, tokens, config.width),
        torch.zeros(tokens, config.head_dim // 2),
        torch.zeros(tokens, config.head_dim // 2),
        cache,
        cache.clone(),
        torch.zeros(1, dtype=torch.int64),
    )


def _export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    shapes: tuple[dict[int, torch.export.Dim] | None, ...] | None,
) -> None:
    with torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)
