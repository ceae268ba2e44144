import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.errors import MemrtError
from memrt.runtime.strict_config import convert, nearest


class Leaf(msgspec.Struct, forbid_unknown_fields=True):
    size: int = 1


class Tree(msgspec.Struct, forbid_unknown_fields=True):
    leaf: Leaf = msgspec.field(default_factory=Leaf)
    maybe: Leaf | None = None
    named: dict[str, Leaf] = {}
    rows: list[Leaf] = []
    pairs: tuple[Leaf, ...] = ()


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"leaf": {"sise": 1}}, "leaf.sise"),
        ({"maybe": {"sise": 1}}, "maybe.sise"),
        ({"named": {"oak": {"sise": 1}}}, "named.oak.sise"),
        ({"rows": [{"size": 1}, {"sise": 1}]}, "rows.1.sise"),
        ({"pairs": [{"sise": 1}]}, "pairs.0.sise"),
    ],
)
def test_unknown_key_is_found_at_any_depth(data, key):
    with pytest.raises(MemrtError, match=f"unknown key `{key}` in tree.yaml") as caught:
        convert(data, Tree, "tree.yaml")
    assert f"did you mean `{key.replace('sise', 'size')}`?" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"leaf": {"size": "big"}}, "leaf.size"),
        ({"rows": [{"size": 1}, {"size": None}]}, "rows[1].size"),
        ({"named": {"oak": {"size": []}}}, "named[...].size"),
        ({"maybe": 3}, "maybe"),
    ],
)
def test_wrong_type_is_found_at_any_depth(data, key):
    with pytest.raises(MemrtError) as caught:
        convert(data, Tree, "tree.yaml")
    assert f"key `{key}` in tree.yaml: expected" in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["leaf", "size", "rows", "x"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["leaf", "maybe", "named", "rows", "pairs", "other"]), json_values, max_size=3))
def test_every_mapping_is_accepted_whole_or_refused_in_one_line(data):
    refused = ""
    try:
        tree = convert(data, Tree, "tree.yaml")
    except MemrtError as error:
        refused = str(error)
    if refused:
        assert "tree.yaml" in refused
        assert "\n" not in refused
    else:
        assert data.keys() <= msgspec.to_builtins(tree).keys()


def test_nearest_does_not_guess_wildly():
    assert nearest("horizont", ["horizon", "execute"]) == "horizon"
    assert nearest("zzz", ["horizon", "execute"]) is None
