from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from checkpoint_folders import TensorSource  # noqa: E402

from memrt.export.checkpoints.blended import BlendedSource  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402

FIRST = {"a": torch.tensor([0.0, 10.0]).bfloat16(), "b": torch.tensor([[1.0]])}
SECOND = {"a": torch.tensor([5.0, -10.0]), "b": torch.tensor([[3.0]])}


@pytest.mark.parametrize("share", [0.0, 0.25, 0.8, 1.0])
def test_weights_the_two_by_their_shares(share: float) -> None:
    blend = BlendedSource(TensorSource(FIRST, "base"), TensorSource(SECOND, "tuned"), share)
    assert blend.names() == ("a", "b")
    assert blend.shape("b") == (1, 1)
    for name in blend.names():
        wanted = (1 - share) * FIRST[name].float() + share * SECOND[name]
        torch.testing.assert_close(blend.read(name), wanted, rtol=0, atol=1e-6)
    assert torch.equal(SECOND["b"], torch.tensor([[3.0]]))
    assert blend.fingerprint() == {"test": "tuned", "pretrained/test": "base", "fine_tuned_share": f"{share:g}"}


@pytest.mark.parametrize(
    ("other", "told"),
    [({"a": SECOND["a"]}, "1 in one only, first b"), (SECOND | {"a": torch.zeros(3)}, r"a of one shape, found \[2\]")],
)
def test_refuses_two_different_models(other: dict, told: str) -> None:
    with pytest.raises(MemrtError, match=told):
        BlendedSource(TensorSource(FIRST), TensorSource(other), 0.8)
