"""Byte-for-byte reproducible ONNX files: the same weights exported twice give the same SHA-256.

An exporter leaves traces of where and when it ran in a graph: stack traces with source paths, the exporter's version,
counters in node names. None of it computes anything. `canonicalise` removes it, and keeps the one useful piece, the
module each node came from, as the node's name (`layers.0.mlp.up_proj/MatMul`): quantisation patterns and reports
refer to modules, which survive a change of exporter.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from memrt.runtime.errors import MemrtError

PRODUCER = "memrt"
# A protobuf message cannot exceed 2 GiB; above this, weights go to a file beside the graph.
EXTERNAL_DATA_ABOVE = 1_500_000_000
NAME_SCOPES = "pkg.torch.onnx.name_scopes"


def canonicalise(model: Any) -> None:
    """Rewrite a ModelProto in place: node names from modules, no metadata, transposed weights stored transposed."""
    _name_nodes(model)
    _fold_transposed_weights(model)
    _sort_nodes(model)
    _name_weights(model)
    _strip(model)


def save_model(model: Any, path: Path) -> None:
    """Write `model` with deterministic serialisation; weights above 1.5 GB go to `<name>.onnx.data` beside it."""
    import onnx

    path.parent.mkdir(parents=True, exist_ok=True)
    if model.ByteSize() > EXTERNAL_DATA_ABOVE:
        onnx.save_model(
            model, str(path), save_as_external_data=True, all_tensors_to_one_file=True, location=f"{path.name}.data"
        )
        return
    path.write_bytes(model.SerializeToString(deterministic=True))


def graph_bytes(path: Path) -> int:
    """Size of an ONNX file and its external data, in bytes."""
    data = path.with_name(f"{path.name}.data")
    return path.stat().st_size + (data.stat().st_size if data.is_file() else 0)


def _module_of(node: Any) -> str:
    """Dotted module path that produced a node, "" when the exporter did not tell."""
    for entry in node.metadata_props:
        if entry.key == NAME_SCOPES:
            scopes = ast.literal_eval(entry.value)
            return str(scopes[-2]) if len(scopes) > 1 else ""
    return ""


def _name_nodes(model: Any) -> None:
    used: Counter[str] = Counter()
    for node in model.graph.node:
        module = _module_of(node)
        if not module and "/" in node.name:
            module = node.name.rsplit("/", 1)[0]  # already canonical, or named by whoever built the graph
        stem = f"{module or 'graph'}/{node.op_type}"
        used[stem] += 1
        node.name = stem if used[stem] == 1 else f"{stem}_{used[stem]}"


def _fold_transposed_weights(model: Any) -> None:
    """Replace Transpose(weight) by the transposed weight: otherwise no quantiser and no fusion sees a constant."""
    from onnx import numpy_helper

    graph = model.graph
    initialisers = {tensor.name: tensor for tensor in graph.initializer}
    folded = []
    for node in graph.node:
        if node.op_type != "Transpose" or node.input[0] not in initialisers:
            continue
        array = numpy_helper.to_array(initialisers[node.input[0]])
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
        transposed = np.ascontiguousarray(np.transpose(array, order))
        graph.initializer.append(numpy_helper.from_array(transposed, node.output[0]))
        folded.append(node)
    for node in folded:
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for name in {node.input[0] for node in folded} - used:
        graph.initializer.remove(initialisers[name])


def _sort_nodes(model: Any) -> None:
    """Order the nodes so that producers come first, otherwise as they were; tools that insert nodes append them."""
    waiting = list(model.graph.node)
    produced_here = {name for node in waiting for name in node.output}
    ready: set[str] = set()
    ordered: list[Any] = []
    while waiting:
        blocked = []
        for node in waiting:
            if all(name in ready or name not in produced_here for name in node.input):
                ordered.append(node)
                ready.update(node.output)
            else:
                blocked.append(node)
        if len(blocked) == len(waiting):
            raise MemrtError(
                "the graph has a cycle",
                expected="nodes that can be ordered",
                found=f"{len(blocked)} nodes waiting for each other, among them {blocked[0].name}",
                fix="export the graph again",
            )
        waiting = blocked
    copies = [copy.deepcopy(node) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _name_weights(model: Any) -> None:
    """Name the constant operand of each MatMul and Gemm after its module; the first user of a shared one names it."""
    initialisers = {tensor.name: tensor for tensor in model.graph.initializer}
    taken = set(initialisers) | {name for node in model.graph.node for name in node.output}
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        old, new = node.input[1], f"{node.name}/weight"
        if old in initialisers and old not in renamed and new not in taken:
            renamed[old] = new
    for old, new in renamed.items():
        initialisers[old].name = new
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)


def _strip(model: Any) -> None:
    model.producer_name, model.producer_version, model.doc_string, model.domain = PRODUCER, "", "", ""
    model.model_version = 0
    del model.metadata_props[:]
    graph = model.graph
    graph.name, graph.doc_string = "graph", ""
    del graph.metadata_props[:]
    for part in (graph.node, graph.initializer, graph.input, graph.output, graph.value_info, model.functions):
        for item in part:
            item.doc_string = ""
            if hasattr(item, "metadata_props"):
                del item.metadata_props[:]
