from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import checkpoint_folders  # noqa: E402
from pi05_folders import (  # noqa: E402
    norm_stats,
    openpi_config,
    random_state,
    write_lerobot,
    write_openpi,
    write_tokenizer,
)
from safetensors.torch import load_file, save_file  # noqa: E402

from memrt.export.checkpoints.norm_stats import check_norm_stats  # noqa: E402
from memrt.export.checkpoints.pi05 import open_pi05  # noqa: E402
from memrt.export.checkpoints.source import materialise  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402
from memrt.runtime.policy.preprocess import NormStats  # noqa: E402
from memrt.train.pi05.checkpoint import load_model, write_checkpoint  # noqa: E402
from memrt.train.pi05.config import tiny  # noqa: E402
from memrt.train.pi05.model import Pi05  # noqa: E402

CONFIG = openpi_config()
STATE = random_state(CONFIG)
HEAD = "paligemma_with_expert.paligemma.lm_head.weight"
EMBEDDING = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"


def assert_serves(source: object, state: dict) -> None:
    assert source.names() == tuple(sorted(state))
    for name, tensor in state.items():
        assert torch.equal(source.read(name), tensor), name


def edit_config(folder: Path, **change: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))


@pytest.fixture
def openpi(tmp_path: Path) -> Path:
    folder = write_openpi(tmp_path / "openpi", STATE, CONFIG)
    write_tokenizer(folder)
    return folder


def test_reads_openpis_folders_and_infers_their_sizes(openpi: Path) -> None:
    opened = open_pi05(openpi)
    assert opened.config == CONFIG
    assert opened.bos_token == "<bos>"
    assert opened.norm_stats == norm_stats()
    assert opened.source.label == "openpi"
    assert_serves(opened.source, STATE)


def test_reads_norm_stats_of_an_asset_with_a_slash(tmp_path: Path) -> None:
    folder = write_openpi(tmp_path / "openpi", STATE, CONFIG, asset="physical-intelligence/libero")
    write_tokenizer(folder)
    assert open_pi05(folder).norm_stats == norm_stats()


def test_reads_lerobots_folders(tmp_path: Path) -> None:
    folder = write_lerobot(tmp_path / "lerobot", STATE, CONFIG)
    write_tokenizer(tmp_path)
    opened = open_pi05(folder, tokenizer=tmp_path)
    assert (opened.config.denoise_steps, opened.config.max_token_len) == (5, 180)
    assert opened.config.expert == CONFIG.expert
    assert_serves(opened.source, STATE)
    for name, wanted in norm_stats()["norm_stats"].items():
        for key, values in wanted.items():
            assert opened.norm_stats["norm_stats"][name][key] == pytest.approx(values, rel=1e-6)


def test_reads_our_own_folders_as_the_torch_policy_does(tmp_path: Path) -> None:
    config = tiny()
    state = random_state(config)
    write_checkpoint(tmp_path, config, state, bos="<bos>", stats=norm_stats())
    write_tokenizer(tmp_path)
    opened = open_pi05(tmp_path)
    assert opened.config == config
    assert_serves(opened.source, state)
    with torch.device("meta"):
        network = Pi05(opened.config)
    materialise(network, opened.source, "")
    assert all(torch.equal(found, state[name]) for name, found in network.state_dict().items())
    assert load_model(tmp_path).config == config


@pytest.mark.parametrize(
    "moves",
    [
        {"paligemma.model.language_model.": "paligemma.language_model.model."},
        {"paligemma.model.vision_tower.": "paligemma.vision_tower."},
        {"paligemma.model.multi_modal_projector.": "paligemma.multi_modal_projector."},
        {"vision_tower.vision_model.": "vision_tower."},
    ],
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_reads_older_wrappers(openpi: Path, moves: dict, prefix: str) -> None:
    stored = load_file(openpi / "model.safetensors")
    for new, old in moves.items():
        stored = {name.replace(new, old): tensor for name, tensor in stored.items()}
    save_file({f"{prefix}{name}": tensor for name, tensor in stored.items()}, openpi / "model.safetensors")
    assert_serves(open_pi05(openpi).source, STATE)


def test_a_tied_embedding_may_be_stored_as_the_head(openpi: Path) -> None:
    stored = load_file(openpi / "model.safetensors")
    del stored[EMBEDDING]
    save_file(stored, openpi / "model.safetensors")
    assert torch.equal(open_pi05(openpi).source.read(EMBEDDING), STATE[EMBEDDING])


def test_names_given_win_over_the_checkpoints_own(openpi: Path, tmp_path: Path) -> None:
    stats = norm_stats()
    stats["norm_stats"]["state"]["q99"] = [9.0] * 8
    (tmp_path / "norm_stats.json").write_text(json.dumps(stats))
    for given in (tmp_path, tmp_path / "norm_stats.json"):
        assert open_pi05(openpi, norm_stats=given).norm_stats == stats
    random = open_pi05("random:pi05-tiny", norm_stats=tmp_path, tokenizer=openpi / "tokenizer.json")
    assert random.norm_stats == stats
    assert random.tokenizer == (openpi / "tokenizer.json").read_bytes()
    assert NormStats.load(tmp_path / "norm_stats.json").state.dimensions == 8


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"action_dim": 9}, r"9 action dimensions, as config\.json says, found 8"),
        ({"action_horizon": None}, "action_horizon"),
        ({"type": "pi0"}, "type pi05.*found type pi0"),
    ],
)
def test_refuses_a_config_of_other_weights(openpi: Path, change: dict, told: str) -> None:
    edit_config(openpi, **change)
    with pytest.raises(MemrtError, match=told):
        open_pi05(openpi)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"time_mlp_in.weight": None}, r"1 missing \['time_mlp_in\.weight'\]"),
        ({"surprise": torch.zeros(2)}, r"1 unknown \['surprise'\]"),
        ({"time_mlp_in.weight": torch.zeros(20, 21)}, r"time_mlp_in\.weight of shape \[20, 20\], found \[20, 21\]"),
        ({"action_in_proj.weight": None}, r"the tensor action_in_proj\.weight"),
        ({"paligemma_with_expert.gemma_expert.model.norm.weight": torch.zeros(20)}, "adaptive norms.*found π0"),
    ],
)
def test_refuses_other_weights(openpi: Path, change: dict, told: str) -> None:
    stored = {k: t for k, t in (load_file(openpi / "model.safetensors") | change).items() if t is not None}
    save_file(stored, openpi / "model.safetensors")
    with pytest.raises(MemrtError, match=told):
        open_pi05(openpi)


def test_refuses_what_is_not_there(openpi: Path) -> None:
    (openpi / "tokenizer.json").unlink()
    with pytest.raises(MemrtError, match=r"paligemma_tokenizer\.model"):
        open_pi05(openpi)
    content = (openpi / "model.safetensors").read_bytes()
    (openpi / "model.safetensors").write_bytes(content[:-2])
    with pytest.raises(MemrtError, match="as its header says"):
        open_pi05(openpi)
    (openpi / "model.safetensors").unlink()
    with pytest.raises(MemrtError, match="params/, found a folder without"):
        open_pi05(openpi)
    with pytest.raises(MemrtError, match="no such folder"):
        open_pi05(openpi / "nowhere")


def test_refuses_norm_stats_that_do_not_fit(openpi: Path, tmp_path: Path) -> None:
    stats = norm_stats()
    check_norm_stats(stats, 8, 7)
    with pytest.raises(MemrtError, match=r"of state: expected 7 dimensions, as the policy has, found 8"):
        check_norm_stats(stats, 7, 7)
    with pytest.raises(MemrtError, match="of actions: expected 8"):
        check_norm_stats(stats, 8, 8)
    for key in ("q01", "q99"):
        stats["norm_stats"]["state"][key] = [float(key == "q99")] * 9
    (tmp_path / "norm_stats.json").write_text(json.dumps(stats))
    with pytest.raises(MemrtError, match=r"1 to 8 dimensions.*found 9"):
        open_pi05(openpi, norm_stats=tmp_path)
    stats["norm_stats"]["state"]["q01"] = [2.0] * 9
    (tmp_path / "norm_stats.json").write_text(json.dumps(stats))
    with pytest.raises(MemrtError, match="q01 <= q99"):
        open_pi05(openpi, norm_stats=tmp_path)
    del stats["norm_stats"]["state"]["q01"]
    (tmp_path / "norm_stats.json").write_text(json.dumps(stats))
    with pytest.raises(MemrtError, match="quantiles"):
        open_pi05(openpi, norm_stats=tmp_path)


def test_refuses_to_choose_between_robots(openpi: Path) -> None:
    (openpi / "assets" / "other").mkdir()
    (openpi / "assets" / "other" / "norm_stats.json").write_text(json.dumps(norm_stats()))
    with pytest.raises(MemrtError, match="exactly one"):
        open_pi05(openpi)
    assert open_pi05(openpi, norm_stats=openpi / "assets" / "other").norm_stats == norm_stats()


def test_refuses_other_normalisations_of_lerobot(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    folder = write_lerobot(tmp_path / "lerobot", STATE, CONFIG, mode="MEAN_STD")
    with pytest.raises(MemrtError, match=r"QUANTILES.*found MEAN_STD"):
        open_pi05(folder, tokenizer=tmp_path)
    write_lerobot(folder, STATE, CONFIG)
    for file in folder.glob("policy_*_*normalizer_processor.safetensors"):
        save_file({"action.q01": torch.zeros(7), "action.q99": torch.ones(7)}, file)
    with pytest.raises(MemrtError, match=r"observation\.state\.q01 and observation\.state\.q99, found neither"):
        open_pi05(folder, tokenizer=tmp_path)
    for file in folder.glob("policy_*_*normalizer_processor.safetensors"):
        file.unlink()
    with pytest.raises(MemrtError, match="no such file"):
        open_pi05(folder, tokenizer=tmp_path)
    (folder / "policy_preprocessor.json").write_text("{}")
    with pytest.raises(MemrtError, match=r"readable policy_preprocessor\.json"):
        open_pi05(folder, tokenizer=tmp_path)


def test_a_vlm_is_no_pi05(tmp_path: Path) -> None:
    checkpoint_folders.write_vlm(tmp_path, "qwen3_vl")
    with pytest.raises(MemrtError, match=r"the tensor action_in_proj\.weight"):
        open_pi05(tmp_path)
