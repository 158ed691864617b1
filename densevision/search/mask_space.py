"""What can be chosen in a supernet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from densevision.backbones import Architecture, BlockSpec
from densevision.layers import make_divisible
from densevision.search.widths import WidthGroup, width_groups, with_width


@dataclass(frozen=True)
class Operator:
    """A kind of block. squeeze: whether with squeeze-and-excite, the seed's or a quarter of the expansion."""

    kernel: int
    squeeze: bool
    act: str


class MaskSpace:
    """What is chosen in a supernet: widths, kinds of blocks, and the resolution.

    Args:
        seed: the network around which is searched.
        widths: factors of the seed's widths; the widest is what is built.
        expansions: what is between a block's 1x1 convolutions, as multiples of the channels that it reads (in the
            widest network); none takes the factors there too.
        operators: kinds of every inverted residual; none keeps the seed's. skip: whether residual blocks can go.
        strides: subsampling of the picture, for classifiers; dense predictions have their resolution in
            ``data.image_size``.
        step: channels that widths are multiples of.

    Attributes:
        widest: the network that holds all others. decisions: name -> how many choices, the narrowest or first first.
    """

    def __init__(
        self,
        seed: Architecture,
        widths: Sequence[float] = (0.5, 0.75, 1.0),
        expansions: Sequence[float] = (),
        operators: Sequence[Operator] = (),
        skip: bool = False,
        strides: Sequence[int] = (1,),
        step: int = 8,
    ) -> None:
        self.operators, self.skip, self.strides = tuple(operators), skip, tuple(strides)
        self.widths: dict[str, tuple[int, ...]] = {}
        widest = seed
        for index, group in enumerate(width_groups(seed)):
            factors, unit = widths, group.width
            if group.kind == "inner" and expansions:
                factors, unit = expansions, widest.blocks[group.members[0]].in_channels
            choices = sorted({make_divisible(unit * factor, step) for factor in factors})
            widest = with_width(widest, width_groups(widest)[index], choices[-1])
            if len(choices) > 1:
                self.widths[group.name] = tuple(choices)
        if operators:
            squeezed = any(operator.squeeze for operator in operators)
            widest = replace(widest, blocks=tuple(_with_squeeze(block, squeezed) for block in widest.blocks))
        self.widest = widest
        self.decisions = {name: len(choices) for name, choices in self.widths.items()}
        for i, block in enumerate(widest.blocks):
            if len(self.kinds(block)) > 1:
                self.decisions[f"block {i}"] = len(self.kinds(block))
        if len(self.strides) > 1:
            self.decisions["stride"] = len(self.strides)

    def group(self, name: str) -> WidthGroup:
        """The group of widths of that name, in the widest network."""
        return next(group for group in width_groups(self.widest) if group.name == name)

    def kinds(self, block: Any) -> tuple[Any, ...]:
        """The blocks that may stand in the place of the widest network's ``block``; None for no block."""
        if not isinstance(block, BlockSpec):
            return (block,)
        kinds: tuple[Any, ...] = tuple(_with_operator(block, operator) for operator in self.operators) or (block,)
        return (*kinds, None) if self.skip and block.residual else kinds

    def derive(self, choice: Mapping[str, int]) -> Architecture:
        """The network of a choice, the resolution aside."""
        network = self.widest
        for name, widths in self.widths.items():
            index = [group.name for group in width_groups(network)].index(name)
            network = with_width(network, width_groups(network)[index], widths[choice[name]])
        blocks = []
        for i, (block, wide) in enumerate(zip(network.blocks, self.widest.blocks, strict=True)):
            number = choice.get(f"block {i}", 0)
            if self.kinds(wide)[number] is None:
                continue
            if isinstance(block, BlockSpec) and self.operators:
                block = _with_operator(block, self.operators[number])
            blocks.append(block)
        return replace(network, blocks=tuple(blocks))

    def random(self, generator: torch.Generator) -> dict[str, int]:
        """A choice by chance, all alike likely."""
        return {name: int(torch.randint(count, (), generator=generator)) for name, count in self.decisions.items()}


def _with_operator(block: Any, operator: Operator) -> Any:
    squeeze = block.squeeze if operator.squeeze else 0
    return replace(block, kernel=operator.kernel, act=operator.act, squeeze=squeeze)


def _with_squeeze(block: Any, squeezed: bool) -> Any:
    """An inverted residual with the squeeze-and-excite that its kinds are built with."""
    if not isinstance(block, BlockSpec):
        return block
    return replace(block, squeeze=(block.squeeze or make_divisible(block.expansion / 4)) if squeezed else 0)
