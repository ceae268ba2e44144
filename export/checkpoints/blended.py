"""Weights between two checkpoints: MemER's answer to forgetting after fine-tuning."""

from __future__ import annotations

from torch import Tensor

from memrt.export.checkpoints.source import Shape, WeightSource
from memrt.runtime.errors import MemrtError


class BlendedSource:
    """(1 − α) · pretrained + α · fine-tuned in fp32, tensor by tensor (MemER's high level: α = 0.8)."""

    def __init__(self, pretrained: WeightSource, fine_tuned: WeightSource, share: float) -> None:
        """`share` is α in 0..1. Raises MemrtError unless both hold the same names with the same shapes."""
        what = f"blend of {pretrained.label} and {fine_tuned.label}"
        if not 0.0 <= share <= 1.0:
            raise MemrtError(
                what,
                expected="a fine-tuned share between 0 and 1",
                found=share,
                fix="MemER's is 0.8: 20 % pretrained weights",
            )
        first, second = set(pretrained.names()), set(fine_tuned.names())
        differing = sorted(first ^ second)
        if differing:
            raise MemrtError(
                what,
                expected="the same tensors in both",
                found=f"{len(differing)} in one only, first {differing[0]}",
                fix="name the checkpoint that the fine-tuning started from",
            )
        for name in pretrained.names():
            if pretrained.shape(name) != fine_tuned.shape(name):
                raise MemrtError(
                    what,
                    expected=f"{name} of one shape",
                    found=f"{list(pretrained.shape(name))} and {list(fine_tuned.shape(name))}",
                    fix="name the checkpoint that the fine-tuning started from",
                )
        self.label = f"{1 - share:g} {pretrained.label} + {share:g} {fine_tuned.label}"
        self._pretrained, self._fine_tuned, self._share = pretrained, fine_tuned, share

    def names(self) -> tuple[str, ...]:
        """Those of both."""
        return self._fine_tuned.names()

    def shape(self, name: str) -> Shape:
        """That of both."""
        return self._fine_tuned.shape(name)

    def read(self, name: str) -> Tensor:
        """The blended tensor, fp32."""
        blended = self._pretrained.read(name).float() * (1.0 - self._share)
        return blended.add_(self._fine_tuned.read(name).float(), alpha=self._share)

    def fingerprint(self) -> dict[str, str]:
        """The files of both, those of the pretrained one under `pretrained/`."""
        pretrained = {f"pretrained/{file}": digest for file, digest in self._pretrained.fingerprint().items()}
        return self._fine_tuned.fingerprint() | pretrained | {"fine_tuned_share": f"{self._share:g}"}
