"""Staging: nothing is parsed that nobody vouches for, and what is refused leaves no trace."""

import pytest

from memrt.runtime.deploy.messages import Offer
from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.deploy.target.staging import Staging
from memrt.runtime.errors import MemrtError


@pytest.fixture
def layout(tmp_path):
    layout = Layout(root=tmp_path)
    for folder in (layout.staging, layout.bundles):
        folder.mkdir()
    return layout


@pytest.mark.parametrize(
    ("allow_unsigned", "refusal"), [(False, "the signature of a trusted key"), (True, "manifest.json")]
)
def test_a_manifest_that_nobody_signed_is_not_even_parsed(layout, allow_unsigned, refusal):
    offer = Offer(b"{ no manifest", None, {}, allow_unsigned=allow_unsigned)
    with pytest.raises(MemrtError, match=refusal):
        Staging(layout, offer, trusted=())
    assert list(layout.staging.iterdir()) == []
