"""What a network costs, as a function of its table: a sum over its layers, and the head's part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from densevision.backbones import Architecture, Block, BlockSpec, ConvSpec, PointwiseSpec
from densevision.errors import UserError
from densevision.latency_table import LatencyTable, MapShape, Size
from densevision.layers import ConvNormAct, NormSpec
from densevision.search.slicing import Model

# table -> the whole model, head included; its weights are of no meaning
Build = Callable[[Architecture], Model]


@dataclass
class Cost:
    """A figure of a network that a search holds down; found once a network.

    unit: for people. of: table -> figure.
    """

    unit: str
    of: Callable[[Architecture], float]
    _known: dict[Architecture, float] = field(default_factory=dict)

    def __call__(self, architecture: Architecture) -> float:
        if architecture not in self._known:
            self._known[architecture] = self.of(architecture)
        return self._known[architecture]


def madds_cost(build: Build, image_size: Size) -> Cost:
    """Millions of multiply-adds of convolutions and linear layers on one picture of (H, W), as ``profile`` counts."""
    return summed_cost("million multiply-adds", build, image_size, layer_madds, head_madds, 1e-6)


def params_cost(build: Build, image_size: Size) -> Cost:
    """Millions of trainable parameters; the size of the picture is of no meaning."""

    def head_params(model: Model, maps: Sequence[MapShape]) -> float:
        return sum(p.numel() for p in model.head.parameters())

    return summed_cost("million parameters", build, image_size, layer_params, head_params, 1e-6)


def latency_cost(build: Build, image_size: Size, table: LatencyTable) -> Cost:
    """Milliseconds of one picture of (H, W) on the machine of ``table``: what the network's parts take, summed."""

    def rest(model: Model, maps: Sequence[MapShape]) -> float:
        return table.head(model, maps) + table.preprocess(model, image_size)

    return summed_cost("ms", build, image_size, table.layer, rest)


def summed_cost(
    unit: str,
    build: Build,
    image_size: Size,
    layer: Callable[[Block | ConvSpec, Size], float],
    head: Callable[[Model, Sequence[MapShape]], float],
    scale: float = 1.0,
) -> Cost:
    """A cost that is a sum over the layers of the backbone, and the head.

    The head's part depends on the widths of the maps that it reads alone, so a network is built for new ones only.

    Args:
        layer: a layer and the (H, W) that it reads -> its part.
        head: a model and the shapes of the maps that its head reads -> the head's part.
        scale: of the sum, to the unit.
    """
    heads: dict[tuple[int, ...], float] = {}
    names: list[str] = []

    def of(architecture: Architecture) -> float:
        if not names:
            names.extend(build(architecture).backbone.feature_info)
        widths = tuple(architecture.feature_info[name].channels for name in names)
        if widths not in heads:
            heads[widths] = head(build(architecture), map_shapes(architecture, names, image_size))
        body = sum(layer(spec, size) for spec, size in backbone_layers(architecture, names, image_size))
        return (body + heads[widths]) * scale

    return Cost(unit, of)


def map_shapes(architecture: Architecture, features: Sequence[str], image_size: Size) -> list[MapShape]:
    """(C, H, W) of the features, on a picture of (H, W)."""
    found = [architecture.feature_info[name] for name in features]
    return [(info.channels, -(-image_size[0] // info.stride), -(-image_size[1] // info.stride)) for info in found]


def head_madds(model: Model, maps: Sequence[MapShape]) -> float:
    """Multiply-adds of convolutions and linear layers in the head."""
    head = model.head.to("meta", torch.float32).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        head(*(torch.empty(1, *shape, device="meta") for shape in maps))
    return counter.get_total_flops() / 2


def backbone_layers(
    architecture: Architecture, features: Sequence[str], image_size: Size
) -> Iterator[tuple[Block | ConvSpec, Size]]:
    """The layers that are built for ``features``, each with the (H, W) that it reads."""
    deepest = max(architecture.feature_info[name].layer for name in features)
    size = image_size
    for index, spec in enumerate((architecture.stem, *architecture.blocks, architecture.last_conv), start=-1):
        if spec is not None and index <= deepest:
            yield spec, size
            size = (-(-size[0] // spec.stride), -(-size[1] // spec.stride))


def layer_madds(spec: Block | ConvSpec, size: Size) -> int:
    """Multiply-adds of the convolutions of a layer that reads maps of (H, W)."""
    read = size[0] * size[1]
    given = -(-size[0] // spec.stride) * -(-size[1] // spec.stride)
    if isinstance(spec, ConvSpec):
        return spec.kernel**2 * spec.in_channels * spec.out_channels * given
    if isinstance(spec, PointwiseSpec):
        return spec.in_channels * spec.out_channels * given
    if isinstance(spec, BlockSpec):
        expand = spec.in_channels * spec.expansion * read if spec.expand else 0
        depthwise = spec.kernel**2 * spec.expansion * given
        return expand + depthwise + 2 * spec.expansion * spec.squeeze + spec.expansion * spec.out_channels * given
    first = spec.kernel**2 * spec.in_channels * read if spec.first_depthwise else 0
    second = spec.kernel**2 * spec.out_channels * given if spec.second_depthwise else 0
    return first + spec.bottleneck * (spec.in_channels + spec.out_channels) * read + second


@cache
def layer_params(spec: Block | ConvSpec, size: Size) -> int:
    """Trainable parameters of a layer; the size is of no meaning."""
    norm = NormSpec(momentum=0.1, eps=1e-5)
    with torch.device("meta"):
        layer: Any = (
            ConvNormAct(spec.in_channels, spec.out_channels, spec.kernel, act=None, norm=norm)
            if isinstance(spec, ConvSpec)
            else spec.build(norm, until="output")
        )
    return sum(p.numel() for p in layer.parameters())


def absolute_target(target: Any, seed_cost: float) -> float:
    """``0.7x`` is a share of the seed's cost, a plain number is in the cost's unit.

    Raises:
        UserError: neither, or not positive.
    """
    text = str(target).strip()
    try:
        value = float(text.removesuffix("x")) * (seed_cost if text.endswith("x") else 1.0)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise UserError(
            f"expected a share of the seed's cost such as 0.7x, or a number in the cost's unit, got {target!r}",
            key="search.target",
        )
    return value
