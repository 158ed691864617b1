"""The blocks that all families are made of: inverted residual, sandglass, and a bare 1x1 convolution."""

from __future__ import annotations

import torch
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
        gate, squeeze_act: of squeeze-and-excite.
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
        squeeze_act: str = "relu",
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
        self.se = SqueezeExcite(expansion, squeeze, gate, squeeze_act) if squeeze else nn.Identity()
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


class SandGlass(nn.Module):
    """Depthwise -> 1x1 reduction -> 1x1 expansion -> depthwise (+ the first channels of the input).

    (B, in_channels, H, W) -> (B, out_channels, H', W') with H' = ceil(H / stride).
    Source: MobileNeXt paper (Zhou et al., 2020), Table 1: the reduction and the last depthwise
    convolution are linear, the stride is the last one's.

    Args:
        bottleneck: channels between the 1x1 convolutions.
        first_depthwise, second_depthwise: whether they are there; a block that changes its channels has no first one.
        residual_channels: how many of the input's channels are added to the output's first ones, 0 for no residual.
    """

    def __init__(
        self,
        in_channels: int,
        bottleneck: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        dilation: int,
        act: str,
        first_depthwise: bool,
        second_depthwise: bool,
        residual_channels: int,
        norm: NormSpec,
    ) -> None:
        super().__init__()
        self.residual_channels = residual_channels
        self.first_depthwise = (
            ConvNormAct(in_channels, in_channels, kernel, dilation=dilation, groups=in_channels, act=act, norm=norm)
            if first_depthwise
            else nn.Identity()
        )
        self.reduce = ConvNormAct(in_channels, bottleneck, act=None, norm=norm)
        self.expand = ConvNormAct(bottleneck, out_channels, act=act, norm=norm)
        self.second_depthwise = (
            ConvNormAct(out_channels, out_channels, kernel, stride, dilation, out_channels, act=None, norm=norm)
            if second_depthwise
            else nn.Identity()
        )

    def forward(self, x: Tensor, taps: dict[str, Tensor] | None = None) -> Tensor:
        """The block's output, which is its only tap."""
        out = self.second_depthwise(self.expand(self.reduce(self.first_depthwise(x))))
        shared = self.residual_channels
        if shared == out.shape[1]:
            out = x + out
        elif shared:
            out = torch.cat([x[:, :shared] + out[:, :shared], out[:, shared:]], dim=1)
        if taps is not None:
            taps["output"] = out
        return out


class Pointwise(nn.Module):
    """A 1x1 convolution, normalised and activated: (B, in_channels, H, W) -> (B, out_channels, H, W).

    Source: FBNetV2's ``skip`` between different channel counts.
    """

    def __init__(self, in_channels: int, out_channels: int, *, act: str, norm: NormSpec) -> None:
        super().__init__()
        self.project = ConvNormAct(in_channels, out_channels, act=act, norm=norm)

    def forward(self, x: Tensor, taps: dict[str, Tensor] | None = None) -> Tensor:
        """The block's output, which is its only tap."""
        out = self.project(x)
        if taps is not None:
            taps["output"] = out
        return out
