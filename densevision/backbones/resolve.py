"""From a paper's table to the flat list of blocks: width, squeeze-and-excite widths, strides and dilations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from densevision.backbones.base import Block, BlockSpec, PointwiseSpec
from densevision.layers import make_divisible


@dataclass(frozen=True)
class Row:
    """One block of a published table, at width 1 and output stride 32, in MobileNetV3's column order.

    kernel: of the depthwise convolution. expand: its channels. out: the block's output channels. se: whether it
    has squeeze-and-excite. act: its activation. stride: of the depthwise convolution.
    """

    kernel: int
    expand: float
    out: int
    se: bool
    act: str
    stride: int


@dataclass(frozen=True)
class Skip:
    """No block, or a 1x1 convolution with ReLU to ``out`` channels where that is another number than before."""

    out: int
    stride: int = 1


@dataclass(frozen=True)
class Rules:
    """What a family does in all its blocks alike; the defaults are MobileNetV2's and V3's.

    round_channels: a scaled channel count -> the one that is built. squeeze_from: ``expansion`` (a quarter of it,
    rounded likewise) or ``input`` (a quarter of the block's input). gate: of squeeze-and-excite. squeeze_act: the
    activation inside it, None for the block's own. project_act: activation after the projection. residual: whether
    equal input and output are added.
    """

    round_channels: Callable[[float], int] = make_divisible
    squeeze_from: str = "expansion"
    gate: str = "hard_sigmoid"
    squeeze_act: str | None = "relu"
    project_act: str | None = None
    residual: bool = True


def halve_outputs(rows: Sequence[Row], first: int) -> tuple[Row, ...]:
    """The detection cut: outputs from block ``first`` on are halved, expansions keep their ratio to their input.

    Source: TF-slim ``mobilenet_v3.py``, ``_reduce_consecutive_layers`` (V3_LARGE_DETECTION, V3_SMALL_DETECTION).
    """
    cut = list(rows[:first])
    for i in range(first, len(rows)):
        ratio = rows[i].expand // rows[i - 1].out
        cut.append(replace(rows[i], expand=ratio * cut[-1].out, out=rows[i].out // 2))
    return tuple(cut)


@dataclass(frozen=True)
class Place:
    """Where a block stands: its stage (see :class:`BlockSpec`), and the stride and dilation that it is built with."""

    stage: int
    stride: int
    dilation: int


def place(strides: Sequence[int], output_stride: int = 32, dilation_rule: str = "old") -> tuple[Place, ...]:
    """The blocks behind a stem of stride 2, given their published strides.

    Args:
        output_stride: where the stride has reached it, further strides become dilations and no weight changes.
        dilation_rule: ``old``: the block that loses its stride keeps the rate so far and those after it dilate
            (TF-slim ``mobilenet_base``, timm); ``new``: it takes the new rate itself (torchvision).
    """
    places: list[Place] = []
    stage, total, rate = 1, 2, 1
    for published in strides:
        stride, dilation = published, rate
        stage += published == 2
        if published > 1 and total >= output_stride:
            stride = 1
            rate *= published
            dilation = rate if dilation_rule == "new" else dilation
        total *= stride
        places.append(Place(stage, stride, dilation))
    return tuple(places)


def resolve_blocks(
    rows: Sequence[Row | Skip],
    in_channels: int,
    *,
    stem_channels: int,
    width_mult: float = 1.0,
    output_stride: int = 32,
    dilation_rule: str = "old",
    rules: Rules = Rules(),
) -> tuple[Block, ...]:
    """The blocks that a table stands for.

    Outputs are rounded by the family's rule; an expansion keeps its ratio to the block's *scaled* input, as in TF-slim
    and timm (torchvision's V3 scales the table's expansion instead, which differs at width != 1).

    Args:
        rows: the table.
        in_channels: what the first row reads at width 1.
        stem_channels: the same at ``width_mult``.
        output_stride, dilation_rule: see :func:`place`.
        rules: the family's.
    """
    blocks: list[Block] = []
    scaled_in = stem_channels
    places = place([row.stride for row in rows], output_stride, dilation_rule)
    for row, spot in zip(rows, places, strict=True):
        out = rules.round_channels(row.out * width_mult)
        if isinstance(row, Row):
            expansion = rules.round_channels(scaled_in * row.expand / in_channels)
            quarter = scaled_in // 4 if rules.squeeze_from == "input" else rules.round_channels(expansion / 4)
            blocks.append(
                BlockSpec(
                    in_channels=scaled_in,
                    expansion=expansion,
                    out_channels=out,
                    kernel=row.kernel,
                    stride=spot.stride,
                    dilation=spot.dilation,
                    squeeze=max(1, quarter) if row.se else 0,
                    act=row.act,
                    expand=expansion > scaled_in,
                    residual=rules.residual and spot.stride == 1 and scaled_in == out,
                    stage=spot.stage,
                    gate=rules.gate,
                    squeeze_act=rules.squeeze_act or row.act,
                    project_act=rules.project_act,
                )
            )
        elif out != scaled_in:
            blocks.append(PointwiseSpec(scaled_in, out, act="relu", stage=spot.stage))
        in_channels, scaled_in = row.out, out
    return tuple(blocks)
