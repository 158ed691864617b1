"""The widths of a network: which layers share one, and the network with one of them changed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from densevision.backbones import Architecture, Block, BlockSpec, SandGlassSpec
from densevision.layers import make_divisible

STEP = 8  # channels: below it no runtime gets faster


@dataclass(frozen=True)
class WidthGroup:
    """Layers that have one width because they must.

    kind: ``inner`` (between the 1x1 convolutions of block ``members[0]``: the expansion, in a sandglass the
        bottleneck), ``trunk`` (between blocks: place p is what layer p - 1 gives, 0 being the stem; residual sums tie
        the places) or ``last_conv``.
    members: blocks, or places of the trunk.
    """

    kind: str
    members: tuple[int, ...]
    width: int

    @property
    def name(self) -> str:
        """``inner 4``, ``trunk 3-5``, ``last_conv``; blocks and places count from 0."""
        if self.kind == "last_conv":
            return self.kind
        first, last = self.members[0], self.members[-1]
        return f"{self.kind} {first}" if first == last else f"{self.kind} {first}-{last}"


def trunk_roots(architecture: Architecture) -> tuple[int, ...]:
    """For every place of the trunk, the first place that residual sums tie it to."""
    roots = [0]
    for place, block in enumerate(architecture.blocks, start=1):
        roots.append(roots[-1] if is_residual(block) else place)
    return tuple(roots)


def is_residual(block: Block) -> bool:
    """Whether the block's input is added to its output, all of it or in part."""
    if isinstance(block, SandGlassSpec):
        return block.residual_channels > 0
    return isinstance(block, BlockSpec) and block.residual


def inner_width(block: Block) -> int | None:
    """Channels between the block's 1x1 convolutions; None where they are those of its input."""
    if isinstance(block, SandGlassSpec):
        return block.bottleneck
    return block.expansion if isinstance(block, BlockSpec) and block.expand else None


def width_groups(architecture: Architecture) -> tuple[WidthGroup, ...]:
    """All widths that can be changed on their own, from the input to the output."""
    roots = trunk_roots(architecture)
    trunk = [architecture.stem.out_channels, *(block.out_channels for block in architecture.blocks)]
    groups: list[WidthGroup] = []
    for place, width in enumerate(trunk):
        if place:
            inner = inner_width(architecture.blocks[place - 1])
            if inner is not None:
                groups.append(WidthGroup("inner", (place - 1,), inner))
        if roots[place] == place:
            tied = tuple(p for p, root in enumerate(roots) if root == place)
            groups.append(WidthGroup("trunk", tied, width))
    if architecture.last_conv is not None:
        groups.append(WidthGroup("last_conv", (), architecture.last_conv.out_channels))
    return tuple(groups)


def with_width(architecture: Architecture, group: WidthGroup, width: int) -> Architecture:
    """The network with another width of a group; squeeze-and-excite and partial residuals follow in proportion."""
    if group.kind == "last_conv":
        assert architecture.last_conv is not None
        return replace(architecture, last_conv=replace(architecture.last_conv, out_channels=width))
    blocks = list(architecture.blocks)
    if group.kind == "inner":
        (index,) = group.members
        blocks[index] = _with_inner(blocks[index], width)
        return replace(architecture, blocks=tuple(blocks))
    for place in group.members:
        if place:
            blocks[place - 1] = replace(blocks[place - 1], out_channels=width)
        if place < len(blocks):
            blocks[place] = _with_input(blocks[place], width)
    stem, last = architecture.stem, architecture.last_conv
    if 0 in group.members:
        stem = replace(stem, out_channels=width)
    if last is not None and len(blocks) in group.members:
        last = replace(last, in_channels=width)
    return replace(architecture, stem=stem, blocks=tuple(blocks), last_conv=last)


def shrunk(architecture: Architecture, group: WidthGroup, step: int = STEP) -> Architecture | None:
    """The network with the group's width at the next lower multiple of ``step``; None where that would be nothing."""
    width = (group.width - 1) // step * step
    return with_width(architecture, group, width) if width >= step else None


def _with_inner(block: Block, width: int) -> Block:
    if isinstance(block, SandGlassSpec):
        return replace(block, bottleneck=width)
    assert isinstance(block, BlockSpec)
    squeeze = block.squeeze
    if squeeze and width < block.expansion:
        squeeze = min(squeeze, make_divisible(squeeze * width / block.expansion))
    return replace(block, expansion=width, squeeze=squeeze)


def _with_input(block: Block, width: int) -> Block:
    if isinstance(block, BlockSpec) and not block.expand:
        return replace(_with_inner(block, width), in_channels=width)
    if isinstance(block, SandGlassSpec):
        shared = round(width * block.residual_channels / block.in_channels)
        return replace(block, in_channels=width, residual_channels=shared)
    return replace(block, in_channels=width)
