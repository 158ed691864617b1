"""MnasNet's factorised space around a seed network: blocks of equal layers, a few choices a block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from densevision.backbones import Architecture, Block, BlockSpec, PointwiseSpec, SandGlassSpec
from densevision.config.lookup import lookup
from densevision.layers import make_divisible
from densevision.search.widths import inner_width

Choice = tuple[int, ...]  # the number of the value chosen for each decision
# operator -> expansion as a multiple of the layer's input; seed keeps what the seed has there
OPERATORS: dict[str, int | None] = {"seed": None, "sepconv": 1, "mbconv3": 3, "mbconv6": 6}


@dataclass(frozen=True)
class Decision:
    """One thing to be chosen. name: ``block 3 kernel``. values: what there is to choose from."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class SpaceOptions:
    """The choices of every block (MnasNet paper, 3.2), as ``search.space`` of a configuration has them.

    operators: of :data:`OPERATORS`; the paper's regular convolution is none of this project's blocks.
    squeeze: ratios of squeeze-and-excite to the expansion, 0 for none.
    skip: whether equal input and output are added. widths: factors of the seed's. layers: more or fewer than the seed.
    """

    operators: Sequence[str] = ("sepconv", "mbconv3", "mbconv6")
    kernels: Sequence[int] = (3, 5)
    squeeze: Sequence[float] = (0.0, 0.25)
    skip: Sequence[bool] = (True, False)
    widths: Sequence[float] = (0.75, 1.0, 1.25)
    layers: Sequence[int] = (-1, 0, 1)


class BlockSpace:
    """All networks that the choices give around a seed.

    A block is a run of the seed's layers with one width; its layers share all choices. Strides, dilations, activations
    and the last convolution are the seed's, so that heads find their maps.

    Attributes:
        decisions: in the order of a :data:`Choice`, six a block.
    """

    def __init__(self, seed: Architecture, options: SpaceOptions = SpaceOptions()) -> None:
        for operator in options.operators:
            lookup("operator", operator, OPERATORS, key="search.space.operators")
        self.seed = seed
        self.runs = equal_runs(seed.blocks)
        values = {
            "operator": options.operators,
            "kernel": options.kernels,
            "squeeze": options.squeeze,
            "skip": options.skip,
            "width": options.widths,
            "layers": options.layers,
        }
        self.decisions = tuple(
            Decision(f"block {number} {name}", tuple(choices))
            for number in range(len(self.runs))
            for name, choices in values.items()
        )

    def has_choices(self) -> bool:
        """Whether any decision makes another network of the first of all choices; rounded widths may be equal."""
        first = (0,) * len(self.decisions)
        choices = ((*first[:i], v, *first[i + 1 :]) for i, size in enumerate(self.sizes) for v in range(1, size))
        network = self.decode(first)
        return any(self.decode(choice) != network for choice in choices)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each decision has."""
        return tuple(len(decision.values) for decision in self.decisions)

    def decode(self, choice: Choice) -> Architecture:
        """The network of a choice."""
        values = [decision.values[index] for decision, index in zip(self.decisions, choice, strict=True)]
        blocks: list[Block] = []
        channels = self.seed.stem.out_channels
        for number, run in enumerate(self.runs):
            operator, kernel, squeeze, skip, width, more = values[6 * number : 6 * number + 6]
            out = make_divisible(run[0].out_channels * width)
            for layer in range(max(1, len(run) + more)):
                like = run[min(layer, len(run) - 1)]
                if layer and like.stride > 1:  # the seed has a single layer here; only that one halves the map
                    assert not isinstance(like, PointwiseSpec)
                    like = replace(like, stride=1)
                blocks.append(_layer(like, channels, out, operator, kernel, squeeze, skip))
                channels = out
        last = self.seed.last_conv and replace(self.seed.last_conv, in_channels=channels)
        return replace(self.seed, blocks=tuple(blocks), last_conv=last)


def equal_runs(blocks: Sequence[Block]) -> tuple[tuple[Block, ...], ...]:
    """The seed's blocks cut where the stage or the width changes."""
    runs: list[list[Block]] = []
    for block in blocks:
        if runs and (runs[-1][-1].stage, runs[-1][-1].out_channels) == (block.stage, block.out_channels):
            runs[-1].append(block)
        else:
            runs.append([block])
    return tuple(map(tuple, runs))


def _layer(like: Block, channels: int, out: int, operator: str, kernel: int, squeeze: float, skip: bool) -> Block:
    """One layer from ``channels`` to ``out``, at the place of the seed's ``like``."""
    factor = OPERATORS[operator]
    same = like.stride == 1 and channels == out
    if factor is None and isinstance(like, PointwiseSpec):
        return replace(like, in_channels=channels, out_channels=out)
    if factor is None and isinstance(like, SandGlassSpec):
        inner = make_divisible(channels * like.bottleneck / like.in_channels)
        return replace(
            like,
            in_channels=channels,
            bottleneck=inner,
            out_channels=out,
            kernel=kernel,
            residual_channels=channels if same and skip else 0,
        )
    ratio = (inner_width(like) or like.in_channels) / like.in_channels if factor is None else factor
    expansion = channels if ratio == 1 else make_divisible(channels * ratio)
    plain = BlockSpec(
        in_channels=channels,
        expansion=expansion,
        out_channels=out,
        kernel=kernel,
        stride=like.stride,
        dilation=like.dilation,
        squeeze=make_divisible(expansion * squeeze) if squeeze else 0,
        act=like.act,
        expand=expansion != channels,
        residual=same and skip,
        stage=like.stage,
    )
    if isinstance(like, BlockSpec):
        return replace(plain, gate=like.gate, squeeze_act=like.squeeze_act, project_act=like.project_act)
    return plain
