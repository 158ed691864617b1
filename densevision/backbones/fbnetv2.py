"""FBNetV2-F0 to -F4, -L1 and -L2 (Wan et al., 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from densevision.backbones.base import Architecture, ConvSpec
from densevision.backbones.resolve import Row, Rules, Skip, resolve_blocks
from densevision.layers import NormSpec


@dataclass(frozen=True)
class FBNetRow:
    """A block: kernel k, squeeze-and-excite, activation, output channels c, stride s, expansion factor t."""

    k: int
    se: bool
    act: str
    c: int
    s: int
    t: float


@dataclass(frozen=True)
class SkipRow:
    """The searched ``skip``: nothing, or a 1x1 convolution where the channels change to c."""

    c: int


Table = tuple[FBNetRow | SkipRow, ...]

# All tables: mobile-vision, fbnet_modeldef_cls_fbnetv2.py. The stem before them is conv 3x3, hswish, stride 2. The
# sizes are for the resolution that each was found for; F2 and F3 are F1's body at 160 and 192, L2 is L1 at 256.
F0 = (
    FBNetRow(k=5, se=False, act="hswish", c=8, s=1, t=1),  # 112x112x8
    FBNetRow(k=5, se=False, act="hswish", c=16, s=2, t=4),  # 112x112x8
    FBNetRow(k=5, se=False, act="hswish", c=16, s=1, t=3),  # 56x56x16
    FBNetRow(k=5, se=True, act="relu", c=24, s=2, t=4),  # 56x56x16
    FBNetRow(k=5, se=True, act="relu", c=24, s=1, t=3),  # 28x28x24
    FBNetRow(k=5, se=True, act="hswish", c=48, s=2, t=4),  # 28x28x24
    FBNetRow(k=3, se=True, act="hswish", c=48, s=1, t=3),  # 14x14x48
    FBNetRow(k=5, se=True, act="hswish", c=64, s=1, t=3),  # 14x14x48
    FBNetRow(k=5, se=True, act="hswish", c=64, s=1, t=2),  # 14x14x64
    FBNetRow(k=3, se=True, act="hswish", c=128, s=2, t=3),  # 14x14x64
    FBNetRow(k=5, se=True, act="hswish", c=160, s=1, t=3),  # 7x7x128
    SkipRow(c=192),  # 7x7x160
)
F1 = (
    FBNetRow(k=5, se=False, act="relu", c=8, s=1, t=1),  # 64x64x8
    FBNetRow(k=5, se=False, act="relu", c=24, s=2, t=5.4566),  # 64x64x8
    FBNetRow(k=5, se=False, act="relu", c=24, s=1, t=4.7912),  # 32x32x24
    FBNetRow(k=5, se=True, act="relu", c=32, s=2, t=5.3501),  # 32x32x24
    FBNetRow(k=5, se=True, act="relu", c=24, s=1, t=4.5379),  # 16x16x32
    FBNetRow(k=5, se=False, act="hswish", c=56, s=2, t=5.7133),  # 16x16x24
    FBNetRow(k=3, se=False, act="hswish", c=56, s=1, t=4.1212),  # 8x8x56
    FBNetRow(k=3, se=True, act="hswish", c=56, s=1, t=5.1246),  # 8x8x56
    SkipRow(c=80),  # 8x8x56
    FBNetRow(k=5, se=True, act="hswish", c=80, s=1, t=4.507),  # 8x8x80
    FBNetRow(k=5, se=True, act="hswish", c=80, s=1, t=1.7712),  # 8x8x80
    FBNetRow(k=3, se=True, act="hswish", c=144, s=2, t=4.5685),  # 8x8x80
    FBNetRow(k=5, se=True, act="hswish", c=144, s=1, t=5.84),  # 4x4x144
    FBNetRow(k=5, se=True, act="hswish", c=144, s=1, t=6.8754),  # 4x4x144
    SkipRow(c=224),  # 4x4x144
)
F4 = (
    FBNetRow(k=3, se=False, act="hswish", c=16, s=1, t=1),  # 112x112x16
    FBNetRow(k=5, se=False, act="hswish", c=24, s=2, t=5.4566),  # 112x112x16
    FBNetRow(k=5, se=False, act="hswish", c=24, s=1, t=1.7912),  # 56x56x24
    FBNetRow(k=5, se=False, act="hswish", c=24, s=1, t=1.7912),  # 56x56x24
    FBNetRow(k=5, se=True, act="relu", c=32, s=2, t=5.3501),  # 56x56x24
    FBNetRow(k=5, se=True, act="relu", c=32, s=1, t=3.5379),  # 28x28x32
    FBNetRow(k=5, se=True, act="relu", c=32, s=1, t=4.5379),  # 28x28x32
    FBNetRow(k=5, se=True, act="relu", c=32, s=1, t=4.5379),  # 28x28x32
    FBNetRow(k=5, se=False, act="hswish", c=64, s=2, t=5.7133),  # 28x28x32
    FBNetRow(k=3, se=False, act="hswish", c=64, s=1, t=2.1212),  # 14x14x64
    SkipRow(c=64),  # 14x14x64
    FBNetRow(k=3, se=False, act="hswish", c=104, s=1, t=5.0333),  # 14x14x64
    FBNetRow(k=5, se=True, act="hswish", c=104, s=1, t=2.507),  # 14x14x104
    FBNetRow(k=5, se=True, act="hswish", c=104, s=1, t=1.7712),  # 14x14x104
    FBNetRow(k=5, se=True, act="hswish", c=112, s=1, t=3.7712),  # 14x14x104
    FBNetRow(k=3, se=True, act="hswish", c=184, s=2, t=5.5685),  # 14x14x112
    FBNetRow(k=5, se=True, act="hswish", c=184, s=1, t=2.84),  # 7x7x184
    FBNetRow(k=5, se=True, act="hswish", c=184, s=1, t=4.8754),  # 7x7x184
    SkipRow(c=224),  # 7x7x184
)
L1 = (
    FBNetRow(k=3, se=False, act="hswish", c=16, s=1, t=1),  # 112x112x16
    FBNetRow(k=5, se=False, act="hswish", c=24, s=2, t=5.4566),  # 112x112x16
    FBNetRow(k=5, se=False, act="hswish", c=24, s=1, t=1.7912),  # 56x56x24
    FBNetRow(k=3, se=False, act="hswish", c=24, s=1, t=1.7912),  # 56x56x24
    FBNetRow(k=5, se=False, act="hswish", c=24, s=1, t=1.7912),  # 56x56x24
    FBNetRow(k=5, se=True, act="hswish", c=40, s=2, t=5.3501),  # 56x56x24
    FBNetRow(k=5, se=True, act="hswish", c=32, s=1, t=3.5379),  # 28x28x40
    FBNetRow(k=5, se=True, act="hswish", c=32, s=1, t=4.5379),  # 28x28x32
    FBNetRow(k=5, se=True, act="hswish", c=32, s=1, t=4.5379),  # 28x28x32
    FBNetRow(k=5, se=False, act="hswish", c=64, s=2, t=5.7133),  # 28x28x32
    FBNetRow(k=3, se=False, act="hswish", c=64, s=1, t=2.1212),  # 14x14x64
    SkipRow(c=64),  # 14x14x64
    FBNetRow(k=3, se=False, act="hswish", c=64, s=1, t=3.1246),  # 14x14x64
    FBNetRow(k=3, se=False, act="hswish", c=112, s=1, t=5.0333),  # 14x14x64
    FBNetRow(k=5, se=True, act="hswish", c=112, s=1, t=2.507),  # 14x14x112
    FBNetRow(k=5, se=True, act="hswish", c=112, s=1, t=1.7712),  # 14x14x112
    FBNetRow(k=5, se=True, act="hswish", c=112, s=1, t=2.7712),  # 14x14x112
    FBNetRow(k=5, se=True, act="hswish", c=112, s=1, t=3.7712),  # 14x14x112
    FBNetRow(k=5, se=True, act="hswish", c=112, s=1, t=3.7712),  # 14x14x112
    FBNetRow(k=3, se=True, act="hswish", c=184, s=2, t=5.5685),  # 14x14x112
    FBNetRow(k=5, se=True, act="hswish", c=184, s=1, t=2.84),  # 7x7x184
    FBNetRow(k=5, se=True, act="hswish", c=184, s=1, t=2.84),  # 7x7x184
    FBNetRow(k=5, se=True, act="hswish", c=184, s=1, t=4.8754),  # 7x7x184
    FBNetRow(k=5, se=True, act="hswish", c=184, s=1, t=4.8754),  # 7x7x184
    SkipRow(c=224),  # 7x7x184
)


@dataclass(frozen=True)
class Variant:
    """A published network: channels of the stem, table, expansion of the last 1x1 convolution, width before the
    classifier, resolution."""

    stem: int
    table: Table
    tail: int
    pre_logits: int
    resolution: int


VARIANTS = {
    "f0": Variant(8, F0, tail=4, pre_logits=1280, resolution=224),
    "f1": Variant(8, F1, tail=6, pre_logits=1600, resolution=128),
    "f2": Variant(8, F1, tail=6, pre_logits=1600, resolution=160),
    "f3": Variant(8, F1, tail=6, pre_logits=1984, resolution=192),
    "f4": Variant(16, F4, tail=6, pre_logits=1984, resolution=224),
    "l1": Variant(16, L1, tail=6, pre_logits=1984, resolution=224),
    "l2": Variant(16, L1, tail=6, pre_logits=1984, resolution=256),
}
# official code: torch's defaults
NORM = NormSpec(momentum=0.1, eps=1e-5)


def round_channels(channels: float) -> int:
    """To the nearest multiple of 8, halves up, at least 8, never below 0.95 of it (``get_divisible_by``)."""
    rounded = max(8, math.floor(channels / 8 + 0.5) * 8)
    return rounded + 8 if rounded < 0.95 * channels else rounded


RULES = Rules(round_channels=round_channels, squeeze_act=None)


def reduced(table: Table) -> Table:
    """Both cuts: the outputs of stride 32 halved, MobileNetV3's idea (6.3); none is published for FBNetV2."""
    first = max(i for i, row in enumerate(table) if isinstance(row, FBNetRow) and row.s == 2)
    return (*table[:first], *(replace(row, c=row.c // 2) for row in table[first:]))


def fbnetv2(
    variant: str,
    width_mult: float = 1.0,
    output_stride: int = 32,
    reduced_tail: str | None = None,
    dilation_rule: str = "old",
    scale_last_conv: bool = False,
) -> Architecture:
    """FBNetV2, resolved: inverted residuals with fractional expansions; squeeze-and-excite acts as its block does.

    The official stem's convolution has a bias before its normalisation, which changes no output; there is none here.

    Args:
        variant: a key of :data:`VARIANTS`.
        width_mult: multiplies all channel counts but ``pre_logits``, rounded to multiples of 8; published is 1 alone.
        output_stride, dilation_rule: see :func:`densevision.backbones.resolve.place`.
        reduced_tail: None, ``segmentation`` or ``detection``, which are the same here; the last 1x1 convolution
            follows, as it is a multiple of its input.
        scale_last_conv: of no effect, as the last 1x1 convolution always scales.
    """
    published = VARIANTS[variant]
    stem = round_channels(published.stem * width_mult)
    blocks = resolve_blocks(
        _rows(reduced(published.table) if reduced_tail else published.table, published.stem),
        published.stem,
        stem_channels=stem,
        width_mult=width_mult,
        output_stride=output_stride,
        dilation_rule=dilation_rule,
        rules=RULES,
    )
    last = blocks[-1].out_channels
    return Architecture(
        family=f"fbnetv2_{variant}",
        stem=ConvSpec(3, stem, kernel=3, stride=2, act="hswish"),
        blocks=blocks,
        last_conv=ConvSpec(last, round_channels(last * published.tail), kernel=1, stride=1, act="hswish"),
        top="c5",
        pre_logits=published.pre_logits,
        norm=NORM,
        pre_logits_bias=False,
    )


def _rows(table: Table, in_channels: int) -> tuple[Row | Skip, ...]:
    rows: list[Row | Skip] = []
    for row in table:
        if isinstance(row, SkipRow):
            rows.append(Skip(row.c))
        else:
            rows.append(Row(row.k, expand=row.t * in_channels, out=row.c, se=row.se, act=row.act, stride=row.s))
        in_channels = row.c
    return tuple(rows)
