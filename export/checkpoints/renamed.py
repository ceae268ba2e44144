"""A source under other names: older layouts, wrappers' prefixes, tied tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from memrt.export.checkpoints.source import Shape, WeightSource


class RenamedSource:
    """The tensors of `inner` that `origin` names: canonical name → name in `inner` (two names may share one)."""

    def __init__(self, inner: WeightSource, origin: Mapping[str, str], label: str | None = None) -> None:
        self.label = label or inner.label
        self._inner, self._origin = inner, dict(origin)

    def names(self) -> tuple[str, ...]:
        """The canonical names, sorted."""
        return tuple(sorted(self._origin))

    def shape(self, name: str) -> Shape:
        """From the inner source."""
        return self._inner.shape(self._origin[name])

    def read(self, name: str) -> Tensor:
        """From the inner source."""
        return self._inner.read(self._origin[name])

    def fingerprint(self) -> dict[str, str]:
        """The inner source's."""
        return self._inner.fingerprint()
