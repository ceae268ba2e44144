"""The VLM's decoder behind the TensorRT adapter: its K/V cache stays on the device, whatever is reused of it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_qwen as tiny
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from host_graphs import GraphLibrary
from host_tensorrt import HostDevice

from memrt.runtime.bundle import EngineRecord, load_bundle, write_bundle
from memrt.runtime.config import load_policy
from memrt.runtime.engine import TensorRtEngine
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.policy.low_level import LowLevelPolicy
from memrt.runtime.policy.vlm import Generation
from memrt.runtime.policy.vlm_config import read_vlm_config
from memrt.runtime.policy.vlm_session import VlmSession
from memrt.runtime.types import Frame, Observation

SYSTEM, QUESTION, BUDGET = "You are a helpful assistant.", "<image>What next?", 12
CALLS = [(0, QUESTION), (0, QUESTION), (1, QUESTION), (0, "<image>What now?"), (1, QUESTION)]


def on_device(exported: Path, folder: Path, device: HostDevice) -> VlmSession:
    library, engines = GraphLibrary(device), {}
    for name in ("vision", "decoder"):
        path = folder / f"{name}.rtx"
        path.write_bytes((exported / f"{name}.onnx").read_bytes())
        engines[name] = TensorRtEngine(path, library=library, device=device)
    return VlmSession(
        read_vlm_config(exported / "config.json"),
        Tokenizer.from_file(str(exported / "tokenizer.json")),
        np.load(exported / "embed.npy"),
        {"vision": engines["vision"]},
        engines["decoder"],
    )


def said(answer: Generation) -> tuple[str, int, int]:
    return answer.text, answer.new_tokens, answer.reused_tokens


def test_answers_and_reuse_on_the_device_are_those_on_the_host(exported: Path, tmp_path: Path) -> None:
    device = HostDevice()
    there, here = on_device(exported, tmp_path, device), VlmSession.from_folder(exported)
    for number, (image, question) in enumerate(CALLS):
        ours, theirs = (s.generate(SYSTEM, question, [tiny.image(image)], BUDGET) for s in (there, here))
        assert said(ours) == said(theirs)
        assert (ours.reused_tokens > 0) == (number > 0)
    there.forget()
    assert there.generate(SYSTEM, QUESTION, [tiny.image(0)], BUDGET).reused_tokens == 0
    there.close()
    assert (device.memory, device.streams) == ({}, [])


def test_the_cache_never_crosses(exported: Path, tmp_path: Path) -> None:
    device = HostDevice()
    session = on_device(exported, tmp_path, device)
    session.generate(SYSTEM, QUESTION, [tiny.image(0)], BUDGET)
    device.uploaded.clear()
    answer = session.generate(SYSTEM, QUESTION, [tiny.image(0)], BUDGET)
    config = session.config
    assert answer.new_tokens > 1
    # The prompt's last token gives the answer's first, and so on: one row is computed per new token, in two runs: that
    # one, and the rest of the answer, drafted. What a run is told beside its rows is `past_length`.
    per_token = 4 * (config.width * (1 + config.deepstack_layers) + config.head_dim) + 8
    assert sum(device.uploaded) == answer.new_tokens * per_token + 2 * 8


def test_half_a_bundle_opens_its_half(exported: Path, tmp_path: Path) -> None:
    staging, engines = tmp_path / "staging", {}
    (staging / "hl").mkdir(parents=True)
    for path in exported.iterdir():
        (staging / "hl" / path.name).write_bytes(path.read_bytes())
    for name in ("vision", "decoder"):
        record = EngineRecord(file=f"hl/{name}.onnx", precision="fp32", inputs=(), outputs=())
        engines[f"hl/{name}"] = record
    write_bundle(staging, tmp_path / "half", policy=load_policy("am_grounded"), precision="fp32", engines=engines)
    bundle = load_bundle(tmp_path / "half")
    policy = HighLevelPolicy(bundle)
    observation = Observation(5, np.zeros(8), {"front": Frame("front", 1, 5, tiny.image(0))})
    state = policy.initial()
    reply = policy.call("stack the cubes", observation, state).reply
    request = policy.memory.request(state, "stack the cubes")
    alone = VlmSession.from_folder(exported).generate(request.system, request.user, [tiny.image(0)], 128)
    assert reply == alone.text
    with pytest.raises(MemrtError, match=r"not a whole policy: expected engines of ll .*found only hl"):
        LowLevelPolicy(bundle)
