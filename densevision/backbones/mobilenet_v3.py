"""MobileNetV3-Large and -Small (Howard et al., 2019), and the minimalistic ones of its official code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from densevision.backbones.base import Architecture, ConvSpec
from densevision.backbones.resolve import Row, halve_outputs, resolve_blocks
from densevision.layers import NormSpec, make_divisible

# Table 1 of the paper; the stem before it is conv2d 3x3, 16 channels, h-swish, stride 2
LARGE = (
    Row(kernel=3, expand=16, out=16, se=False, act="relu", stride=1),  # 112x112x16
    Row(kernel=3, expand=64, out=24, se=False, act="relu", stride=2),  # 112x112x16
    Row(kernel=3, expand=72, out=24, se=False, act="relu", stride=1),  # 56x56x24
    Row(kernel=5, expand=72, out=40, se=True, act="relu", stride=2),  # 56x56x24
    Row(kernel=5, expand=120, out=40, se=True, act="relu", stride=1),  # 28x28x40
    Row(kernel=5, expand=120, out=40, se=True, act="relu", stride=1),  # 28x28x40
    Row(kernel=3, expand=240, out=80, se=False, act="hswish", stride=2),  # 28x28x40
    Row(kernel=3, expand=200, out=80, se=False, act="hswish", stride=1),  # 14x14x80
    Row(kernel=3, expand=184, out=80, se=False, act="hswish", stride=1),  # 14x14x80
    Row(kernel=3, expand=184, out=80, se=False, act="hswish", stride=1),  # 14x14x80
    Row(kernel=3, expand=480, out=112, se=True, act="hswish", stride=1),  # 14x14x80
    Row(kernel=3, expand=672, out=112, se=True, act="hswish", stride=1),  # 14x14x112
    Row(kernel=5, expand=672, out=160, se=True, act="hswish", stride=2),  # 14x14x112
    Row(kernel=5, expand=960, out=160, se=True, act="hswish", stride=1),  # 7x7x160
    Row(kernel=5, expand=960, out=160, se=True, act="hswish", stride=1),  # 7x7x160
)
# Table 2 of the paper
SMALL = (
    Row(kernel=3, expand=16, out=16, se=True, act="relu", stride=2),  # 112x112x16
    Row(kernel=3, expand=72, out=24, se=False, act="relu", stride=2),  # 56x56x16
    Row(kernel=3, expand=88, out=24, se=False, act="relu", stride=1),  # 28x28x24
    Row(kernel=5, expand=96, out=40, se=True, act="hswish", stride=2),  # 28x28x24
    Row(kernel=5, expand=240, out=40, se=True, act="hswish", stride=1),  # 14x14x40
    Row(kernel=5, expand=240, out=40, se=True, act="hswish", stride=1),  # 14x14x40
    Row(kernel=5, expand=120, out=48, se=True, act="hswish", stride=1),  # 14x14x40
    Row(kernel=5, expand=144, out=48, se=True, act="hswish", stride=1),  # 14x14x48
    Row(kernel=5, expand=288, out=96, se=True, act="hswish", stride=2),  # 14x14x48
    Row(kernel=5, expand=576, out=96, se=True, act="hswish", stride=1),  # 7x7x96
    Row(kernel=5, expand=576, out=96, se=True, act="hswish", stride=1),  # 7x7x96
)
STEM = 16
TAIL = 3  # both cuts touch the last three blocks and the 1x1 convolution after them
# TF-slim: batch normalisation decay 0.997, epsilon 1e-3
NORM = NormSpec(momentum=0.003, eps=1e-3)


def halve_tail(rows: Sequence[Row], first: int) -> tuple[Row, ...]:
    """The segmentation cut: outputs and expansions halved from block ``first`` on, its own expansion included.

    Source: DeepLab ``feature_extractor.py``, ``mobilenet_v3_large_seg`` (expansions 336, 480, 480) and ``_small_seg``
    (144, 288, 288).
    """
    return (*rows[:first], *(replace(row, expand=row.expand // 2, out=row.out // 2) for row in rows[first:]))


def minimalistic(rows: Sequence[Row]) -> tuple[Row, ...]:
    """What every runtime does fast: kernels of 3, ReLU, no squeeze-and-excite; all widths stay.

    Source: TF-slim ``mobilenet_v3.py``, ``V3_LARGE_MINIMALISTIC`` and ``V3_SMALL_MINIMALISTIC``.
    """
    return tuple(replace(row, kernel=3, se=False, act="relu") for row in rows)


def move_hswish(architecture: Architecture, channels: int) -> Architecture:
    """The ablation of Table 5: h-swish from the first block with at least ``channels`` outputs on, ReLU before it.

    The published networks are h-swish @80 (Large) with h-swish in the stem too, which it keeps here; 0 is ReLU
    everywhere.
    """
    first = next((i for i, b in enumerate(architecture.blocks) if b.out_channels >= channels), len(architecture.blocks))
    blocks = [
        replace(b, act="hswish" if channels and i >= first else "relu") for i, b in enumerate(architecture.blocks)
    ]
    act = "hswish" if channels else "relu"
    last = architecture.last_conv and replace(architecture.last_conv, act=act)
    return replace(architecture, stem=replace(architecture.stem, act=act), blocks=tuple(blocks), last_conv=last)


def mobilenet_v3_large(
    width_mult: float = 1.0,
    output_stride: int = 32,
    reduced_tail: str | None = None,
    dilation_rule: str = "old",
    scale_last_conv: bool = False,
) -> Architecture:
    """MobileNetV3-Large, resolved; the arguments are those of :func:`mobilenet_v3_small`."""
    return _mobilenet_v3("large", LARGE, "hswish", width_mult, output_stride, reduced_tail, dilation_rule)


def mobilenet_v3_small(
    width_mult: float = 1.0,
    output_stride: int = 32,
    reduced_tail: str | None = None,
    dilation_rule: str = "old",
    scale_last_conv: bool = False,
) -> Architecture:
    """MobileNetV3-Small, resolved.

    The paper's Table 2 marks squeeze-and-excite on the last 1x1 convolution; TF-slim, torchvision and timm have
    none there, nor has this.

    Args:
        width_mult: multiplies all channel counts, rounded to multiples of 8, except that ``pre_logits`` is never
            narrower than published.
        output_stride, dilation_rule: see :func:`densevision.backbones.resolve.place`.
        reduced_tail: None, ``segmentation`` (:func:`halve_tail`) or ``detection``
            (:func:`densevision.backbones.resolve.halve_outputs`); both halve the last 1x1 convolution too.
        scale_last_conv: of no effect, as V3's always scales.
    """
    return _mobilenet_v3("small", SMALL, "hswish", width_mult, output_stride, reduced_tail, dilation_rule)


def mobilenet_v3_large_minimalistic(
    width_mult: float = 1.0,
    output_stride: int = 32,
    reduced_tail: str | None = None,
    dilation_rule: str = "old",
    scale_last_conv: bool = False,
) -> Architecture:
    """MobileNetV3-Large, :func:`minimalistic`; the arguments are those of :func:`mobilenet_v3_small`."""
    return _mobilenet_v3("large_minimalistic", LARGE, "relu", width_mult, output_stride, reduced_tail, dilation_rule)


def mobilenet_v3_small_minimalistic(
    width_mult: float = 1.0,
    output_stride: int = 32,
    reduced_tail: str | None = None,
    dilation_rule: str = "old",
    scale_last_conv: bool = False,
) -> Architecture:
    """MobileNetV3-Small, :func:`minimalistic`; the arguments are those of :func:`mobilenet_v3_small`."""
    return _mobilenet_v3("small_minimalistic", SMALL, "relu", width_mult, output_stride, reduced_tail, dilation_rule)


def _mobilenet_v3(
    variant: str,
    table: tuple[Row, ...],
    act: str,
    width_mult: float,
    output_stride: int,
    reduced_tail: str | None,
    dilation_rule: str,
) -> Architecture:
    last_conv, pre_logits = (960, 1280) if table is LARGE else (576, 1024)
    if act == "relu":
        table = minimalistic(table)
    if reduced_tail:
        cut = {"segmentation": halve_tail, "detection": halve_outputs}[reduced_tail]
        table = cut(table, len(table) - TAIL)
        last_conv //= 2
    stem = make_divisible(STEM * width_mult)
    blocks = resolve_blocks(
        table,
        STEM,
        stem_channels=stem,
        width_mult=width_mult,
        output_stride=output_stride,
        dilation_rule=dilation_rule,
    )
    return Architecture(
        family=f"mobilenet_v3_{variant}",
        stem=ConvSpec(3, stem, kernel=3, stride=2, act=act),
        blocks=blocks,
        last_conv=ConvSpec(
            blocks[-1].out_channels, make_divisible(last_conv * width_mult), kernel=1, stride=1, act=act
        ),
        top="last_conv",
        pre_logits=max(pre_logits, make_divisible(pre_logits * width_mult)),
        norm=NORM,
    )
