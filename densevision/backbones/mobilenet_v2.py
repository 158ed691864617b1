"""MobileNetV2 (Sandler et al., 2018)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from densevision.backbones.base import Architecture, ConvSpec
from densevision.backbones.resolve import Row, resolve_blocks
from densevision.layers import NormSpec, make_divisible


@dataclass(frozen=True)
class V2Row:
    """A row of Table 2: expansion factor t, output channels c, repeats n, stride s of the first repeat."""

    t: int
    c: int
    n: int
    s: int


# Table 2 of the paper; the stem before it is conv2d 3x3, 32 channels, stride 2
MOBILENET_V2 = (
    V2Row(t=1, c=16, n=1, s=1),  # 112x112x32
    V2Row(t=6, c=24, n=2, s=2),  # 112x112x16
    V2Row(t=6, c=32, n=3, s=2),  # 56x56x24
    V2Row(t=6, c=64, n=4, s=2),  # 28x28x32
    V2Row(t=6, c=96, n=3, s=1),  # 14x14x64
    V2Row(t=6, c=160, n=3, s=2),  # 14x14x96
    V2Row(t=6, c=320, n=1, s=1),  # 7x7x160
)
STEM = 32
LAST_CONV = 1280
# TF-slim: batch normalisation decay 0.997, epsilon 1e-3
NORM = NormSpec(momentum=0.003, eps=1e-3)


def reduced(rows: tuple[V2Row, ...]) -> tuple[V2Row, ...]:
    """Both cuts: the outputs of the last four blocks halved, expansions still 6 times their input.

    MobileNetV3 paper, 6.4 ("RF2"), applied to V2: this is the reading that gives Table 7's counts.
    """
    return (*rows[:5], *(replace(row, c=row.c // 2) for row in rows[5:]))


def mobilenet_v2(
    width_mult: float = 1.0,
    output_stride: int = 32,
    reduced_tail: str | None = None,
    dilation_rule: str = "old",
    scale_last_conv: bool = False,
) -> Architecture:
    """MobileNetV2, resolved.

    The last 1x1 convolution is never narrower than published (TF-slim: it scales for widths above 1 only), unless
    ``scale_last_conv`` says so (TF-slim with ``finegrain_classification_mode`` off, as in SSDLite). The segmentation
    cut drops it; segmentation heads read the last block anyway (DeepLab's ``layer_18``). The detection cut halves
    it.

    Args:
        width_mult: multiplies all other channel counts, rounded to multiples of 8; after a cut, as Table 7's
            widths 0.5 and 0.35 demand.
        output_stride, dilation_rule: see :func:`densevision.backbones.resolve.place`.
        reduced_tail: None, ``segmentation`` or ``detection``.
        scale_last_conv: multiply the last 1x1 convolution's channels for widths below 1 too.
    """
    table = reduced(MOBILENET_V2) if reduced_tail else MOBILENET_V2
    stem = make_divisible(STEM * width_mult)
    blocks = resolve_blocks(
        _one_row_a_block(table),
        STEM,
        stem_channels=stem,
        width_mult=width_mult,
        output_stride=output_stride,
        dilation_rule=dilation_rule,
    )
    scaled = make_divisible(LAST_CONV * width_mult)
    last = (scaled if scale_last_conv else max(LAST_CONV, scaled)) // (2 if reduced_tail == "detection" else 1)
    return Architecture(
        family="mobilenet_v2",
        stem=ConvSpec(3, stem, kernel=3, stride=2, act="relu6"),
        blocks=blocks,
        last_conv=None
        if reduced_tail == "segmentation"
        else ConvSpec(blocks[-1].out_channels, last, kernel=1, stride=1, act="relu6"),
        top="c5",
        pre_logits=0,
        norm=NORM,
    )


def _one_row_a_block(table: tuple[V2Row, ...]) -> tuple[Row, ...]:
    rows: list[Row] = []
    in_channels = STEM
    for row in table:
        for repeat in range(row.n):
            stride = row.s if repeat == 0 else 1
            rows.append(Row(kernel=3, expand=row.t * in_channels, out=row.c, se=False, act="relu6", stride=stride))
            in_channels = row.c
    return tuple(rows)
