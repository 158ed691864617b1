"""MobileNeXt (Zhou et al., 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from densevision.backbones.base import Architecture, ConvSpec, SandGlassSpec
from densevision.backbones.resolve import place
from densevision.layers import NormSpec, make_divisible


@dataclass(frozen=True)
class NextRow:
    """A row of Table 2: reduction factor t, output channels c, repeats b, stride s of the first repeat."""

    t: int
    c: int
    b: int
    s: int


# Table 2 of the paper; the stem before it is conv2d 3x3, 32 channels, stride 2
MOBILENEXT = (
    NextRow(t=2, c=96, b=1, s=2),  # 112x112x32
    NextRow(t=6, c=144, b=1, s=1),  # 56x56x96
    NextRow(t=6, c=192, b=3, s=2),  # 56x56x144
    NextRow(t=6, c=288, b=3, s=2),  # 28x28x192
    NextRow(t=6, c=384, b=4, s=1),  # 14x14x288
    NextRow(t=6, c=576, b=4, s=2),  # 14x14x384
    NextRow(t=6, c=960, b=3, s=1),  # 7x7x576
    NextRow(t=6, c=1280, b=1, s=1),  # 7x7x960
)
STEM = 32
LAST = 1280
# official code: torch's defaults
NORM = NormSpec(momentum=0.1, eps=1e-5)


def reduced(rows: tuple[NextRow, ...]) -> tuple[NextRow, ...]:
    """Both cuts: the outputs of the stride-32 rows halved, MobileNetV3's idea (6.3); none is published for MobileNeXt.

    The bottlenecks follow, as they are a sixth of their input.
    """
    return (*rows[:5], *(replace(row, c=row.c // 2) for row in rows[5:]))


def mobilenext(
    width_mult: float = 1.0,
    output_stride: int = 32,
    reduced_tail: str | None = None,
    dilation_rule: str = "old",
    scale_last_conv: bool = False,
    identity_tensor_multiplier: float = 1.0,
) -> Architecture:
    """MobileNeXt, resolved: sandglass blocks, the last one followed by the pooling.

    There is no expansion to tap and no depthwise convolution inside the narrow part; heads read the wide outputs of
    the blocks instead: the last of stride 8 where LR-ASPP reads a depthwise output, the last of stride 16 where
    SSDLite reads an expansion.

    Args:
        width_mult: multiplies all channel counts, rounded to multiples of 8, except that the last block is never
            narrower than published.
        output_stride, dilation_rule: see :func:`densevision.backbones.resolve.place`.
        reduced_tail: None, ``segmentation`` or ``detection``, which are the same here.
        scale_last_conv: multiply the last block's channels for widths below 1 too (SSDLite).
        identity_tensor_multiplier: share of the channels that residuals add, the first ones; changes no weight.
    """
    table = reduced(MOBILENEXT) if reduced_tail else MOBILENEXT
    repeats = [(row, repeat) for row in table for repeat in range(row.b)]
    places = place([row.s if repeat == 0 else 1 for row, repeat in repeats], output_stride, dilation_rule)
    stem = make_divisible(STEM * width_mult)
    blocks: list[SandGlassSpec] = []
    in_channels = stem
    for (row, repeat), spot in zip(repeats, places, strict=True):
        out = make_divisible(row.c * width_mult)
        if row is table[-1] and not scale_last_conv:
            out = max(out, row.c)
        strided = row.s == 2 and repeat == 0
        # official code: two blocks that change their channels keep both depthwise convolutions, as they stand alone
        alone = row.b == 1 and row.s == 1
        both = row.t == 2 or in_channels == out or alone
        residual = in_channels == out and not strided and not alone and row.t != 2
        blocks.append(
            SandGlassSpec(
                in_channels=in_channels,
                bottleneck=bottleneck(in_channels, out, row.t),
                out_channels=out,
                kernel=3,
                stride=spot.stride,
                dilation=spot.dilation,
                act="relu6",
                first_depthwise=both,
                second_depthwise=both or strided,
                residual_channels=round(in_channels * identity_tensor_multiplier) if residual else 0,
                stage=spot.stage,
            )
        )
        in_channels = out
    return Architecture(
        family="mobilenext",
        stem=ConvSpec(3, stem, kernel=3, stride=2, act="relu6"),
        blocks=tuple(blocks),
        last_conv=None,
        top="c5",
        pre_logits=0,
        norm=NORM,
    )


def bottleneck(in_channels: int, out_channels: int, reduction: int) -> int:
    """Channels between the 1x1 convolutions: the input's by ``reduction``, but no less than a sixth of the output's."""
    channels = in_channels // reduction
    return channels if channels >= out_channels / 6 else make_divisible(math.ceil(out_channels / 6), 16)
