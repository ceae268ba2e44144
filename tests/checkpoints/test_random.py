"""Checkpoints from a seed: full sizes, the same bits in any order, values of the right size."""

from __future__ import annotations

import math
import time

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tokenizers import Tokenizer  # noqa: E402

from memrt.export.checkpoints.pi05 import open_pi05  # noqa: E402
from memrt.export.checkpoints.random_weights import parse_random, random_tensor  # noqa: E402
from memrt.export.checkpoints.vlm import open_vlm  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402
from memrt.runtime.policy.preprocess import discretise_state  # noqa: E402

# Parameters of the released models; the VLMs' as the hub counts them (a tied head once).
PARAMETERS = {
    "random:qwen3-vl-4b": 4_437_815_808,
    "random:qwen2.5-vl-7b": 8_292_166_656,
    "random:pi05": 3_353_433_872,
}


PINNED = [15282, -17118, 15362, -17341, 15368, 15393]


def open_any(checkpoint: str):
    return open_pi05(checkpoint) if "pi05" in checkpoint else open_vlm(checkpoint)


@pytest.mark.parametrize("checkpoint", list(PARAMETERS))
def test_has_the_released_size_and_opens_at_once(checkpoint: str) -> None:
    source = open_any(checkpoint).source
    sizes = {name: math.prod(source.shape(name)) for name in source.names()}
    if "4b" in checkpoint:  # listed under both its names
        assert sizes.pop("lm_head.weight") == 151936 * 2560
    assert sum(sizes.values()) == PARAMETERS[checkpoint]
    assert source.label == checkpoint
    assert source.fingerprint() == {"random": checkpoint.removeprefix("random:"), "seed": "0"}


@pytest.mark.parametrize("checkpoint", ["random:qwen3-vl-tiny", "random:qwen2.5-vl-tiny", "random:pi05-tiny"])
def test_gives_the_same_bits_in_any_order_and_others_for_another_seed(checkpoint: str) -> None:
    first, second, other = open_any(checkpoint).source, open_any(checkpoint).source, open_any(f"{checkpoint}:5").source
    names = first.names()
    forwards = {name: first.read(name) for name in names}
    for name in reversed(names):
        again = second.read(name)
        assert again.dtype == torch.bfloat16
        assert again.shape == first.shape(name)
        assert torch.equal(again, forwards[name])
        assert not torch.equal(other.read(name), again), name
    assert other.label == f"{checkpoint}:5"


def test_values_are_those_of_a_version_that_never_changes() -> None:
    """Reports and bundles name `random:<name>` and a seed: the bits behind them are an interface."""
    found = random_tensor(0, "layers.0.weight", (2, 3), 0.0, 0.02)
    assert found.view(torch.int16).flatten().tolist() == PINNED


def test_values_are_normal_and_independent_between_tensors() -> None:
    a, b = (random_tensor(3, name, (1000, 1003), 0.5, 2.0).double() for name in "ab")
    assert abs(float(a.mean()) - 0.5) < 0.01
    assert abs(float(a.std()) - 2.0) < 0.01
    within = float(((a - 0.5).abs() < 2.0).double().mean())
    assert abs(within - 0.6827) < 0.005
    assert abs(float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])) < 0.005
    assert abs(float(torch.corrcoef(torch.stack((a.flatten()[1:], a.flatten()[:-1])))[0, 1])) < 0.005


def test_fills_more_than_a_hundred_million_values_a_second() -> None:
    """Of this process's own time, so that a busy machine does not fail it; the best of seven."""

    def seconds() -> float:
        start = time.process_time()
        random_tensor(0, "speed", (4096, 2048), 0.0, 0.02)
        return time.process_time() - start

    best = min(seconds() for _ in range(7))
    assert 4096 * 2048 / best > 100e6


@pytest.mark.parametrize("name", ["qwen3-vl-4b", "qwen2.5-vl-7b", "qwen3-vl-tiny", "qwen2.5-vl-tiny"])
def test_the_tokenizer_has_qwens_control_tokens_where_the_config_says(name: str) -> None:
    opened = open_vlm(f"random:{name}")
    tokenizer, config = Tokenizer.from_str(opened.tokenizer.decode()), opened.config
    ids = {token: tokenizer.token_to_id(token) for token in ("<|image_pad|>", "<|video_pad|>", "<|im_end|>")}
    assert ids["<|image_pad|>"] == config.image_token_id
    assert ids["<|video_pad|>"] == config.video_token_id
    assert ids["<|im_end|>"] == config.text_config.eos_token_id
    if not name.endswith("tiny"):
        assert (ids["<|im_end|>"], tokenizer.token_to_id("<|endoftext|>")) == (151645, 151643)
        assert tokenizer.token_to_id("<|box_start|>") == 151648
    text = "pick up the <|image_pad|>red cube, élan 抓<|im_end|>"
    encoded = tokenizer.encode(text).ids
    assert max(encoded) < config.text_config.vocab_size
    assert tokenizer.decode(encoded, skip_special_tokens=False) == text


def test_pi05_brings_a_tokenizer_and_norm_stats_that_fit() -> None:
    for name in ("random:pi05", "random:pi05-tiny"):
        opened = open_pi05(name)
        tokenizer = Tokenizer.from_str(opened.tokenizer.decode())
        assert tokenizer.token_to_id(opened.bos_token) is not None
        assert max(tokenizer.get_vocab().values()) < opened.config.vocabulary
        stats = opened.norm_stats["norm_stats"]
        assert {len(stats[part][key]) for part in stats for key in stats[part]} == {8}
    assert opened.config.vocabulary == tokenizer.get_vocab_size()
    low, high = (torch.tensor(stats["state"][key]) for key in ("q01", "q99"))
    rest = torch.tensor([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785, 0.08])
    bins = discretise_state(((rest - low) / (high - low) * 2 - 1).numpy())
    assert ((bins > 0) | (rest.numpy() <= low.numpy())).all()


@pytest.mark.parametrize(
    ("checkpoint", "told"),
    [("random:qwen3-vl-9b", "qwen3-vl-4b, qwen2.5-vl-7b"), ("random:qwen3-vl-4b:x", "whole number")],
)
def test_refuses_unknown_names(checkpoint: str, told: str) -> None:
    with pytest.raises(MemrtError, match=told):
        open_vlm(checkpoint)
    with pytest.raises(MemrtError, match=r"pi05-tiny|whole number"):
        open_pi05(checkpoint)


def test_tells_random_names_from_paths() -> None:
    assert parse_random("random:r16") == ("r16", 0)
    assert parse_random("random:pi05:12") == ("pi05", 12)
    assert parse_random("/weights/random") is None


def test_a_random_adapter_changes_the_language_model_a_little() -> None:
    base, adapted = open_vlm("random:qwen2.5-vl-tiny").source, open_vlm("random:qwen2.5-vl-tiny", "random:r3:1").source
    changed = [name for name in base.names() if not torch.equal(base.read(name).float(), adapted.read(name).float())]
    assert len(changed) == 4 * 7
    assert all("language_model.layers" in name for name in changed)
    assert adapted.label == "random:qwen2.5-vl-tiny + random:r3:1"
    for name in changed:
        weight = base.read(name).float()
        assert 0.001 < float((adapted.read(name) - weight).std() / weight.std()) < 0.1
    for wrong in ("random:16", "random:r0", "random:r"):
        with pytest.raises(MemrtError, match="r<rank>"):
            open_vlm("random:qwen3-vl-tiny", wrong)
