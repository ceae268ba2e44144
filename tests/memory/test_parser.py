import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.memory.parser import Reply, format_reply, parse_reply


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (  # the report's own example, section 4.2
            "pick up the red cube <106, 110>\n<mem>I pressed the button <68, 102>.</mem>\n<spatial_mem>Bin lower-left "
            "empty.\n  Visible cubes: red <106, 110>.</spatial_mem>",
            Reply(
                "pick up the red cube <106, 110>",
                "I pressed the button <68, 102>.",
                "Bin lower-left empty.\n  Visible cubes: red <106, 110>.",
            ),
        ),
        ("press the button", Reply("press the button")),
        ("", Reply("")),
        (" \n", Reply("")),
        ("go<mem>a</mem>", Reply("go", "a")),
        ("go\n<mem>a\nb</mem>\nmore", Reply("go", "a\nb")),
        ("go<mem> a ", Reply("go", "a")),
        ("go<mem>a<spatial_mem>b</spatial_mem>", Reply("go", "a", "b")),
        ("go<mem>a<spatial_mem>b", Reply("go", "a", "b")),
        ("go<spatial_mem>b", Reply("go", None, "b")),
        ("go<spatial_mem>b</spatial_mem><mem>a</mem>", Reply("go", "a", "b")),
        ("<mem>a</mem>go", Reply("", "a")),
        ("go<mem></mem>", Reply("go", "")),
        ("go<mem>a</mem><mem>b</mem>", Reply("go", "a")),
        ("go</mem>", Reply("go</mem>")),
        ("go<mem>cube <12, 34></mem>", Reply("go", "cube <12, 34>")),
    ],
)
def test_rules(text, reply):
    assert parse_reply(text) == reply


plain = st.text(max_size=60).filter(lambda text: "mem>" not in text).map(str.strip)


@given(plain, st.none() | plain, st.none() | plain)
def test_round_trip(subgoal, action_memory, spatial_memory):
    reply = Reply(subgoal, action_memory, spatial_memory)
    assert parse_reply(format_reply(reply)) == reply


tags = st.sampled_from(["<mem>", "</mem>", "<spatial_mem>", "</spatial_mem>", "<", ">", "\n", " "])


@given(st.lists(tags | st.text(max_size=10), max_size=12).map("".join))
def test_any_text_is_taken_apart(text):
    reply = parse_reply(text)
    assert "<mem>" not in reply.subgoal
    assert "<spatial_mem>" not in reply.subgoal
    assert text.strip().startswith(reply.subgoal)
    assert (reply.action_memory is None) == ("<mem>" not in text)
    assert (reply.spatial_memory is None) == ("<spatial_mem>" not in text)
    for part in (reply.subgoal, reply.action_memory or "", reply.spatial_memory or ""):
        assert part in text
        assert part == part.strip()
