"""MnasNet-A1 (Tan et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from densevision.backbones.base import Architecture, ConvSpec
from densevision.backbones.resolve import Row, Rules, resolve_blocks
from densevision.layers import NormSpec, make_divisible


@dataclass(frozen=True)
class MnasRow:
    """A row of Figure 7: kernel k, expansion factor t, output channels c, repeats n, stride s of the first, SE."""

    k: int
    t: int
    c: int
    n: int
    s: int
    se: bool


# Figure 7 (a) of the paper; the stem before it is conv 3x3, 32 channels, stride 2. Its first row, SepConv, has no
# expansion and no skip.
MNASNET_A1 = (
    MnasRow(k=3, t=1, c=16, n=1, s=1, se=False),  # 112x112x32
    MnasRow(k=3, t=6, c=24, n=2, s=2, se=False),  # 112x112x16
    MnasRow(k=5, t=3, c=40, n=3, s=2, se=True),  # 56x56x24
    MnasRow(k=3, t=6, c=80, n=4, s=2, se=False),  # 28x28x40
    MnasRow(k=3, t=6, c=112, n=2, s=1, se=True),  # 14x14x80
    MnasRow(k=5, t=6, c=160, n=3, s=2, se=True),  # 14x14x112
    MnasRow(k=3, t=6, c=320, n=1, s=1, se=False),  # 7x7x160
)
STEM = 32
LAST_CONV = 1280
# official code: batch normalisation decay 0.99, epsilon 1e-3
NORM = NormSpec(momentum=0.01, eps=1e-3)
# official code: squeezed to a quarter of the block's input, not of its expansion
RULES = Rules(squeeze_from="input", gate="sigmoid")


def reduced(rows: tuple[MnasRow, ...]) -> tuple[MnasRow, ...]:
    """Both cuts: the outputs of the last four blocks halved, as MobileNetV2's; none is published for MnasNet."""
    return (*rows[:5], *(replace(row, c=row.c // 2) for row in rows[5:]))


def mnasnet_a1(
    width_mult: float = 1.0,
    output_stride: int = 32,
    reduced_tail: str | None = None,
    dilation_rule: str = "old",
    scale_last_conv: bool = False,
) -> Architecture:
    """MnasNet-A1, resolved: inverted residuals with squeeze-and-excite in three of the stages.

    Args:
        width_mult: multiplies all channel counts but the last 1x1 convolution's, rounded to multiples of 8.
        output_stride, dilation_rule: see :func:`densevision.backbones.resolve.resolve_blocks`.
        reduced_tail: None, ``segmentation`` or ``detection``; both halve the last 1x1 convolution too.
        scale_last_conv: multiply the last 1x1 convolution's channels for widths below 1 too (SSDLite).
    """
    table = reduced(MNASNET_A1) if reduced_tail else MNASNET_A1
    stem = make_divisible(STEM * width_mult)
    blocks = resolve_blocks(
        _one_row_a_block(table),
        STEM,
        stem_channels=stem,
        width_mult=width_mult,
        output_stride=output_stride,
        dilation_rule=dilation_rule,
        rules=RULES,
    )
    scaled = make_divisible(LAST_CONV * width_mult)
    last = (scaled if scale_last_conv else max(LAST_CONV, scaled)) // (2 if reduced_tail else 1)
    return Architecture(
        family="mnasnet_a1",
        stem=ConvSpec(3, stem, kernel=3, stride=2, act="relu"),
        blocks=blocks,
        last_conv=ConvSpec(blocks[-1].out_channels, last, kernel=1, stride=1, act="relu"),
        top="c5",
        pre_logits=0,
        norm=NORM,
    )


def _one_row_a_block(table: tuple[MnasRow, ...]) -> tuple[Row, ...]:
    rows: list[Row] = []
    in_channels = STEM
    for row in table:
        for repeat in range(row.n):
            stride = row.s if repeat == 0 else 1
            rows.append(Row(row.k, expand=row.t * in_channels, out=row.c, se=row.se, act="relu", stride=stride))
            in_channels = row.c
    return tuple(rows)
