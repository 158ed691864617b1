"""ProxylessNAS-mobile (Cai et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from densevision.backbones.base import Architecture, ConvSpec
from densevision.backbones.resolve import Row, resolve_blocks
from densevision.layers import NormSpec, make_divisible


@dataclass(frozen=True)
class ProxylessRow:
    """A block of Figure 4: kernel k, expansion factor t (MB3, MB6), output channels c, stride s."""

    k: int
    t: int
    c: int
    s: int


# Figure 4 (c) of the paper, the network found for mobile phones; the stem before it is conv 3x3, 32 channels, stride 2
PROXYLESSNAS_MOBILE = (
    ProxylessRow(k=3, t=1, c=16, s=1),  # 112x112x32
    ProxylessRow(k=5, t=3, c=32, s=2),  # 112x112x16
    ProxylessRow(k=3, t=3, c=32, s=1),  # 56x56x32
    ProxylessRow(k=7, t=3, c=40, s=2),  # 56x56x32
    ProxylessRow(k=3, t=3, c=40, s=1),  # 28x28x40
    ProxylessRow(k=5, t=3, c=40, s=1),  # 28x28x40
    ProxylessRow(k=5, t=3, c=40, s=1),  # 28x28x40
    ProxylessRow(k=7, t=6, c=80, s=2),  # 28x28x40
    ProxylessRow(k=5, t=3, c=80, s=1),  # 14x14x80
    ProxylessRow(k=5, t=3, c=80, s=1),  # 14x14x80
    ProxylessRow(k=5, t=3, c=80, s=1),  # 14x14x80
    ProxylessRow(k=5, t=6, c=96, s=1),  # 14x14x80
    ProxylessRow(k=5, t=3, c=96, s=1),  # 14x14x96
    ProxylessRow(k=5, t=3, c=96, s=1),  # 14x14x96
    ProxylessRow(k=5, t=3, c=96, s=1),  # 14x14x96
    ProxylessRow(k=7, t=6, c=192, s=2),  # 14x14x96
    ProxylessRow(k=7, t=6, c=192, s=1),  # 7x7x192
    ProxylessRow(k=7, t=3, c=192, s=1),  # 7x7x192
    ProxylessRow(k=7, t=3, c=192, s=1),  # 7x7x192
    ProxylessRow(k=7, t=6, c=320, s=1),  # 7x7x192
)
STEM = 32
LAST_CONV = 1280
TAIL = 5  # blocks of stride 32
# official code: batch normalisation momentum 0.1, epsilon 1e-3
NORM = NormSpec(momentum=0.1, eps=1e-3)


def reduced(rows: tuple[ProxylessRow, ...]) -> tuple[ProxylessRow, ...]:
    """Both cuts: the outputs of the stride-32 blocks halved, as MobileNetV2's; none is published for ProxylessNAS."""
    return (*rows[:-TAIL], *(replace(row, c=row.c // 2) for row in rows[-TAIL:]))


def proxylessnas_mobile(
    width_mult: float = 1.0,
    output_stride: int = 32,
    reduced_tail: str | None = None,
    dilation_rule: str = "old",
    scale_last_conv: bool = False,
) -> Architecture:
    """ProxylessNAS-mobile, resolved: inverted residuals with kernels of 3, 5 and 7.

    Args:
        width_mult: multiplies all channel counts but the last 1x1 convolution's, rounded to multiples of 8; published
            is 1 alone.
        output_stride, dilation_rule: see :func:`densevision.backbones.resolve.place`.
        reduced_tail: None, ``segmentation`` or ``detection``; both halve the last 1x1 convolution too.
        scale_last_conv: multiply the last 1x1 convolution's channels too (SSDLite).
    """
    table = reduced(PROXYLESSNAS_MOBILE) if reduced_tail else PROXYLESSNAS_MOBILE
    inputs = (STEM, *(row.c for row in table))
    stem = make_divisible(STEM * width_mult)
    blocks = resolve_blocks(
        [
            Row(row.k, expand=row.t * c, out=row.c, se=False, act="relu6", stride=row.s)
            for c, row in zip(inputs, table, strict=False)
        ],
        STEM,
        stem_channels=stem,
        width_mult=width_mult,
        output_stride=output_stride,
        dilation_rule=dilation_rule,
    )
    last = make_divisible(LAST_CONV * width_mult) if scale_last_conv else LAST_CONV
    return Architecture(
        family="proxylessnas_mobile",
        stem=ConvSpec(3, stem, kernel=3, stride=2, act="relu6"),
        blocks=blocks,
        last_conv=ConvSpec(
            blocks[-1].out_channels, last // (2 if reduced_tail else 1), kernel=1, stride=1, act="relu6"
        ),
        top="c5",
        pre_logits=0,
        norm=NORM,
    )
