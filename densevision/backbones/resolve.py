"""From a paper's table to the flat list of blocks: width, squeeze-and-excite widths, strides and dilations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from densevision.backbones.base import BlockSpec
from densevision.layers import make_divisible


@dataclass(frozen=True)
class Row:
    """One block of a published table, at width 1 and output stride 32, in MobileNetV3's column order.

    kernel: of the depthwise convolution. expand: its channels. out: the block's output channels. se: whether it
    has squeeze-and-excite. act: its activation. stride: of the depthwise convolution.
    """

    kernel: int
    expand: int
    out: int
    se: bool
    act: str
    stride: int


@dataclass(frozen=True)
class Rules:
    """What a family does in all its blocks alike; the defaults are MobileNetV2's and V3's.

    round_channels: a scaled channel count -> the one that is built. squeeze_from: ``expansion`` (a quarter of it,
    rounded likewise) or ``input`` (a quarter of the block's input). gate: of squeeze-and-excite. project_act:
    activation after the projection. residual: whether equal input and output are added.
    """

    round_channels: Callable[[float], int] = make_divisible
    squeeze_from: str = "expansion"
    gate: str = "hard_sigmoid"
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


def resolve_blocks(
    rows: Sequence[Row],
    in_channels: int,
    *,
    stem_channels: int,
    width_mult: float = 1.0,
    output_stride: int = 32,
    dilation_rule: str = "old",
    rules: Rules = Rules(),
) -> tuple[BlockSpec, ...]:
    """The blocks that a table stands for.

    Outputs are rounded by the family's rule; an expansion keeps its ratio to the block's *scaled* input, as in TF-slim
    and timm (torchvision's V3 scales the table's expansion instead, which differs at width != 1).

    Args:
        rows: the table.
        in_channels: what the first row reads at width 1.
        stem_channels: the same at ``width_mult``.
        output_stride: where the stride has reached it, further strides become dilations and no weight changes.
        dilation_rule: ``old``: the block that loses its stride keeps the rate so far and those after it dilate
            (TF-slim ``mobilenet_base``, timm); ``new``: it takes the new rate itself (torchvision).
        rules: the family's.
    """
    blocks: list[BlockSpec] = []
    stage, stride, rate = 1, 2, 1  # after the stem
    scaled_in = stem_channels
    for row in rows:
        dilation = rate
        block_stride = row.stride
        stage += row.stride == 2
        if row.stride > 1 and stride >= output_stride:
            block_stride = 1
            rate *= row.stride
            dilation = rate if dilation_rule == "new" else dilation
        stride *= block_stride
        expansion = rules.round_channels(scaled_in * row.expand / in_channels)
        out = rules.round_channels(row.out * width_mult)
        quarter = scaled_in // 4 if rules.squeeze_from == "input" else rules.round_channels(expansion / 4)
        blocks.append(
            BlockSpec(
                in_channels=scaled_in,
                expansion=expansion,
                out_channels=out,
                kernel=row.kernel,
                stride=block_stride,
                dilation=dilation,
                squeeze=max(1, quarter) if row.se else 0,
                act=row.act,
                expand=expansion > scaled_in,
                residual=rules.residual and block_stride == 1 and scaled_in == out,
                stage=stage,
                gate=rules.gate,
                project_act=rules.project_act,
            )
        )
        in_channels, scaled_in = row.out, out
    return tuple(blocks)
