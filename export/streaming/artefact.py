"""A skeleton made into the graph of one engine: types, smoothing, quantised products, and where each weight lies.

An export may need two graphs over the same weights: the target's, and one that ONNX Runtime can compute here, which
proves the numbers (`proof`). Codes are the same bytes in both; scales and unquantised weights are stored once per type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from memrt.export.plan import Compute, EnginePlan
from memrt.export.quantisers.activations import Activation
from memrt.export.quantisers.compute_type import DATA_TYPES, to_compute_type
from memrt.export.quantisers.insert import CODES, quantise_product
from memrt.export.quantisers.packed import NUMPY_TYPES, TORCH_TYPES
from memrt.export.quantisers.packed import SCHEMES as QUANTISED
from memrt.export.streaming.data_file import DataFile
from memrt.export.streaming.layer_inputs import split_layer_inputs
from memrt.export.streaming.products import Product
from memrt.export.streaming.rotary import fuse_rotations
from memrt.export.streaming.skeleton import OPSET, OPSET_TENSORRT, Skeleton

TENSORRT_ONLY = ("fp8", "nvfp4")
SMOOTHING = "/smoothing"  # after the weight's name: what the product's input is multiplied by, float32 [in]


@dataclass(slots=True)
class Artefact:
    """One graph in the making, and the file that holds the weights it alone needs or shares with the proof."""

    model: ir.Model
    plan: EnginePlan
    compute: Compute
    data: DataFile
    shared: DataFile | None = None

    @classmethod
    def begin(
        cls,
        skeleton: Skeleton,
        plan: EnginePlan,
        data: DataFile,
        *,
        tensorrt: bool,
        keep_fp32: Sequence[str] = (),
        proof_of: Artefact | None = None,
    ) -> Artefact:
        """Types and smoothing, before any weight is read. `keep_fp32` are patterns over node and weight names.

        With `proof_of`, the graph computes in fp32 and finds codes in the other's data file.
        """
        model = skeleton.copy()
        for_onnxruntime = proof_of is not None or not tensorrt
        if for_onnxruntime:
            split_layer_inputs(model)
            fuse_rotations(model)
        compute: Compute = "fp32" if for_onnxruntime else plan.compute
        model.opset_imports[""] = OPSET if for_onnxruntime else OPSET_TENSORRT
        names = product_weights(model)
        for name in names:
            if plan.scheme_of(name) in QUANTISED:
                _insert_smoothing(model, name)
        kept = [name for name in names if plan.scheme_of(name) == "fp32"]
        if compute != "fp32":
            to_compute_type(model, compute, keep_fp32=[*keep_fp32, *kept])
        artefact = cls(model, plan, compute, data)
        artefact.shared = proof_of.data if proof_of is not None else None
        return artefact

    def dtype(self, name: str) -> ir.DataType | None:
        """The type in which the graph wants a weight; None for one that it lacks, or holds already (tables)."""
        value = self.model.graph.initializers.get(name)
        return None if value is None or value.const_value is not None else value.dtype

    def constant(self, name: str, value: Tensor) -> None:
        """Write a weight that is not quantised, in the graph's type for it."""
        dtype = self.dtype(name)
        if dtype is None or self._is_shared(name, dtype):
            return
        compute = next(key for key, data_type in DATA_TYPES.items() if data_type == dtype)
        array = value.detach().to(TORCH_TYPES[compute])
        raw = array.contiguous().view(-1).view(torch.uint8).numpy().data
        self.data.append(name, raw, dtype, tuple(value.shape))

    def product(self, product: Product) -> None:
        """Write a quantised weight: codes (unless the shared file has them), scales, smoothing."""
        name, packed = product.weight_name, product.packed
        assert packed is not None
        if product.smoothed:
            self.data.append_array(f"{name}{SMOOTHING}", product.inverse_smoothing.numpy())
        if self._is_unpacked(packed.scheme):
            self.constant(name, packed.dequantise())
            return
        if self.shared is None:
            self.data.append(f"{name}/quantised", packed.to_bytes(), CODES[packed.scheme], packed.values.shape)
        scale = packed.scale if packed.scheme == "nvfp4" else packed.scale.astype(NUMPY_TYPES[self.compute])
        self.data.append_array(f"{name}/scale", scale)
        if packed.second_scale is not None:
            self.data.append_array(f"{name}/second_scale", np.float32(packed.second_scale).reshape(()))

    def finish(self, path: Path, products: Mapping[str, Product]) -> None:
        """Quantise the products' nodes, bind every weight to its bytes, write the graph to `path`."""
        for product in products.values():
            if product.scheme in QUANTISED and not product.smoothed:
                _remove_smoothing(self.model, product.weight_name)
        for product in products.values():
            if product.scheme in QUANTISED and not self._is_unpacked(product.scheme):
                quantise_product(
                    self.model,
                    product.weight_name,
                    product.scheme,
                    block=self.plan.block,
                    activation=self._activation(product),
                    compute=self.compute,
                )
        for name, value in self.model.graph.initializers.items():
            if value.const_value is None:
                value.const_value = self._find(name, value)
        path.write_bytes(ir.to_proto(self.model).SerializeToString(deterministic=True))

    def _activation(self, product: Product) -> Activation | None:
        """ONNX Runtime fuses unsigned activations only; a symmetric range is the same steps around a zero of 128."""
        activation = product.activation
        if activation is not None and activation[0] == "s8" and self.compute == "fp32":
            return "u8", activation[1], 128
        return activation

    @property
    def opset(self) -> int:
        """The version of ONNX's operators."""
        return int(self.model.opset_imports[""])

    def _is_unpacked(self, scheme: str) -> bool:
        """ONNX Runtime's CPU kernels know neither fp8 nor nvfp4: a proof multiplies by what their codes stand for.

        So it proves graph and weights; how activations are rounded is then known from the torch pass alone.
        """
        return self.shared is not None and scheme in TENSORRT_ONLY

    def _is_shared(self, name: str, dtype: ir.DataType) -> bool:
        return self.shared is not None and name in self.shared.extents and self.shared.extents[name].dtype == dtype

    def _find(self, name: str, value: ir.Value) -> ir.ExternalTensor:
        for file in (self.data, self.shared):
            if file is not None and name in file.extents and file.extents[name].dtype == value.dtype:
                return file.tensor(name)
        raise AssertionError(f"the graph wants {name} as {value.dtype}, which was never written")


def product_weights(model: ir.Model) -> dict[str, int]:
    """The weights [in, out] that only matrix products read, in the order of the graph: name and input channels."""
    found: dict[str, int] = {}
    for node in model.graph:
        if node.op_type == "MatMul" and node.inputs[1] is not None and node.inputs[1].is_initializer():
            weight = node.inputs[1]
            if weight.const_value is None and weight.shape is not None and len(weight.shape) == 2:
                found[str(weight.name)] = int(weight.shape[0])  # type: ignore[arg-type]  # weights are static
    return found


def _insert_smoothing(model: ir.Model, weight_name: str) -> None:
    """Multiply the input of the weight's products by a vector, which the weight was divided by."""
    weight = model.graph.initializers[weight_name]
    assert weight.shape is not None
    vector = ir.Value(
        name=f"{weight_name}{SMOOTHING}",
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape((int(weight.shape[0]),)),  # type: ignore[arg-type]
    )
    model.graph.initializers[str(vector.name)] = vector
    made: dict[int, ir.Value] = {}
    readers = {use.node for use in weight.uses()}
    for node in [node for node in model.graph if node in readers]:
        source = node.inputs[0]
        assert source is not None
        if id(source) not in made:
            name = f"{weight_name}{SMOOTHING}/Mul" + (f"_{len(made) + 1}" if made else "")
            output = ir.Value(name=f"{name}/output", type=source.type, shape=source.shape)
            multiply = ir.node("Mul", [source, vector], name=name, outputs=[output])
            model.graph.insert_before(node, multiply)
            made[id(source)] = output
        node.replace_input_with(0, made[id(source)])


def _remove_smoothing(model: ir.Model, weight_name: str) -> None:
    """Undo `_insert_smoothing`, for a product that is better off without."""
    vector = model.graph.initializers.pop(f"{weight_name}{SMOOTHING}")
    for node in {use.node: None for use in vector.uses()}:
        source = node.inputs[0]
        assert source is not None
        node.outputs[0].replace_all_uses_with(source)
        model.graph.remove(node, safe=True)
