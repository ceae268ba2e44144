from __future__ import annotations

import pytest
from product_graphs import WIDTH, quantised, skeleton, weights

from memrt.export.quantisers.audit import audit_products, check_size, weight_products
from memrt.export.quantisers.insert import quantise_product, to_compute_type
from memrt.export.quantisers.packed import SCHEMES, Scheme
from memrt.runtime.errors import MemrtError

ELEMENTS = 2 * WIDTH * WIDTH  # of each of the three weights


@pytest.mark.parametrize("scheme", SCHEMES)
def test_bytes_are_those_that_packing_writes(scheme: Scheme) -> None:
    model, packed = quantised(scheme, compute="bf16")
    audit = audit_products(model, lambda name: scheme)
    expected = sum(len(p.to_bytes()) + len(p.scale_bytes()) + (4 if p.second_scale else 0) for p in packed.values())
    assert audit.nbytes == expected
    assert audit.shares == {scheme: 1.0}
    assert [p.weight for p in audit.products] == ["up.weight", "gate.weight", "down.weight"]
    assert {p.compute for p in audit.products} == {"bf16"}


def test_a_mixed_skeleton_without_data_is_described() -> None:
    model = skeleton()
    to_compute_type(model, "fp16", keep_fp32=["gate.weight"])
    quantise_product(model, "up.weight", "int4", block=64, compute="fp16")
    quantise_product(model, "down.weight", "int8", activation=("s8", 0.1), compute="fp16")
    plan = {"up.weight": "int4", "down.weight": "int8", "gate.weight": "fp32"}
    audit = audit_products(model, plan.__getitem__)
    rows = {p.weight: (p.scheme, p.block, p.activation, p.compute, p.elements) for p in audit.products}
    assert rows == {
        "up.weight": ("int4", 64, "", "fp16", ELEMENTS),
        "gate.weight": ("fp32", 0, "", "fp32", ELEMENTS),
        "down.weight": ("int8", 0, "s8", "fp16", ELEMENTS),
    }
    assert audit.shares == {s: pytest.approx(1 / 3) for s in ("fp32", "int4", "int8")}
    assert len(audit.table().splitlines()) == 4
    assert len(audit.to_dict()["products"]) == 3


def test_silent_fallback_is_refused() -> None:
    model = skeleton(opset=21)
    quantise_product(model, "up.weight", "int4")
    with pytest.raises(MemrtError, match=r"2 of 3 weight products.*gate\.weight is fp32, planned int4"):
        audit_products(model, lambda name: "int4")


@pytest.mark.parametrize(("activation", "name"), [(("s8", 0.1), "s8"), (("u8", 0.1, 128), "u8"), (("fp8", 0.1), "fp8")])
def test_rounded_activations_are_named(activation: tuple[str, float], name: str) -> None:
    model = skeleton()
    quantise_product(model, "up.weight", "int8", activation=activation)  # type: ignore[arg-type]
    assert weight_products(model).products[0].activation == name


def test_dynamic_fp4_is_seen_behind_its_cast() -> None:
    model, _ = quantised("nvfp4", activation=("nvfp4", 0.001), compute="fp16")
    assert {p.activation for p in weight_products(model).products} == {"nvfp4"}


def test_widened_files_are_refused() -> None:
    audit = weight_products(quantised("int4", compute="fp16")[0])
    check_size(audit, audit.nbytes + 500_000)
    sixteen_bits = 2 * sum(weight.numel() for weight in weights().values())
    with pytest.raises(MemrtError, match="too large"):
        check_size(audit, sixteen_bits, slack_bytes=100_000)
