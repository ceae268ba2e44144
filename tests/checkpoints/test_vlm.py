from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from checkpoint_folders import FAMILIES, write_adapter, write_vlm  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from memrt.export.checkpoints.safetensors_folder import INDEX, SINGLE  # noqa: E402
from memrt.export.checkpoints.vlm import open_vlm  # noqa: E402
from memrt.export.checkpoints.vlm_family import EMBEDDING, HEAD  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402

QWEN3 = "qwen3_vl"


@pytest.fixture(scope="module", params=list(FAMILIES))
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict]:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, write_vlm(folder, request.param).state_dict()


def copy(folder: Path, to: Path) -> Path:
    for file in ("config.json", "tokenizer.json", SINGLE):
        (to / file).write_bytes((folder / file).read_bytes())
    return to


def edit_config(folder: Path, **change: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))


def test_serves_the_state_dict_of_transformers(saved: tuple) -> None:
    family, folder, state = saved
    opened = open_vlm(folder)
    assert opened.family == family
    assert opened.source.names() == tuple(sorted(state))
    for name, tensor in state.items():
        assert torch.equal(opened.source.read(name), tensor), name
    assert opened.config.text_config.hidden_size == 64
    assert Tokenizer.from_str(opened.tokenizer.decode()).token_to_id("<|im_end|>") is not None


def test_reads_shards_as_one(saved: tuple, tmp_path: Path) -> None:
    family, _, state = saved
    write_vlm(tmp_path, family, max_shard_size="500KB")
    assert (tmp_path / INDEX).is_file()
    source = open_vlm(tmp_path).source
    assert len(source.fingerprint()) > 2
    assert all(torch.equal(source.read(name), tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    "layout",
    [
        {"visual": "visual.", "text": "model.", "head": "lm_head."},  # before transformers 4.52
        {"visual": "visual.", "text": "language_model.model.", "head": "language_model.lm_head."},
        {"visual": "model.visual.", "text": "model.language_model.", "head": "lm_head."},
    ],
)
def test_reads_older_layouts(saved: tuple, tmp_path: Path, layout: dict) -> None:
    _, folder, state = saved
    copy(folder, tmp_path)
    renamed = {}
    for name, tensor in state.items():
        old = name.replace("model.visual.", layout["visual"]).replace("model.language_model.", layout["text"])
        renamed[old.replace("lm_head.", layout["head"])] = tensor.clone()
    save_file(renamed, tmp_path / SINGLE)
    source = open_vlm(tmp_path).source
    assert source.names() == tuple(sorted(state))
    assert all(torch.equal(source.read(name), tensor) for name, tensor in state.items())


def test_a_tied_head_is_the_embedding_whichever_is_stored(tmp_path: Path) -> None:
    state = write_vlm(tmp_path, QWEN3).state_dict()
    tensors = load_file(tmp_path / SINGLE)
    assert HEAD not in tensors
    tensors[HEAD] = tensors.pop(EMBEDDING)
    save_file(tensors, tmp_path / SINGLE)
    source = open_vlm(tmp_path).source
    assert torch.equal(source.read(HEAD), state[EMBEDDING])
    assert torch.equal(source.read(EMBEDDING), state[EMBEDDING])


def test_blends_with_the_pretrained_weights(saved: tuple, tmp_path: Path) -> None:
    family, folder, pretrained = saved
    tuned = write_vlm(tmp_path / "tuned", family, seed=7)
    merged = write_adapter(tmp_path / "adapter", tuned).state_dict()
    opened = open_vlm(tmp_path / "tuned", tmp_path / "adapter", pretrained=folder, fine_tuned_share=0.8)
    for name in opened.source.names():
        torch.testing.assert_close(
            opened.source.read(name), 0.2 * pretrained[name] + 0.8 * merged[name], rtol=0, atol=1e-6
        )
    assert {file.partition("/")[0] for file in opened.source.fingerprint()} >= {"adapter", "pretrained"}
    with pytest.raises(MemrtError, match="share together"):
        open_vlm(folder, pretrained=folder)
    with pytest.raises(MemrtError, match="between 0 and 1"):
        open_vlm(folder, pretrained=folder, fine_tuned_share=1.5)


def test_refuses_another_architecture(saved: tuple, tmp_path: Path) -> None:
    _, folder, _ = saved
    copy(folder, tmp_path)
    edit_config(tmp_path, model_type="llava")
    with pytest.raises(MemrtError, match="qwen3_vl or qwen2_5_vl, found llava"):
        open_vlm(tmp_path)


def test_refuses_weights_of_another_size(saved: tuple, tmp_path: Path) -> None:
    _, folder, _ = saved
    copy(folder, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    edit_config(tmp_path, text_config=config["text_config"] | {"intermediate_size": 80})
    with pytest.raises(MemrtError, match=r"down_proj\.weight of shape \[64, 80\], found \[64, 96\]"):
        open_vlm(tmp_path)
    deeper = config["text_config"] | {"num_hidden_layers": 5}
    deeper.pop("layer_types", None)
    edit_config(tmp_path, text_config=deeper)
    with pytest.raises(MemrtError, match=r"missing \['model\.language_model\.layers\.4"):
        open_vlm(tmp_path)
    edit_config(tmp_path, text_config=config["text_config"] | {"num_attention_heads": "many"})
    with pytest.raises(MemrtError, match=r"a qwen\w+ config\.json"):
        open_vlm(tmp_path)


def test_refuses_what_is_not_there(saved: tuple, tmp_path: Path) -> None:
    _, folder, _ = saved
    with pytest.raises(MemrtError, match=r"readable config\.json"):
        open_vlm(tmp_path)
    copy(folder, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(MemrtError, match="tokenizer"):
        open_vlm(tmp_path)
    (tmp_path / SINGLE).unlink()
    with pytest.raises(MemrtError, match=r"model\.safetensors"):
        open_vlm(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(MemrtError, match=r"readable config\.json"):
        open_vlm(tmp_path)


def test_refuses_quantised_weights_at_open(saved: tuple, tmp_path: Path) -> None:
    _, folder, _ = saved
    copy(folder, tmp_path)
    tensors = load_file(tmp_path / SINGLE)
    quantised = {n: t.to(torch.int8) if n.endswith("embed_tokens.weight") else t for n, t in tensors.items()}
    save_file(quantised, tmp_path / SINGLE)
    with pytest.raises(MemrtError, match="found I8"):
        open_vlm(tmp_path)


def test_refuses_an_adapter_of_the_tied_head(tmp_path: Path) -> None:
    """Merged, it would untie head and embedding: no graph has a place for that."""
    model = write_vlm(tmp_path, QWEN3)
    write_adapter(tmp_path / "adapter", model)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    pair = {"A": torch.ones(4, 64), "B": torch.ones(model.config.text_config.vocab_size, 4)}
    head = {f"base_model.model.lm_head.lora_{side}.weight": matrix for side, matrix in pair.items()}
    save_file(load_file(file) | head, file)
    with pytest.raises(MemrtError, match="tied embedding"):
        open_vlm(tmp_path, tmp_path / "adapter")
