"""How many multiply-adds of a written file its runtime does in int8, read from what that runtime makes of the file."""

from __future__ import annotations

import json
import math
import re
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

_INFINITE = re.compile(r"(?<=[ -])inf\b")  # as flatc writes the ends of an activation


def int8_madds_onnx(path: Path) -> int:
    """Of one picture, by the graph that ONNX Runtime has after its own rewriting; a file of one size."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "rewritten.onnx")
        options.log_severity_level = 3  # it warns that the rewritten graph is for this machine
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        rewritten = onnx.load(options.optimized_model_filepath).graph
    # the rewritten graph has operators whose shapes onnx cannot tell, but its layers keep their names
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output)
    }
    outputs = {node.name: shapes[node.output[0]] for node in inferred.node}
    weights = {tensor.name: list(tensor.dims) for tensor in rewritten.initializer}
    total = 0
    for node in rewritten.node:
        if node.op_type == "QLinearConv":
            total += math.prod(outputs[node.name]) * math.prod(weights[node.input[3]][1:])
        elif node.op_type == "QGemm":
            total += math.prod(weights[node.input[3]])
    return total


def int8_madds_executorch(path: Path) -> int:
    """Of one picture, by the graphs that a file hands to XNNPACK."""
    from executorch.backends.xnnpack import serialization
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from executorch.exir._serialize._flatbuffer import _flatc_decompile
    from executorch.exir._serialize._program import deserialize_pte_binary

    program = deserialize_pte_binary(path.read_bytes()).program
    schema = resources.files(serialization).joinpath("schema.fbs").read_bytes()
    total = 0
    for delegate in program.execution_plan[0].delegates:
        if delegate.id != "XnnpackBackend":
            continue
        held = program.backend_delegate_data[delegate.processed.index].data
        header = XNNHeader.from_bytes(held[: XNNHeader.EXPECTED_LENGTH])
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "schema.fbs").write_bytes(schema)
            begin = header.flatbuffer_offset
            (folder / "graph.bin").write_bytes(held[begin : begin + header.flatbuffer_size])
            _flatc_decompile(name, str(folder / "schema.fbs"), str(folder / "graph.bin"))
            total += _int8_madds_xnnpack(json.loads(_INFINITE.sub("Infinity", (folder / "graph.json").read_text())))
    return total


def _int8_madds_xnnpack(graph: dict[str, Any]) -> int:
    dims, kinds = {}, {}
    for value in graph["xvalues"]:
        held = value["xvalue_union"]
        tensor = held.get("tensor_value", held)
        number = tensor.get("id_out", 0)
        dims[number], kinds[number] = tensor.get("dims", []), tensor["datatype"]
    total = 0
    for node in graph["xnodes"]:
        kind, one = node["xnode_union_type"], node["xnode_union"]
        if kind not in ("XNNConv2d", "XNNDepthwiseConv2d", "XNNFullyConnected"):
            continue
        out = one["output_id"]
        if kinds[out] != "xnn_datatype_qint8":
            continue
        weight = dims[one["filter_id"]]
        if kind == "XNNFullyConnected":
            total += math.prod(weight)
        else:
            window = one["kernel_height"] * one["kernel_width"] * one["group_input_channels"]
            total += math.prod(dims[out]) * window
    return total
