"""What π0.5's graphs are gated against: the training network itself, behind the graphs' inputs and outputs.

Nothing here is shared with the modules that are exported, so a mistake in joining weights cannot agree with itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memrt.train.pi05.gemma import KeyValue
from memrt.train.pi05.model import Pi05, Prefix


class VisionReference(nn.Module):
    """One view uint8 [S, S, 3] → tokens [1, tokens, width]."""

    def __init__(self, model: Pi05) -> None:
        super().__init__()
        self._model = model

    def forward(self, image: Tensor) -> Tensor:
        """The same scaling as `preprocess.normalise_image`."""
        return self._model.embed_images(image.to(torch.float32)[None] / 127.5 - 1.0)


class PrefixReference(nn.Module):
    """Embeddings [1, P, width] at positions int64 [P] → keys and values, each [layers, kv_heads, P, head_dim]."""

    def __init__(self, model: Pi05) -> None:
        super().__init__()
        self._model = model

    def forward(self, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """All positions are valid."""
        keys, values = zip(*self._model.language_model(embeddings, positions[None]), strict=True)
        return torch.cat(keys), torch.cat(values)


class StepReference(nn.Module):
    """x [1, H, d], modulation [norms, 3, width], positions int64 [H], keys and values → velocity [1, H, d]."""

    def __init__(self, model: Pi05) -> None:
        super().__init__()
        self._model = model

    def forward(self, x: Tensor, modulation: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """One draw, no mask."""
        length = torch.as_tensor(keys.shape[2])[None]
        assert torch.equal(positions, length + torch.arange(x.shape[1])), "action tokens follow the prefix's"
        prefix = Prefix(_cache(keys, values), None, length)
        return self._model.velocity(x[:, None], modulation[None, None], prefix)[:, 0]


class RtcStepReference(nn.Module):
    """As `StepReference`, with modulation [2, norms, 3, width] and row int64 [H]: each token's own time."""

    def __init__(self, model: Pi05) -> None:
        super().__init__()
        self._step = StepReference(model)

    def forward(
        self, x: Tensor, modulation: Tensor, row: Tensor, positions: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """As in training, where chunks begin with clean actions."""
        tensor: Tensor = self._step(x, modulation[row], positions, keys, values)
        return tensor


def references(model: Pi05) -> dict[str, nn.Module]:
    """The reference of every graph, by its name."""
    return {
        "vision": VisionReference(model),
        "prefix": PrefixReference(model),
        "step": StepReference(model),
        "step_rtc": RtcStepReference(model),
    }


def _cache(keys: Tensor, values: Tensor) -> list[KeyValue]:
    return [KeyValue(keys[layer : layer + 1], values[layer : layer + 1]) for layer in range(keys.shape[0])]
