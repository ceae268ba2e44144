"""A VLM checkpoint and its LoRA adapter to ONNX graphs, embedding table, tokenizer and settings of a bundle's `hl`.

Both families share the decoder graph; each has a vision graph, exported once per image size.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memrt.export.merge import merge_adapter
from memrt.export.onnx_graph import write_graph
from memrt.export.vlm_decoder import DecoderGraph, head_dim
from memrt.export.vlm_families import family_of, vision_graph
from memrt.export.vlm_family import Size
from memrt.export.vlm_patches import PatchGrid
from memrt.export.vlm_processor import read_resize
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.chat import END_OF_TEXT, IMAGE_PAD, TURN_END
from memrt.runtime.policy.vlm_config import ImageSize, Resize, VlmConfig, write_vlm_config
from memrt.runtime.policy.vlm_image import resized

VISION_INPUTS = ("image",)
DECODER_OUTPUTS = ("logits", "new_keys", "new_values")
ASKED = "answers"  # the dimension of the tokens whose logits are wanted


def vision_outputs(config: Any) -> tuple[str, ...]:
    """Outputs of the vision graph of a transformers config: `tokens`, and `deepstack` where the family has it."""
    return family_of(config).vision_outputs


def decoder_inputs(config: Any) -> tuple[str, ...]:
    """Inputs of the decoder graph of a transformers config, in the order of `DecoderGraph.forward`."""
    inputs = ("embeddings", "cos", "sin", "keys", "values", "past_length", "asked")
    return (*inputs, "deepstack") if family_of(config).deepstack_layers(config) else inputs


def load_vlm(weights_dir: Path, adapter_dir: Path | None) -> Any:
    """The fp32 transformers model of either family, with the adapter's LoRA merged into its weights.

    Raises MemrtError when a folder is missing or holds another architecture.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    for folder, file in ((weights_dir, "model*.safetensors"), (adapter_dir, "adapter_model.safetensors")):
        if folder is not None and not list(folder.glob(file)):
            raise MemrtError(
                f"checkpoint {folder}",
                expected=f"a folder with {file.replace('*', '')}",
                found="no such file",
                fix="train it (memrt train) or name its folder in the policy's high_level settings",
            )
    try:
        family_of(AutoConfig.from_pretrained(str(weights_dir)))
    except (OSError, ValueError, KeyError) as error:
        raise MemrtError(
            f"checkpoint {weights_dir}",
            expected="the config.json of a VLM that transformers knows",
            found=error,
            fix="restore the file that belongs to this checkpoint",
        ) from error
    model: Any = AutoModelForImageTextToText.from_pretrained(
        str(weights_dir), dtype=torch.float32, attn_implementation="sdpa"
    )
    if adapter_dir is not None:
        model = merge_adapter(model, adapter_dir)
    return model.eval()


def vlm_config(config: Any, capacity: int, image_sizes: Sequence[Size], *, resize: Resize | None = None) -> VlmConfig:
    """The runtime's settings of a transformers config, for vision engines of `image_sizes` (height, width).

    `resize` is what `read_resize` found in the checkpoint. Raises MemrtError for sizes that are not whole blocks of
    patches and for architectures that cannot be exported.
    """
    text, family = config.text_config, family_of(config)
    first, second, third = text.rope_parameters["mrope_section"]
    grids = [PatchGrid.of(config.vision_config, size).tokens for size in image_sizes]
    return VlmConfig(
        layers=text.num_hidden_layers,
        kv_heads=text.num_key_value_heads,
        head_dim=head_dim(text),
        width=text.hidden_size,
        vocabulary=text.vocab_size,
        deepstack_layers=family.deepstack_layers(config),
        capacity=capacity,
        rope_theta=float(text.rope_parameters["rope_theta"]),
        mrope_section=(first, second, third),
        mrope_layout=family.mrope_layout,
        image_sizes=tuple(
            ImageSize(height=size[0], width=size[1], grid=grid) for size, grid in zip(image_sizes, grids, strict=True)
        ),
        resize=resize,
        image_token=IMAGE_PAD,
        stop_tokens=(TURN_END, END_OF_TEXT),
    )


def engine_sizes(image_sizes: Sequence[Size], resize: Resize | None) -> tuple[Size, ...]:
    """What the image processor makes of frames of these sizes, each once: the sizes to export engines for."""
    rounded = [size if resize is None else resized(*size, resize) for size in image_sizes]
    return tuple(dict.fromkeys(rounded))


def export_vlm(
    weights_dir: Path,
    adapter_dir: Path | None,
    out_dir: Path,
    *,
    capacity: int,
    image_sizes: Sequence[Size],
) -> VlmConfig:
    """Write the vision graphs, `decoder.onnx` (fp32, opset 20), `embed.npy`, `tokenizer.json` and `config.json`.

    `capacity` is the number of K/V rows. `image_sizes` are those of the camera's frames; each gets the engine of the
    size that the checkpoint's image processor makes of it: `vision.onnx`, or `vision_<height>x<width>.onnx` when there
    are several.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    model = load_vlm(weights_dir, adapter_dir)
    resize = read_resize(weights_dir, family_of(model.config), model.config.vision_config)
    config = vlm_config(model.config, capacity, engine_sizes(image_sizes, resize), resize=resize)
    for size in config.image_sizes:
        path = out_dir / f"{config.vision_graph(size)}.onnx"
        example = (torch.zeros(*size.pixels, 3, dtype=torch.uint8),)
        write_graph(vision_graph(model, size.pixels), example, path, VISION_INPUTS, vision_outputs(model.config), None)
    inputs = decoder_inputs(model.config)
    shapes = decoder_shapes(model.config, capacity)
    example = decoder_example(config)
    write_graph(DecoderGraph(model), example, out_dir / "decoder.onnx", inputs, DECODER_OUTPUTS, shapes)
    embedding = model.model.language_model.embed_tokens.weight.detach().float().numpy()
    np.save(out_dir / "embed.npy", np.ascontiguousarray(embedding), allow_pickle=False)
    shutil.copyfile(weights_dir / "tokenizer.json", out_dir / "tokenizer.json")
    write_vlm_config(config, out_dir / "config.json")
    return config


def decoder_shapes(config: Any, capacity: int) -> tuple[dict[int, Any] | None, ...]:
    """`dynamic_shapes` of the decoder graph of a transformers config.

    1 to `capacity` new tokens, the logits of any number of them, all else static.
    """
    length = torch.export.Dim("length", min=1, max=capacity)
    asked = torch.export.Dim(ASKED, min=1, max=capacity)
    axes = {"embeddings": {0: length}, "cos": {0: length}, "sin": {0: length}, "asked": {0: asked}}
    axes["deepstack"] = {1: length}
    return tuple(axes.get(name) for name in decoder_inputs(config))


def decoder_example(config: VlmConfig, tokens: int = 5) -> tuple[Tensor, ...]:
    """Zero inputs of the right shapes for `tokens` new tokens, in the order of `decoder_inputs`."""
    cache = torch.zeros(config.layers, config.kv_heads, config.capacity, config.head_dim)
    inputs = (
        torch.zeros(tokens, config.width),
        torch.zeros(tokens, config.head_dim // 2),
        torch.zeros(tokens, config.head_dim // 2),
        cache,
        cache.clone(),
        torch.zeros(1, dtype=torch.int64),
        torch.arange(2),
    )
    if not config.deepstack_layers:
        return inputs
    return (*inputs, torch.zeros(config.deepstack_layers, tokens, config.width))
