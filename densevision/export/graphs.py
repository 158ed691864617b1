"""What is changed in a graph of int8 or float16 so that a runtime computes or keeps it so."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch.export import ExportedProgram


def unsign(graph: Any) -> None:
    """Let the activations of an ONNX graph be uint8, the same values: ONNX Runtime leaves a layer in float whose input
    it has made unsigned, as its kernels want them, and whose output it has not."""
    import onnx_ir

    zeros: dict[int, Any] = {}
    for node in graph:
        zero = node.inputs[2].const_value if node.op_type in ("QuantizeLinear", "DequantizeLinear") else None
        if zero is None or zero.size > 1 or zero.dtype != onnx_ir.DataType.INT8:
            continue
        level = int(zero.numpy().item()) + 128
        if level not in zeros:
            zeros[level] = onnx_ir.val(f"zero_{level}", const_value=onnx_ir.tensor(np.array(level, np.uint8)))
            graph.register_initializer(zeros[level])
        node.replace_input_with(2, zeros[level])
        if node.op_type == "QuantizeLinear":
            node.outputs[0].dtype = onnx_ir.DataType.UINT8
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            graph.initializers.pop(name)


def halve(graph: Any) -> None:
    """Keep the weights of an ONNX graph as float16; ONNX Runtime makes float32 of them when it opens the file."""
    import onnx_ir

    for name, value in list(graph.initializers.items()):
        weight = value.const_value
        if weight.dtype != onnx_ir.DataType.FLOAT or len(weight.shape) < 2:
            continue
        half = onnx_ir.val(f"{name}_half", const_value=onnx_ir.tensor(weight.numpy().astype(np.float16)))
        cast = onnx_ir.node("Cast", [half], {"to": int(onnx_ir.DataType.FLOAT)})
        graph.register_initializer(half)
        value.replace_all_uses_with(cast.outputs[0])
        graph.initializers.pop(name)
        graph.insert_before(graph[0], cast)


def separate(program: ExportedProgram) -> None:
    """Give every reader of a rounded tensor a dequantisation of its own, as XNNPACK's partitioner expects."""
    dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor.default
    for node in list(program.graph.nodes):
        for user in list(node.users)[1:] if node.target is dequantize else ():
            with program.graph.inserting_before(node.next):
                user.replace_input_with(node, program.graph.node_copy(node))
    program.graph_module.recompile()
