"""The TensorRT adapter against a library and a device on the host: profiles, buffers, resident K/V, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from host_tensorrt import CONTENT, HostDevice, Library

from memrt.runtime.engine import TensorRtEngine, open_engine
from memrt.runtime.engine.golden import reproduce
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import TensorSpec

CACHE = np.ones((2, 6, 2), np.float32)


@pytest.fixture
def device() -> HostDevice:
    return HostDevice()


@pytest.fixture
def library(device: HostDevice) -> Library:
    return Library(device)


@pytest.fixture
def engine(tmp_path: Path, device: HostDevice, library: Library) -> TensorRtEngine:
    (tmp_path / "decoder.rtx").write_bytes(CONTENT)
    return TensorRtEngine(tmp_path / "decoder.rtx", high_priority=True, library=library, device=device)


def rows(count: int) -> np.ndarray:
    return np.arange(2 * count, dtype=np.float16).reshape(count, 2)


def test_says_what_it_takes_and_gives(engine: TensorRtEngine, device: HostDevice) -> None:
    assert engine.inputs == (TensorSpec("x", "float16", (-1, 2)), TensorSpec("cache", "float32", (2, 6, 2)))
    assert [spec.name for spec in engine.outputs] == ["y", "rows", "total"]
    assert [p.shapes["x"].maximum for p in engine.profiles] == [(2, 2), (8, 2)]
    assert device.streams == [True]


def test_runs_every_length_in_its_own_profile_with_one_scratch_buffer(
    engine: TensorRtEngine, library: Library, device: HostDevice
) -> None:
    for count in (5, 1, 8, 2, 1):
        found = engine.run({"x": rows(count), "cache": CACHE})
        np.testing.assert_array_equal(found["y"], 2 * rows(count))
        np.testing.assert_array_equal(found["rows"][1], rows(count) + 1)
        assert found["total"] == 24
    assert [context.profile for context in library.engine.contexts] == [1, 0]
    assert sum(memory.nbytes == 64 for memory in device.memory.values()) == 2  # scratch, and rows of the longest call


def test_a_kept_cache_grows_on_the_device_and_never_crosses(engine: TensorRtEngine, device: HostDevice) -> None:
    engine.keep_on_device(["cache", "rows"])
    first = engine.run({"x": rows(3)})
    assert set(first) == {"y", "total"}
    assert first["total"] == 0
    engine.append_rows("cache", "rows", start=0)
    device.uploaded.clear()
    assert engine.run({"x": rows(1)})["total"] == 15 + 21
    engine.append_rows("cache", "rows", start=3)
    assert engine.run({"x": rows(1)})["total"] == 15 + 21 + 1 + 3
    assert device.uploaded == [4, 4]
    with pytest.raises(MemrtError, match="rows do not fit"):
        engine.append_rows("cache", "rows", start=6)


def test_an_input_can_be_read_where_another_engine_left_it(engine: TensorRtEngine, device: HostDevice) -> None:
    second = TensorRtEngine(engine._path, library=Library(device), device=device)
    second.take_from("x", engine, "y")
    with pytest.raises(MemrtError, match="no optimisation profile"):
        second.run({"cache": CACHE})  # the other has not run yet
    for count in (4, 2):
        engine.run({"x": rows(count), "cache": CACHE})
        device.uploaded.clear()
        np.testing.assert_array_equal(second.run({"cache": CACHE})["y"], 4 * rows(count))
        assert device.uploaded == [CACHE.size * 2]
    with pytest.raises(MemrtError, match="cannot take 'x' from 'rows'"):
        second.take_from("x", engine, "rows")


class RuntimeCache:
    def __init__(self) -> None:
        self.content = b"nothing compiled yet"

    def deserialize(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content


class RuntimeConfig:
    """What TensorRT for RTX offers to keep kernels with."""

    def __init__(self) -> None:
        self.cache = RuntimeCache()

    def set_execution_context_allocation_strategy(self, strategy: object) -> None: ...

    def create_runtime_cache(self) -> RuntimeCache:
        return self.cache

    def set_runtime_cache(self, cache: RuntimeCache) -> None: ...


def test_kernels_are_read_and_kept_where_that_is_possible(engine: TensorRtEngine, library, device, tmp_path) -> None:
    config = RuntimeConfig()
    library.engine.create_runtime_config = lambda: config
    kept = tmp_path / "cache" / "decoder.kernels"

    def opened(cache: Path) -> TensorRtEngine:
        return TensorRtEngine(engine._path, runtime_cache=cache, library=library, device=device)

    first = opened(kept)
    config.cache.content = b"compiled"
    first.close()
    assert kept.read_bytes() == b"compiled"
    config.cache.content = b""
    opened(kept).close()
    assert config.cache.content == b"compiled"
    (tmp_path / "file").write_text("")
    opened(tmp_path / "file" / "cache" / "decoder.kernels").close()  # cannot be written: no reason to end a run
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


@pytest.mark.parametrize("name", ["x", "nothing"])
def test_only_tensors_of_fixed_shape_can_be_kept(engine: TensorRtEngine, name: str) -> None:
    with pytest.raises(MemrtError, match=f"cannot keep `{name}`"):
        engine.keep_on_device([name])


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": rows(1)}, r"missing \['cache'\]"),
        ({"x": rows(1).astype(np.float32), "cache": CACHE}, "'x' has another dtype"),
        ({"x": rows(1), "cache": CACHE[:1]}, "'cache' has another shape"),
        ({"x": rows(9), "cache": CACHE}, "no optimisation profile"),
    ],
)
def test_refuses_inputs_that_do_not_fit(engine: TensorRtEngine, feeds, message: str) -> None:
    with pytest.raises(MemrtError, match=message):
        engine.run(feeds)


def test_gives_everything_back(engine: TensorRtEngine, device: HostDevice) -> None:
    engine.run({"x": rows(2), "cache": CACHE})
    engine.close()
    engine.close()
    assert (device.memory, device.streams) == ({}, [])
    with pytest.raises(MemrtError, match="was closed"):
        engine.run({"x": rows(2), "cache": CACHE})


def test_an_engine_of_another_version_is_refused_with_the_reason(tmp_path: Path, library, device) -> None:
    (tmp_path / "old.rtx").write_bytes(b"something older")
    with pytest.raises(MemrtError, match=r"TensorRT for RTX 1\.7 cannot load old\.rtx.*version mismatch"):
        TensorRtEngine(tmp_path / "old.rtx", library=library, device=device)


@pytest.mark.parametrize("suffix", [".rtx", ".engine"])
def test_a_missing_file_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(MemrtError, match="engine file is missing"):
        open_engine(tmp_path / f"none{suffix}")


def test_a_missing_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    (tmp_path / "decoder.engine").write_bytes(CONTENT)
    with pytest.raises(
        MemrtError, match=r"TensorRT is not available: expected the package tensorrt.*memrt\[tensorrt\]"
    ):
        open_engine(tmp_path / "decoder.engine")


def test_a_missing_driver_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    monkeypatch.setattr("memrt.runtime.engine.cuda.LIBRARY", "libcuda-that-is-not-there.so.1")
    (tmp_path / "decoder.rtx").write_bytes(CONTENT)
    with pytest.raises(MemrtError, match="no NVIDIA GPU: expected a GPU with its driver"):
        TensorRtEngine(tmp_path / "decoder.rtx", library=library)


def test_golden_samples_in_float32_serve_an_engine_that_takes_float16(tmp_path: Path, engine: TensorRtEngine) -> None:
    x = rows(4).astype(np.float32)
    arrays = {
        "in/x": x,
        "in/cache": CACHE,
        "out/y": 2 * x,
        "out/rows": np.stack((x, x + 1)),
        "out/total": np.float32([24]),
    }
    np.savez(tmp_path / "golden.npz", **{f"0/{name}": array for name, array in arrays.items()})
    found = reproduce("hl/decoder", engine, tmp_path / "golden.npz", {"cosine": 0.9999, "relative_l2": 1e-3})
    assert found.relative_l2 == 0
