"""The mapping of openpi's JAX arrays, held to what the arrays mean: einsums and dense layers on vectors."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pi05_folders import jax_tree, openpi_config  # noqa: E402

from memrt.export.checkpoints.openpi_jax import origins  # noqa: E402
from memrt.export.checkpoints.pi05_names import tensor_shapes  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402
from memrt.train.pi05.model import Pi05  # noqa: E402
from memrt.train.pi05.siglip import SiglipEmbeddings  # noqa: E402

CONFIG = openpi_config()
TREE = jax_tree(CONFIG)
IMG = "PaliGemma/img/Transformer/encoderblock"
LLM = "PaliGemma/llm/layers"


def shapes(tree: dict) -> dict:
    return {name: array.shape for name, array in tree.items()}


@pytest.fixture(scope="module")
def network() -> Pi05:
    model = Pi05(CONFIG)
    tensors = {}
    for name, origin in origins(shapes(TREE), "test").items():
        array = torch.from_numpy(TREE[origin.array])
        part = array if origin.layer is None else array[origin.layer]
        tensors[name] = origin.turn(part)
        assert tuple(tensors[name].shape) == origin.shape(tuple(array.shape))
    model.load_state_dict(tensors)
    return model.eval()


def vector(width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=width).astype(np.float32)


def same(found: torch.Tensor, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_names_every_tensor_of_the_network_once() -> None:
    found = {name: origin.shape(TREE[origin.array].shape) for name, origin in origins(shapes(TREE), "test").items()}
    assert found == tensor_shapes(CONFIG)


@pytest.mark.parametrize("layer", range(CONFIG.prefix.depth))
@pytest.mark.parametrize("suffix", ["", "_1"])
def test_gemma_layers_compute_openpis_einsums(network: Pi05, suffix: str, layer: int) -> None:
    stack = network.expert if suffix else network.language_model
    attention, mlp = stack.layers[layer].self_attn, stack.layers[layer].mlp
    config = CONFIG.expert if suffix else CONFIG.prefix
    x = vector(config.width)
    query = np.einsum("d,ndh->nh", x, TREE[f"{LLM}/attn/q_einsum{suffix}/w"][layer])
    key, value = np.einsum("d,ckdh->ckh", x, TREE[f"{LLM}/attn/kv_einsum{suffix}/w"][layer])
    same(attention.q_proj(torch.from_numpy(x)), query.ravel())
    same(attention.k_proj(torch.from_numpy(x)), key.ravel())
    same(attention.v_proj(torch.from_numpy(x)), value.ravel())
    mixed = vector(config.heads * config.head_dim, 1).reshape(config.heads, config.head_dim)
    out = np.einsum("nh,nhd->d", mixed, TREE[f"{LLM}/attn/attn_vec_einsum{suffix}/w"][layer])
    same(attention.o_proj(torch.from_numpy(mixed.ravel())), out)
    gate, up = np.einsum("d,cdf->cf", x, TREE[f"{LLM}/mlp{suffix}/gating_einsum"][layer])
    same(mlp.gate_proj(torch.from_numpy(x)), gate)
    same(mlp.up_proj(torch.from_numpy(x)), up)
    hidden = vector(config.mlp_width, 2)
    same(mlp.down_proj(torch.from_numpy(hidden)), hidden @ TREE[f"{LLM}/mlp{suffix}/linear"][layer])


def test_norms_and_dense_layers(network: Pi05) -> None:
    x = vector(CONFIG.expert.width)
    for layer in range(CONFIG.expert.depth):
        for name, array in (("input_layernorm", "pre_attention_norm"), ("post_attention_layernorm", "pre_ffw_norm")):
            same(getattr(network.language_model.layers[layer], name).weight, TREE[f"{LLM}/{array}/scale"][layer])
            dense = getattr(network.expert.layers[layer], name).dense
            kernel, bias = (TREE[f"{LLM}/{array}_1/Dense_0/{part}"][layer] for part in ("kernel", "bias"))
            same(dense(torch.from_numpy(x)), x @ kernel + bias)
    for name in ("action_out_proj", "time_mlp_in", "time_mlp_out"):
        same(getattr(network, name)(torch.from_numpy(x)), x @ TREE[f"{name}/kernel"] + TREE[f"{name}/bias"])


@pytest.mark.parametrize("layer", range(CONFIG.vision.depth))
def test_vision_layers_compute_flaxs_attention(network: Pi05, layer: int) -> None:
    block = network.paligemma_with_expert.paligemma.model.vision_tower.vision_model.encoder.layers[layer]
    heads = f"{IMG}/MultiHeadDotProductAttention_0"
    x = vector(CONFIG.vision.width)
    for name, projection in (("query", block.self_attn.q_proj), ("key", block.self_attn.k_proj)):
        wanted = np.einsum("d,dnh->nh", x, TREE[f"{heads}/{name}/kernel"][layer]) + TREE[f"{heads}/{name}/bias"][layer]
        same(projection(torch.from_numpy(x)), wanted.ravel())
    mixed = x.reshape(CONFIG.vision.heads, -1)
    wanted = np.einsum("nh,nhd->d", mixed, TREE[f"{heads}/out/kernel"][layer]) + TREE[f"{heads}/out/bias"][layer]
    same(block.self_attn.out_proj(torch.from_numpy(x)), wanted)
    hidden = x @ TREE[f"{IMG}/MlpBlock_0/Dense_0/kernel"][layer] + TREE[f"{IMG}/MlpBlock_0/Dense_0/bias"][layer]
    same(block.mlp.fc1(torch.from_numpy(x)), hidden)
    same(block.layer_norm2.bias, TREE[f"{IMG}/LayerNorm_1/bias"][layer])


def test_patches_are_a_convolution_over_rows_columns_and_colours(network: Pi05) -> None:
    embeddings = network.paligemma_with_expert.paligemma.model.vision_tower.vision_model.embeddings
    assert isinstance(embeddings, SiglipEmbeddings)
    size, patch = CONFIG.vision.image_size, CONFIG.vision.patch_size
    image = np.random.default_rng(3).normal(size=(size, size, 3)).astype(np.float32)
    tokens = []
    for row in range(0, size, patch):
        for column in range(0, size, patch):
            cut = image[row : row + patch, column : column + patch]
            tokens.append(np.einsum("hwc,hwcd->d", cut, TREE["PaliGemma/img/embedding/kernel"]))
    wanted = np.stack(tokens) + TREE["PaliGemma/img/embedding/bias"] + TREE["PaliGemma/img/pos_embedding"][0]
    with torch.no_grad():
        same(embeddings(torch.from_numpy(image)[None])[0], wanted)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"time_mlp_in/kernel": None}, r"1 missing \['time_mlp_in/kernel'\]"),
        ({f"{LLM}/attn/q_einsum_1/lora_a": (3, 2, 20, 4)}, r"1 unknown .*lora_a"),
        ({f"{LLM}/attn/kv_einsum/w": (3, 2, 2, 24, 4)}, r"found 16 and \[1, 2\]"),
        ({f"{IMG}/MultiHeadDotProductAttention_0/query/kernel": (2, 32, 8, 4)}, "found 8"),
    ],
)
def test_refuses_other_trees(change: dict, told: str) -> None:
    tree = {name: shape for name, shape in (shapes(TREE) | change).items() if shape is not None}
    with pytest.raises(MemrtError, match=told):
        origins(tree, "test")
