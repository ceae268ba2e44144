"""The arithmetic of the memory verdict, and its advice."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.export.memory_verdict import (
    GIB,
    RUNTIME_BYTES,
    EngineSize,
    activation_bytes,
    judge,
    kv_bytes,
    require_fit,
)
from memrt.export.target import DeviceMemory, load_target
from memrt.runtime.errors import MemrtError

# Qwen3-VL-4B: 36 layers, 8 K/V heads of 128, width 2560, mlp 9728, 32 heads; pi0.5's prefix: Gemma 2B.
DECODER_WEIGHTS = 4_020_000_000
VISION_WEIGHTS = 415_000_000
ACTION_EXPERT = {"ll/vision": 413_000_000, "ll/prefix": 1_980_000_000, "ll/step": 311_000_000}


def policy(decoder: str) -> list[EngineSize]:
    kv = kv_bytes(layers=36, kv_heads=8, rows=2048, head_dim=128)
    peak = activation_bytes(tokens=512, width=2560, mlp=9728, heads=32, context=2048)
    return [
        EngineSize("hl/decoder", {decoder: DECODER_WEIGHTS}, kv_bytes=kv, activation_bytes=peak),
        EngineSize("hl/vision", {"bf16": VISION_WEIGHTS}),
        *(EngineSize(name, {"int8": count}) for name, count in ACTION_EXPERT.items()),
    ]


def test_sizes_are_what_pencil_and_paper_give() -> None:
    assert kv_bytes(layers=36, kv_heads=8, rows=2048, head_dim=128) == 2 * 36 * 8 * 2048 * 128 * 2
    # 512 tokens: two copies of the stream, and the scores of 32 heads against 2048 rows are the widest inner tensor.
    assert activation_bytes(tokens=512, width=2560, mlp=9728, heads=32, context=2048) == 2 * 512 * (5120 + 65536)
    assert activation_bytes(tokens=1, width=4, mlp=100, heads=1, context=1, io_bytes=7) == 2 * (8 + 200) + 7
    size = EngineSize("hl/decoder", {"int4": 1024, "bf16": 8}, kv_bytes=10, activation_bytes=5)
    assert (size.weight_bytes, size.total) == (528 + 16, 528 + 16 + 15)


@given(st.integers(1, 64), st.integers(0, 3), st.integers(0, 40 * GIB), st.integers(0, 4 * GIB), st.booleans())
def test_the_verdict_follows_from_what_is_needed(
    gib: int, reserve: int, weights: int, tables: int, shared: bool
) -> None:
    memory = DeviceMemory(gib=gib + reserve, reserve_gib=reserve, shared=shared)
    found = judge([EngineSize("hl/decoder", {"int8": weights})], memory, host_tables=tables)
    assert found.available == gib * GIB
    assert found.needed == weights + RUNTIME_BYTES + (tables if shared else 0)
    assert (found.verdict == "does not fit") == (found.needed > found.available)
    assert (found.verdict == "fits") == (found.needed <= int(0.9 * found.available))
    assert bool(found.advice) == (found.verdict != "fits")


def test_a_real_policy_fits_a_12_gib_card_with_a_quantised_decoder_only() -> None:
    memory = load_target("rtx").memory
    assert memory is not None
    require_fit(judge(policy("int4"), memory))
    found = judge(policy("bf16"), memory)
    assert found.verdict == "does not fit"
    assert found.advice[0] == "store hl/decoder in int8 (saves 3.74 GiB, enough)"
    with pytest.raises(
        MemrtError, match=r"does not fit the device: expected at most 11\.00 GiB.*store hl/decoder in int8"
    ):
        require_fit(found)
    require_fit(judge(policy("int8"), memory))
    require_fit(judge(policy("bf16"), memory.with_size(24)))


def test_advice_takes_the_narrowest_scheme_when_none_is_enough() -> None:
    found = judge([EngineSize("hl/decoder", {"bf16": 40 * GIB})], DeviceMemory(gib=8, reserve_gib=1, shared=False))
    assert found.advice[0].startswith("store hl/decoder in int4")
    assert "enough" not in found.advice[0]


def test_tables_count_where_memory_is_shared() -> None:
    tables = 151_936 * 2560 * 4
    for name, counted in (("orin", True), ("rtx", False)):
        memory = load_target(name).memory
        assert memory is not None
        assert judge([], memory, host_tables=tables).needed == RUNTIME_BYTES + counted * tables


def test_advice_speaks_of_the_cache_when_the_cache_is_large() -> None:
    engine = EngineSize("hl/decoder", {"int4": 10}, kv_bytes=8 * GIB)
    found = judge([engine], DeviceMemory(gib=8, reserve_gib=1, shared=False))
    assert found.advice[0] == "halve the K/V capacity of hl/decoder (saves 4.00 GiB)"


def test_the_table_and_the_record_hold_every_engine() -> None:
    memory = load_target("orin").memory
    assert memory is not None
    found = judge(policy("int4"), memory.with_size(16), host_tables=GIB)
    lines = found.table().splitlines()
    assert [line.split()[0] for line in lines[1:6]] == [engine.name for engine in found.engines]
    assert f"{found.needed / GIB:.2f}" in next(line for line in lines if line.startswith("needed"))
    assert f"verdict: {found.verdict}" in lines
    record = json.loads(json.dumps(found.to_dict()))
    assert record["engines"]["hl/decoder"]["kv"] == found.engines[0].kv_bytes
