"""Convolution + batch normalisation + activation, and the rounding rule of the channels."""

from __future__ import annotations

from torch import Tensor, nn

from densevision.config.lookup import lookup
from densevision.layers.norm import NormSpec

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hswish": nn.Hardswish,
}


def activation(name: str) -> nn.Module:
    """The activation of that name, in place: what it overwrites is always a normalisation's own output."""
    return lookup("activation", name, ACTIVATIONS)(inplace=True)


def make_divisible(value: float, divisor: int = 8) -> int:
    """``value`` rounded to a multiple of ``divisor``, never below ``divisor`` nor below 0.9 ``value``.

    Source: TF-slim ``nets/mobilenet/mobilenet.py``; torchvision and timm round alike.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class ConvNormAct(nn.Module):
    """conv -> batch normalisation -> activation; (B, in_channels, H, W) -> (B, out_channels, H', W').

    Padding is symmetric, ``dilation * (kernel - 1) / 2``, so that H' = ceil(H / stride).

    Args:
        act: a key of :data:`ACTIVATIONS`, or None for a linear output.
        norm: momentum and epsilon of the normalisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        *,
        act: str | None,
        norm: NormSpec,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding, dilation=dilation, groups=groups, bias=False
        )
        self.norm = norm.build(out_channels)
        self.act = activation(act) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))
