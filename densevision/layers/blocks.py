"""The inverted residual of MobileNetV2, with MobileNetV3's squeeze-and-excite between depthwise and projection."""

from __future__ import annotations

from torch import Tensor, nn

from densevision.layers.conv import ConvNormAct
from densevision.layers.norm import NormSpec
from densevision.layers.squeeze_excite import SqueezeExcite

# what a block can hand out, in the order in which it is computed
TAPS = ("expansion", "depthwise", "output")


class InvertedResidual(nn.Module):
    """1x1 expansion -> depthwise -> squeeze-and-excite -> 1x1 projection (+ input).

    (B, in_channels, H, W) -> (B, out_channels, H', W') with H' = ceil(H / stride).
    Source: MobileNetV2 paper, Figure 4; MobileNetV3 paper, Figure 4. Without expansion and residual, and with an
    activation at its end, it is MobileNetV1's depthwise separable convolution.

    Args:
        expansion: channels of the depthwise convolution.
        squeeze: channels inside squeeze-and-excite; 0 leaves it out.
        act: activation after expansion and depthwise.
        gate: of squeeze-and-excite.
        project_act: activation after the projection; None for a linear one.
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
        gate: str = "hard_sigmoid",
        project_act: str | None = None,
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
        self.se = SqueezeExcite(expansion, squeeze, gate) if squeeze else nn.Identity()
        self.project = ConvNormAct(expansion, out_channels, act=project_act, norm=norm)

    def forward(self, x: Tensor, taps: dict[str, Tensor] | None = None) -> Tensor:
        """The last of :data:`TAPS` that is built; ``taps``, if given, is filled with all of them by name.

        The depthwise tap is before squeeze-and-excite. Without ``taps`` each map is freed once the next is there.
        """
        out = self.expand(x)
        if taps is not None:
            taps["expansion"] = out
        if self.until == "expansion":
            return out
        out = self.depthwise(out)
        if taps is not None:
            taps["depthwise"] = out
        if self.until == "depthwise":
            return out
        out = self.project(self.se(out))
        out = x + out if self.residual else out
        if taps is not None:
            taps["output"] = out
        return out
