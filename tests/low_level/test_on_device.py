"""π0.5 behind the TensorRT adapter: keys and values stay on the device, and chunks are ONNX Runtime's, bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_pi05 import random_model

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from host_graphs import GraphLibrary
from host_tensorrt import HostDevice

from memrt.export.pi05_graphs import write_low_level
from memrt.runtime.bundle import Bundle, EngineRecord, load_bundle, write_bundle
from memrt.runtime.config import load_policy
from memrt.runtime.device_cache import DeviceInfo
from memrt.runtime.engine import TensorRtEngine
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.low_level_config import read_low_level_model
from memrt.runtime.policy.low_level_session import LowLevelSession, read_tables
from memrt.runtime.ready_engines import ReadyEngines
from memrt.train.pi05.policy import runtime_model

CARD = DeviceInfo(backend="tensorrt_rtx", version="1.7", name="GeForce RTX 4090", sm=89, driver="13.0")
ENGINES = ("vision", "prefix", "step", "step_rtc")
VOCABULARY = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ll")
    model = random_model(VOCABULARY)
    write_low_level(model, runtime_model(model.config, bos="<bos>"), folder, step_rtc=True)
    return folder


def on_device(folder: Path, device: HostDevice) -> LowLevelSession:
    library, engines = GraphLibrary(device), {}
    for name in ENGINES:
        path = folder / f"{name}.rtx"
        path.write_bytes((folder / f"{name}.onnx").read_bytes())
        engines[name] = TensorRtEngine(path, library=library, device=device)
    return LowLevelSession(read_low_level_model(folder / "config.json"), *read_tables(folder.joinpath), **engines)


def calls(session: LowLevelSession) -> list[np.ndarray]:
    """Chunks from one and two views, prompts of several lengths, with and without a clean beginning."""
    rng, chunks, model = np.random.default_rng(0), [], session.model
    size, shape = model.image_size, (model.horizon, model.action_dim)
    for views, tokens, clean in [(2, 5, 0), (1, 12, 2), (2, 9, 0), (1, 3, 1)]:
        images = rng.integers(0, 256, (views, size, size, 3), dtype=np.uint8)
        noise, beginning = rng.normal(size=(2, *shape)).astype(np.float32)
        found = session.denoise(images, rng.integers(0, VOCABULARY, tokens), noise, beginning[:clean])
        chunks.append(found.actions)
    return chunks


def test_a_chunk_on_the_device_is_the_chunk_on_the_host(folder: Path) -> None:
    device = HostDevice()
    session = on_device(folder, device)
    for ours, theirs in zip(calls(session), calls(LowLevelSession.from_folder(folder)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    session.close()
    assert (device.memory, device.streams) == ({}, [])


def test_keys_and_values_never_cross(folder: Path) -> None:
    device = HostDevice()
    session, model = on_device(folder, device), read_low_level_model(folder / "config.json")
    calls(session)
    device.uploaded.clear()
    image = np.zeros((model.image_size, model.image_size, 3), np.uint8)
    session.denoise([image], np.arange(7), np.zeros((model.horizon, model.action_dim), np.float32))
    prefix = model.vision_tokens + 7
    step = [model.horizon * 8, model.modulation_rows * 3 * model.expert_width * 4, model.horizon * model.action_dim * 4]
    expected = [image.nbytes, prefix * model.width * 4, prefix * 8] + step * model.denoise_steps
    assert sorted(device.uploaded) == sorted(expected)


def test_a_table_in_float16_is_widened_when_it_is_looked_up(folder: Path) -> None:
    host = LowLevelSession.from_folder(folder)
    embedding, modulation = read_tables(folder.joinpath)
    engines = {name: getattr(host, f"_{name}") for name in ENGINES}
    narrow = LowLevelSession(host.model, embedding.astype(np.float16), modulation, **engines)
    rounded = LowLevelSession(host.model, embedding.astype(np.float16).astype(np.float32), modulation, **engines)
    for ours, theirs, exact in zip(calls(narrow), calls(rounded), calls(host), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_allclose(ours, exact, atol=0.05)
    with pytest.raises(MemrtError, match=r"embed.npy: expected float16 or float32.*float64"):
        LowLevelSession(host.model, embedding.astype(np.float64), modulation, **engines)  # type: ignore[arg-type]


@pytest.fixture
def bundle(folder: Path, tmp_path: Path) -> Bundle:
    """Engines under names that are not those of their files."""
    staging = tmp_path / "staging"
    (staging / "ll").mkdir(parents=True)
    engines = {}
    for name in ENGINES[:3]:
        (staging / "ll" / f"compiled_{name}.onnx").write_bytes((folder / f"{name}.onnx").read_bytes())
        engines[f"ll/{name}"] = EngineRecord(
            file=f"ll/compiled_{name}.onnx", precision="fp32", inputs=(), outputs=(), gate={}
        )
    for name in ("config.json", "modulation.npy", "embed.npy"):
        (staging / "ll" / name).write_bytes((folder / name).read_bytes())
    write_bundle(staging, tmp_path / "bundle", policy=load_policy("am_grounded"), precision="fp32", engines=engines)
    return load_bundle(tmp_path / "bundle")


def test_the_manifest_says_which_file_an_engine_is(folder: Path, bundle: Bundle) -> None:
    session, host = LowLevelSession.open(bundle), LowLevelSession.from_folder(folder)
    model = session.model
    image, noise = np.zeros((model.image_size, model.image_size, 3), np.uint8), np.zeros((6, 8), np.float32)
    ours, theirs = (s.denoise([image], np.arange(4), noise).actions for s in (session, host))
    np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(MemrtError, match="expected a bundle with the engine step_rtc"):
        session.denoise([image], np.arange(4), noise, noise[:1])


def test_engines_of_a_gpu_outrank_the_high_level_and_keep_their_kernels(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = {}

    def open_engine(path: Path, **options: object) -> object:
        opened[path.name] = options
        raise MemrtError("here it ends", expected="a GPU", found="none", fix="none")

    monkeypatch.setattr("memrt.runtime.ready_engines.open_engine", open_engine)
    ready = ReadyEngines.of(bundle, device=CARD, cache=tmp_path / "cache")
    with pytest.raises(MemrtError, match="here it ends"):
        LowLevelSession.open(bundle, 2, engines=ready)
    options = opened["compiled_vision.onnx"]
    assert (options["threads"], options["high_priority"]) == (2, True)
    kernels = options["runtime_cache"]
    assert isinstance(kernels, Path)
    assert kernels.name == "ll_vision.kernels"
    assert kernels.is_relative_to(tmp_path / "cache")
    with pytest.raises(MemrtError, match=r"no engine `ll/other` in this bundle: expected one of ll/prefix, ll/step"):
        ready.open("ll/other")
