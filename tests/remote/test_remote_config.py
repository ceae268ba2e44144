import msgspec
import pytest

from memrt.runtime.config import load_policy, policy_from_dict, policy_to_dict
from memrt.runtime.errors import MemrtError
from memrt.runtime.remote_config import Endpoint, endpoint_of


def with_remote(**changes: object) -> dict:
    values = policy_to_dict(load_policy("remote"))
    values["high_level"]["remote"] |= changes
    return values


def test_the_packaged_policy_is_am_grounded_asked_elsewhere():
    remote, base = load_policy("remote"), load_policy("am_grounded")
    assert (remote.memory, remote.low_level) == (base.memory, base.low_level)
    same = {"source": "vlm", "weights": "high_level_base", "adapter": "am_grounded", "remote": None}
    assert msgspec.structs.replace(remote.high_level, **same) == base.high_level
    assert remote.high_level.remote.on_board == "am_grounded"
    assert remote.high_level.vlm_on_board


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:8000/v1", Endpoint(False, "127.0.0.1", 8000, "/v1")),
        ("https://lab.example/served/v1/", Endpoint(True, "lab.example", 443, "/served/v1")),
        ("http://[::1]/v1", Endpoint(False, "::1", 80, "/v1")),
    ],
)
def test_endpoints(url, endpoint):
    assert endpoint_of(url) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1",
        "host:8000/v1",
        "http:///v1",
        "http://host:8000",
        "http://host:99999/v1",
        "http://me:secret@host/v1",
        "http://host/v1?key=1",
        "http://host/v1#x",
        "http://host/v1\r\nX: y",
        "http://höst/v1",
        "",
    ],
)
def test_what_is_no_endpoint(url):
    with pytest.raises(MemrtError, match=r"key `high_level.remote.endpoint` in p.yaml: expected http") as caught:
        policy_from_dict(with_remote(endpoint=url), "p.yaml")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"on_board": ""}, "or `hold`"),
        ({"deadline_s": 3.0}, "less than `time_to_live_s`, 3"),
        ({"deadline_s": 0}, "high_level.remote.deadline_s"),
        ({"extra_body": {"temperature": 1.0}}, "remove it"),
        ({"jpeg_quality": 0}, "jpeg_quality"),
        ({"endpont": "x"}, "did you mean `high_level.remote.endpoint`"),
    ],
)
def test_refusals_name_the_key(changes, hint):
    with pytest.raises(MemrtError, match=hint):
        policy_from_dict(with_remote(**changes), "p.yaml")


def test_remote_settings_belong_to_a_remote_source():
    values = policy_to_dict(load_policy("am_grounded"))
    values["high_level"]["remote"] = with_remote()["high_level"]["remote"]
    with pytest.raises(MemrtError, match="given exactly when `source: remote`"):
        policy_from_dict(values, "p.yaml")
    values = with_remote()
    values["high_level"]["remote"] = None
    with pytest.raises(MemrtError, match="given exactly when `source: remote`"):
        policy_from_dict(values, "p.yaml")


def test_a_server_needs_pixels():
    values = policy_to_dict(load_policy("memer"))
    values["high_level"] |= {"source": "remote", "weights": "", "adapter": None}
    values["high_level"]["remote"] = with_remote()["high_level"]["remote"]
    policy_from_dict(values, "p.yaml")
    values["memory"]["keyframes"]["keep"] = "vision_tokens"
    with pytest.raises(MemrtError, match=r"`jpeg` with `high_level\.source: remote`"):
        policy_from_dict(values, "p.yaml")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("based_on: am_grounded\n", "add `name`"),
        ("name: mine\nbased_on: am_groundet\n", "did you mean `am_grounded`"),
        ("name: mine\nbased_on: remote\n", "write `based_on: am_grounded`"),
    ],
)
def test_what_a_policy_cannot_be_based_on(tmp_path, text, hint):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(MemrtError, match=hint):
        load_policy(path)


def test_parts_that_a_file_gives_replace_the_others(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nbased_on: oracle_simple\nhigh_level: {source: none}\n")
    mine, base = load_policy(path), load_policy("oracle_simple")
    assert (mine.name, mine.high_level.source) == ("mine", "none")
    assert (mine.memory, mine.low_level) == (base.memory, base.low_level)
