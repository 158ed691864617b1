"""MnasNet-A1, -B1 and -Small (Tan et al., 2019)."""

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
# the network found without squeeze-and-excite: MnasNet-B1 (official mnasnet_models.py; the paper has its counts only)
MNASNET_B1 = (
    MnasRow(k=3, t=1, c=16, n=1, s=1, se=False),  # 112x112x32
    MnasRow(k=3, t=3, c=24, n=3, s=2, se=False),  # 112x112x16
    MnasRow(k=5, t=3, c=40, n=3, s=2, se=False),  # 56x56x24
    MnasRow(k=5, t=6, c=80, n=3, s=2, se=False),  # 28x28x40
    MnasRow(k=3, t=6, c=96, n=2, s=1, se=False),  # 14x14x80
    MnasRow(k=5, t=6, c=192, n=4, s=2, se=False),  # 14x14x96
    MnasRow(k=3, t=6, c=320, n=1, s=1, se=False),  # 7x7x192
)
# MnasNet-Small as the official mnasnet_models.py has it, 5 % larger than the paper counts; its stem has 8 channels
MNASNET_SMALL = (
    MnasRow(k=3, t=1, c=8, n=1, s=1, se=False),  # 112x112x8
    MnasRow(k=3, t=3, c=16, n=1, s=2, se=False),  # 112x112x8
    MnasRow(k=3, t=6, c=16, n=2, s=2, se=False),  # 56x56x16
    MnasRow(k=5, t=6, c=32, n=4, s=2, se=True),  # 28x28x16
    MnasRow(k=3, t=6, c=32, n=3, s=1, se=True),  # 14x14x32
    MnasRow(k=5, t=6, c=88, n=3, s=2, se=True),  # 14x14x32
    MnasRow(k=3, t=6, c=144, n=1, s=1, se=False),  # 7x7x88
)
STEM, SMALL_STEM = 32, 8
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
        output_stride, dilation_rule: see :func:`densevision.backbones.resolve.place`.
        reduced_tail: None, ``segmentation`` or ``detection``; both halve the last 1x1 convolution too.
        scale_last_conv: multiply the last 1x1 convolution's channels too (SSDLite).
    """
    return _mnasnet("a1", MNASNET_A1, STEM, width_mult, output_stride, reduced_tail, dilation_rule, scale_last_conv)


def mnasnet_b1(
    width_mult: float = 1.0,
    output_stride: int = 32,
    reduced_tail: str | None = None,
    dilation_rule: str = "old",
    scale_last_conv: bool = False,
) -> Architecture:
    """MnasNet-B1, resolved, which is torchvision's ``mnasnet``; the arguments are those of :func:`mnasnet_a1`."""
    return _mnasnet("b1", MNASNET_B1, STEM, width_mult, output_stride, reduced_tail, dilation_rule, scale_last_conv)


def mnasnet_small(
    width_mult: float = 1.0,
    output_stride: int = 32,
    reduced_tail: str | None = None,
    dilation_rule: str = "old",
    scale_last_conv: bool = False,
) -> Architecture:
    """MnasNet-Small, resolved; the arguments are those of :func:`mnasnet_a1`."""
    return _mnasnet(
        "small", MNASNET_SMALL, SMALL_STEM, width_mult, output_stride, reduced_tail, dilation_rule, scale_last_conv
    )


def _mnasnet(
    variant: str,
    table: tuple[MnasRow, ...],
    published_stem: int,
    width_mult: float,
    output_stride: int,
    reduced_tail: str | None,
    dilation_rule: str,
    scale_last_conv: bool,
) -> Architecture:
    stem = make_divisible(published_stem * width_mult)
    blocks = resolve_blocks(
        _one_row_a_block(reduced(table) if reduced_tail else table, published_stem),
        published_stem,
        stem_channels=stem,
        width_mult=width_mult,
        output_stride=output_stride,
        dilation_rule=dilation_rule,
        rules=RULES,
    )
    last = make_divisible(LAST_CONV * width_mult) if scale_last_conv else LAST_CONV
    return Architecture(
        family=f"mnasnet_{variant}",
        stem=ConvSpec(3, stem, kernel=3, stride=2, act="relu"),
        blocks=blocks,
        last_conv=ConvSpec(blocks[-1].out_channels, last // (2 if reduced_tail else 1), kernel=1, stride=1, act="relu"),
        top="c5",
        pre_logits=0,
        norm=NORM,
    )


def _one_row_a_block(table: tuple[MnasRow, ...], in_channels: int) -> tuple[Row, ...]:
    rows: list[Row] = []
    for row in table:
        for repeat in range(row.n):
            stride = row.s if repeat == 0 else 1
            rows.append(Row(row.k, expand=row.t * in_channels, out=row.c, se=row.se, act="relu", stride=stride))
            in_channels = row.c
    return tuple(rows)
