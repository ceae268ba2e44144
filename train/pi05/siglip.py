"""The SigLIP vision tower of π0.5 (parameter names of the released checkpoint)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from memrt.train.pi05.config import VisionConfig

LAYER_NORM_EPSILON = 1e-6  # SigLIP's; PyTorch's default is 1e-5


class PatchEmbedding(nn.Conv2d):
    """A convolution by name and weight; its patches do not overlap, so it is computed as one matrix product.

    That is faster, and it is a form that int8 engines can take.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, S, S, 3] → [B, tokens, width], row by row from the top left."""
        patch = self.kernel_size[0]
        batch, side = images.shape[0], images.shape[1] // patch
        patches = images.reshape(batch, side, patch, side, patch, 3).permute(0, 1, 3, 5, 2, 4)
        return functional.linear(
            patches.reshape(batch, side * side, 3 * patch * patch), self.weight.flatten(1), self.bias
        )


class SiglipEmbeddings(nn.Module):
    """Patches to tokens, plus one learned position per token."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding = PatchEmbedding(3, config.width, config.patch_size, stride=config.patch_size)
        self.position_embedding = nn.Embedding(config.tokens, config.width)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, S, S, 3] → [B, tokens, width]."""
        return self.patch_embedding(images) + self.position_embedding.weight


class SiglipAttention(nn.Module):
    """Full self-attention with biases."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, tokens, width] → the same shape."""
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))


class SiglipMlp(nn.Module):
    """Two linear layers around a tanh-approximated GELU."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [..., width] → the same shape."""
        return self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))


class SiglipLayer(nn.Module):
    """One pre-normalised block."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPSILON)
        self.self_attn = SiglipAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPSILON)
        self.mlp = SiglipMlp(config)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, tokens, width] → the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class SiglipEncoder(nn.Module):
    """The blocks."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SiglipLayer(config) for _ in range(config.depth))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, tokens, width] → the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class SiglipVisionModel(nn.Module):
    """Images [B, S, S, 3] in [-1, 1] → normalised tokens [B, tokens, width] (no pooling head)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = SiglipEmbeddings(config)
        self.encoder = SiglipEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        """The tower, end to end."""
        return self.post_layernorm(self.encoder(self.embeddings(images)))


class VisionTower(nn.Module):
    """Holds `vision_model`, a level that exists only in the checkpoint's names."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.vision_model = SiglipVisionModel(config)

    def forward(self, images: Tensor) -> Tensor:
        """As `vision_model`."""
        return self.vision_model(images)


class MultiModalProjector(nn.Module):
    """SigLIP's width to the language model's. Unlike text embeddings its output is not scaled by √width."""

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(vision_width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [..., vision width] → [..., width]."""
        return self.linear(tokens)
