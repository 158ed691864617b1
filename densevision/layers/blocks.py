"""The inverted residual of MobileNetV2, with MobileNetV3's squeeze-and-excite between depthwise and projection."""

from __future__ import annotations

from torch import Tensor, nn

from densevision.layers.conv import ConvNormAct
from densevision.layers.norm import NormSpec
from densevision.layers.squeeze_excite import SqueezeExcite

# what a block can hand out, in the order in which it is computed
TAPS = ("expansion", "depthwise", "output")


class InvertedResidual(nn.Module):
    """1x1 expansion -> depthwise -> squeeze-and-excite -> linear 1x1 projection (+ input).

    (B, in_channels, H, W) -> (B, out_channels, H', W') with H' = ceil(H / stride).
    Source: MobileNetV2 paper, Figure 4; MobileNetV3 paper, Figure 4.

    Args:
        expansion: channels of the depthwise convolution.
        squeeze: channels inside squeeze-and-excite; 0 leaves it out.
        act: activation after expansion and depthwise.
        expand: whether the 1x1 expansion is there; without it ``expansion`` equals ``in_channels``.
        residual: whether the input is added to the output.
        until: the last tap that anybody reads. What lies behind it is not built, since a weight that
            nothing uses has no gradient.
    """

    def __init__(
        self,
        in_channels: int,
        expansion: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        dilation: int,
        squeeze: int,
        act: str,
        expand: bool,
        residual: bool,
        norm: NormSpec,
        until: str = "output",
    ) -> None:
        super().__init__()
        self.until = until
        self.residual = residual
        self.expand = ConvNormAct(in_channels, expansion, act=act, norm=norm) if expand else nn.Identity()
        if until == "expansion":
            return
        self.depthwise = ConvNormAct(
            expansion, expansion, kernel, stride, dilation, groups=expansion, act=act, norm=norm
        )
        if until == "depthwise":
            return
        self.se = SqueezeExcite(expansion, squeeze) if squeeze else nn.Identity()
        self.project = ConvNormAct(expansion, out_channels, act=None, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.taps(x)[self.until]

    def taps(self, x: Tensor) -> dict[str, Tensor]:
        """All of :data:`TAPS` up to ``until``: after the expansion, after the depthwise (before SE), the output."""
        taps = {"expansion": self.expand(x)}
        if self.until == "expansion":
            return taps
        taps["depthwise"] = self.depthwise(taps["expansion"])
        if self.until == "depthwise":
            return taps
        out = self.project(self.se(taps["depthwise"]))
        taps["output"] = x + out if self.residual else out
        return taps
