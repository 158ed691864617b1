"""The network that is exported: int8 weights, and rounding in operations that the exporters know."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import Tensor, nn

from densevision.quantize.layers import HIGH, LOW, QuantizedLayer, Quantizer, apply, places_of, weight_scale
from densevision.quantize.network import Model, calibrate, quantized, quantizers


class Rounded(nn.Module):
    """A :class:`Quantizer` with numbers for its range, in operations that the exporters know."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.scale, self.zero_point = float(quantizer.scale), int(quantizer.zero_point)

    def forward(self, x: Tensor) -> Tensor:
        ops, places = torch.ops.quantized_decomposed, (self.scale, self.zero_point, LOW, HIGH, torch.int8)
        return ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *places), *places)


class IntegerLayer(nn.Module):
    """A :class:`QuantizedLayer` that holds its weights as int8 and a scale a channel."""

    weight: Tensor
    scale: Tensor
    zero_point: Tensor
    bias: Tensor | None

    def __init__(self, layer: QuantizedLayer) -> None:
        super().__init__()
        weight, bias = layer.weight_and_bias()
        self.places = places_of(layer.conv)
        scale = weight_scale(weight)
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale.flatten())
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=torch.int64))
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.input, self.output = layer.input, layer.output
        self.act = None if layer.clips else layer.act  # the output's range cuts alike

    def forward(self, x: Tensor) -> Tensor:
        if self.input is not None:
            x = self.input(x)
        weight = torch.ops.quantized_decomposed.dequantize_per_channel(
            self.weight, self.scale, self.zero_point, 0, -HIGH, HIGH, torch.int8
        )
        out = self.output(apply(self.places, x, weight, self.bias))
        return out if self.act is None else self.act(out)


@torch.no_grad()
def integer(model: Model) -> Model:
    """A copy of a :func:`quantized` network with int8 weights, in evaluation mode, to be exported.

    It computes what the network did, but for the order of sums.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    layers = {module: IntegerLayer(module) for module in model.modules() if isinstance(module, QuantizedLayer)}
    _swap(model, layers)
    _swap(model, {quantizer: Rounded(quantizer) for quantizer in quantizers(model)})
    return model


@torch.no_grad()
def int8(model: Model, batches: Iterable[Tensor]) -> Model:
    """The :func:`integer` network of a trained one, calibrated on ``batches`` unless it was trained for int8."""
    if not any(quantizers(model)):
        model = quantized(model.eval())
        calibrate(model, batches)
    return integer(model)


def _swap(model: nn.Module, other: dict[Any, Any]) -> None:
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child in other:
                module._modules[name] = other[child]
