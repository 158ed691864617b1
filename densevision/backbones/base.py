"""The contract of every backbone: one flat list of blocks, and the module that is built from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from densevision.config.lookup import lookup
from densevision.errors import UserError
from densevision.layers import ConvNormAct, InvertedResidual, NormSpec, Pointwise, SandGlass, truncated_normal_
from densevision.layers.blocks import TAPS

INIT_STD = 0.09  # TF-slim nets/mobilenet: training_scope(stddev=0.09), truncated at two deviations


@dataclass(frozen=True)
class ConvSpec:
    """A resolved convolution + normalisation + activation: the stem and the last 1x1."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    act: str


@dataclass(frozen=True)
class BlockSpec:
    """A resolved inverted residual: nothing is left to be derived.

    stage: number of halvings of the picture that the published net, at output stride 32, has made after this
        block; the stage stays when an output stride of 8 or 16 replaces strides by dilation.
    squeeze: channels inside squeeze-and-excite, 0 without. expand: whether there is a 1x1 expansion.
    gate, squeeze_act: of squeeze-and-excite. project_act: activation after the projection, None for a linear one.
    """

    in_channels: int
    expansion: int
    out_channels: int
    kernel: int
    stride: int
    dilation: int
    squeeze: int
    act: str
    expand: bool
    residual: bool
    stage: int
    gate: str = "hard_sigmoid"
    squeeze_act: str = "relu"
    project_act: str | None = None

    def build(self, norm: NormSpec, until: str) -> nn.Module:
        """The module, no further than the tap ``until``."""
        return InvertedResidual(
            self.in_channels,
            self.expansion,
            self.out_channels,
            kernel=self.kernel,
            stride=self.stride,
            dilation=self.dilation,
            squeeze=self.squeeze,
            act=self.act,
            expand=self.expand,
            residual=self.residual,
            norm=norm,
            gate=self.gate,
            squeeze_act=self.squeeze_act,
            project_act=self.project_act,
            until=until,
        )


@dataclass(frozen=True)
class SandGlassSpec:
    """A resolved sandglass block; see :class:`densevision.layers.SandGlass` and, for the stage, :class:`BlockSpec`."""

    in_channels: int
    bottleneck: int
    out_channels: int
    kernel: int
    stride: int
    dilation: int
    act: str
    first_depthwise: bool
    second_depthwise: bool
    residual_channels: int
    stage: int

    def build(self, norm: NormSpec, until: str) -> nn.Module:
        """The module, whose only tap is its output."""
        return SandGlass(
            self.in_channels,
            self.bottleneck,
            self.out_channels,
            kernel=self.kernel,
            stride=self.stride,
            dilation=self.dilation,
            act=self.act,
            first_depthwise=self.first_depthwise,
            second_depthwise=self.second_depthwise,
            residual_channels=self.residual_channels,
            norm=norm,
        )


@dataclass(frozen=True)
class PointwiseSpec:
    """A resolved 1x1 convolution among the blocks; the stage is :class:`BlockSpec`'s."""

    in_channels: int
    out_channels: int
    act: str
    stage: int
    kernel: ClassVar[int] = 1
    stride: ClassVar[int] = 1
    dilation: ClassVar[int] = 1

    def build(self, norm: NormSpec, until: str) -> nn.Module:
        """The module, whose only tap is its output."""
        return Pointwise(self.in_channels, self.out_channels, act=self.act, norm=norm)


Block = BlockSpec | SandGlassSpec | PointwiseSpec


@dataclass(frozen=True)
class FeatureInfo:
    """What a feature map of a backbone looks like, and where it comes from.

    stride: input pixels a cell. layer: -1 the stem, i the i-th block, len(blocks) the last 1x1.
    tap: which tensor of that layer (see :data:`densevision.layers.blocks.TAPS`).
    """

    channels: int
    stride: int
    layer: int
    tap: str = "output"


@dataclass(frozen=True)
class Architecture:
    """A resolved network, flat and without options; builders, counters, profile and searches work on this.

    last_conv: the final 1x1, or None where the family's cut drops it. top: the feature that a segmentation head
    takes as the deepest map. pre_logits: width of the layer between pooling and classifier, 0 for none; its
    activation is that of ``last_conv``. norm: as the family was published. pre_logits_bias: whether that layer has one.
    """

    family: str
    stem: ConvSpec
    blocks: tuple[Block, ...]
    last_conv: ConvSpec | None
    top: str
    pre_logits: int
    norm: NormSpec
    pre_logits_bias: bool = True

    @property
    def feature_info(self) -> dict[str, FeatureInfo]:
        """Every feature that this network can give, by name.

        ``c1`` .. ``c5``: the last output of each stage (of the stem, where a stage has no block); ``last_conv``:
        the final 1x1; ``c4_expansion``: the 1x1 expansion of the first block of stage 5, before its stride
        (SSDLite's C4), and ``c3_expansion`` that of stage 4; ``c3_depthwise``: the depthwise output, before
        squeeze-and-excite, of the last block of stage 3 (LR-ASPP's low map); ``c3_first``: the output of the first
        block of stage 3 (torchvision's).

        The special taps are the wide maps of inverted residuals. A block without expansion gives its input instead
        (MobileNetV1: the output of stage 4, as TF-slim's SSD reads it). A sandglass is wide at its ends and narrow
        inside, and its depthwise convolutions sit there: c4_expansion is the output of stage 4, c3_expansion and
        c3_depthwise that of stage 3.
        """
        info = {"c1": FeatureInfo(self.stem.out_channels, self.stem.stride, -1)}
        stride = self.stem.stride
        stages_seen = {1}
        for i, block in enumerate(self.blocks):
            first = block.stage not in stages_seen
            stages_seen.add(block.stage)
            if first and block.stage in (4, 5):
                info[f"c{block.stage - 1}_expansion"] = (
                    FeatureInfo(block.expansion, stride, i, "expansion")
                    if isinstance(block, BlockSpec)
                    else FeatureInfo(block.in_channels, stride, i - 1)
                )
            stride *= block.stride
            info[f"c{block.stage}"] = FeatureInfo(block.out_channels, stride, i)
            if block.stage == 3:
                info["c3_depthwise"] = (
                    FeatureInfo(block.expansion, stride, i, "depthwise")
                    if isinstance(block, BlockSpec)
                    else FeatureInfo(block.out_channels, stride, i)
                )
                if first:
                    info["c3_first"] = FeatureInfo(block.out_channels, stride, i)
        if self.last_conv:
            info["last_conv"] = FeatureInfo(self.last_conv.out_channels, stride, len(self.blocks))
        return info


class Backbone(nn.Module):
    """A network without its classifier, built up to the deepest feature asked for and no further.

    forward: (B, in_channels, H, W) normalised float -> {feature: (B, channels, ceil(H / stride), ceil(W / stride))}.

    Args:
        architecture: what to build.
        features: names out of ``architecture.feature_info``.
        in_channels: of the input; 3 for RGB.
        norm: other momentum and epsilon than published.
        init_std: deviation of the truncated normal that the convolutions start from.

    Attributes:
        feature_info: the asked features' :class:`FeatureInfo`, in the order asked.

    Raises:
        UserError: the network has no such feature.
    """

    def __init__(
        self,
        architecture: Architecture,
        features: Sequence[str],
        in_channels: int = 3,
        norm: NormSpec | None = None,
        init_std: float = INIT_STD,
    ) -> None:
        super().__init__()
        norm = norm or architecture.norm
        known = architecture.feature_info
        self.architecture = architecture
        self.feature_info = {name: lookup("feature", name, known) for name in features}
        last, until = max((info.layer, TAPS.index(info.tap)) for info in self.feature_info.values())
        stem = architecture.stem
        self.stem = ConvNormAct(in_channels, stem.out_channels, stem.kernel, stem.stride, act=stem.act, norm=norm)
        self.blocks = nn.ModuleList(
            spec.build(norm, until=TAPS[until] if i == last else "output")
            for i, spec in enumerate(architecture.blocks[: last + 1])
        )
        final = architecture.last_conv
        self.last_conv: nn.Module | None = None
        if final and last == len(architecture.blocks):
            self.last_conv = ConvNormAct(final.in_channels, final.out_channels, final.kernel, act=final.act, norm=norm)
        for module in self.modules():
            _initialise(module, init_std)

    def start_residuals_at_identity(self) -> None:
        """Let each inverted residual with a skip begin as the skip alone: its last normalisation scales by 0.

        From scratch the network then learns faster in its first hundreds of steps. Source: Goyal et al., Accurate,
        Large Minibatch SGD (2017), 5.1.

        Raises:
            UserError: no block has such a skip.
        """
        blocks = [block for block in self.blocks if isinstance(block, InvertedResidual) and block.residual]
        blocks = [block for block in blocks if block.until == "output"]
        if not blocks:
            raise UserError(
                f"{self.architecture.family} has no inverted residuals with a skip",
                key="model.backbone.zero_init_residual",
            )
        for block in blocks:
            nn.init.zeros_(block.project.norm.weight)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        x = self.stem(images)
        self._collect(found, -1, {"output": x})
        for i, block in enumerate(self.blocks):
            if any(info.layer == i for info in self.feature_info.values()):
                taps: dict[str, Tensor] = {}
                x = block(x, taps)
                self._collect(found, i, taps)
            else:
                x = block(x)
        if self.last_conv is not None:
            self._collect(found, len(self.blocks), {"output": self.last_conv(x)})
        return {name: found[name] for name in self.feature_info}

    def _collect(self, found: dict[str, Tensor], layer: int, taps: dict[str, Tensor]) -> None:
        for name, info in self.feature_info.items():
            if info.layer == layer:
                found[name] = taps[info.tap]


def _initialise(module: nn.Module, std: float) -> None:
    """Weights as TF-slim draws them; normalisation starts as the identity, which is torch's own default."""
    if isinstance(module, nn.Conv2d):
        truncated_normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
