"""Searching the resolution: an operator at several of them, on one grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def operate_then_intersperse(
    x: Tensor, operate: Callable[[Tensor], Tensor], strides: Sequence[int], gates: Tensor
) -> Tensor:
    """The gated sum of an operator's outputs at several resolutions, all on the grid of the finest.

    For every stride every stride-th pixel is taken, the operator works on what it will see in the found network, and
    its output is spread over the fine grid with zeros between. (Zeros first would let the operator's kernel mostly see
    zeros.) With one gate 1 and the others 0, every stride-th pixel of the result is the small map, to the bit. Source:
    FBNetV2 paper, 3.2.

    Args:
        x: (B, C, H, W). operate: (B, C, h, w) -> (B, C', ceil(h / s), ceil(w / s)) with its own stride s.
        strides: of the subsampling; 1 is the fine grid and must be among them.
        gates: (len(strides),), of the sum.
    """
    fine = operate(x) if 1 in strides else None
    if fine is None:
        raise ValueError("the fine grid, stride 1, must be one of the choices")
    total = torch.zeros_like(fine)
    for stride, gate in zip(strides, gates, strict=True):
        if stride == 1:
            total = total + gate * fine
        else:
            spread = torch.zeros_like(fine)
            spread[..., ::stride, ::stride] = operate(x[..., ::stride, ::stride])
            total = total + gate * spread
    return total


class AtResolutions(nn.Module):
    """A layer of a backbone at several resolutions; see :func:`operate_then_intersperse`.

    gates: gives the present ones.
    """

    def __init__(self, layer: nn.Module, strides: Sequence[int], gates: Callable[[], Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.strides, self.gates = strides, gates

    def forward(self, x: Tensor, taps: dict[str, Tensor] | None = None) -> Tensor:
        out = operate_then_intersperse(x, self.layer, self.strides, self.gates())
        if taps is not None:
            taps["output"] = out  # the only tap that classifiers read
        return out


class HeadAtResolutions(nn.Module):
    """A classifier's head at all resolutions: the gated sum of its logits."""

    def __init__(self, head: nn.Module, strides: Sequence[int], gates: Callable[[], Tensor]) -> None:
        super().__init__()
        self.head = head
        self.strides, self.gates = strides, gates

    def forward(self, deepest: Tensor) -> Tensor:
        pairs = zip(self.gates(), self.strides, strict=True)
        return torch.stack([gate * self.head(deepest[..., ::s, ::s]) for gate, s in pairs]).sum(0)
