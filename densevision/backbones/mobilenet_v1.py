"""MobileNetV1 (Howard et al., 2017)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from densevision.backbones.base import Architecture, ConvSpec
from densevision.backbones.resolve import Row, Rules, resolve_blocks
from densevision.layers import NormSpec


@dataclass(frozen=True)
class V1Row:
    """A pair of rows of Table 1, "Conv dw" and "Conv": output channels c of the pair, stride s of the depthwise."""

    c: int
    s: int


# Table 1 of the paper; the stem before it is conv 3x3, 32 channels, stride 2
MOBILENET_V1 = (
    V1Row(c=64, s=1),  # 112x112x32
    V1Row(c=128, s=2),  # 112x112x64
    V1Row(c=128, s=1),  # 56x56x128
    V1Row(c=256, s=2),  # 56x56x128
    V1Row(c=256, s=1),  # 28x28x256
    V1Row(c=512, s=2),  # 28x28x256
    V1Row(c=512, s=1),  # 14x14x512
    V1Row(c=512, s=1),  # 14x14x512
    V1Row(c=512, s=1),  # 14x14x512
    V1Row(c=512, s=1),  # 14x14x512
    V1Row(c=512, s=1),  # 14x14x512
    V1Row(c=1024, s=2),  # 14x14x512
    V1Row(c=1024, s=1),  # 7x7x1024
)
STEM = 32
# TF-slim: batch normalisation decay 0.9997, epsilon 1e-3
NORM = NormSpec(momentum=0.0003, eps=1e-3)


def round_channels(channels: float) -> int:
    """The whole part, at least 8; multiples of 8 are not asked for (TF-slim ``mobilenet_v1.py``, ``depth``)."""
    return max(int(channels), 8)


RULES = Rules(round_channels=round_channels, project_act="relu6", residual=False)


def reduced(rows: tuple[V1Row, ...]) -> tuple[V1Row, ...]:
    """Both cuts: the outputs of the last two blocks halved, MobileNetV3's idea (6.3); none is published for V1."""
    return (*rows[:-2], *(replace(row, c=row.c // 2) for row in rows[-2:]))


def mobilenet_v1(
    width_mult: float = 1.0,
    output_stride: int = 32,
    reduced_tail: str | None = None,
    dilation_rule: str = "old",
    scale_last_conv: bool = False,
) -> Architecture:
    """MobileNetV1, resolved: depthwise separable convolutions, no residuals, the last block followed by the pooling.

    There are no expansions to tap: SSDLite reads what the first block of stride 32 reads (``Conv2d_11_pointwise``, as
    TF-slim's SSD) and the last block, LR-ASPP the last depthwise output of stride 8.

    Args:
        width_mult: multiplies all channel counts, cut off to whole numbers.
        output_stride, dilation_rule: see :func:`densevision.backbones.resolve.place`.
        reduced_tail: None, ``segmentation`` or ``detection``, which are the same here.
        scale_last_conv: of no effect, as there is none.
    """
    table = reduced(MOBILENET_V1) if reduced_tail else MOBILENET_V1
    stem = round_channels(STEM * width_mult)
    inputs = (STEM, *(row.c for row in table))
    return Architecture(
        family="mobilenet_v1",
        stem=ConvSpec(3, stem, kernel=3, stride=2, act="relu6"),
        blocks=resolve_blocks(
            [
                Row(kernel=3, expand=c, out=row.c, se=False, act="relu6", stride=row.s)
                for c, row in zip(inputs, table, strict=False)
            ],
            STEM,
            stem_channels=stem,
            width_mult=width_mult,
            output_stride=output_stride,
            dilation_rule=dilation_rule,
            rules=RULES,
        ),
        last_conv=None,
        top="c5",
        pre_logits=0,
        norm=NORM,
    )
