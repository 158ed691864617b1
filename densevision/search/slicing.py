"""Real slicing: a narrower network gets the strongest channels of a wider one, in all layers that hold them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from densevision.backbones import Architecture, BlockSpec, FeatureInfo, PointwiseSpec, SandGlassSpec
from densevision.classification import Classifier
from densevision.detection.ssdlite import SSDLite, SSDLiteHead
from densevision.search.widths import trunk_roots
from densevision.segmentation.heads import LRASPPHead, RASPPHead
from densevision.segmentation.segmenter import Segmenter

Model = Segmenter | SSDLite | Classifier
Width = tuple[str, int]  # (trunk | inner | squeeze | last_conv, place or block)


@dataclass(frozen=True)
class Axes:
    """Which widths a module's tensors have along their first and second dimension; None: one that never changes.

    chooses: whether its filters say which channels of ``out`` are strong; depthwise convolutions, squeeze-and-excite
    and heads follow.
    """

    out: Width | None
    into: Width | None = None
    chooses: bool = False


def slice_weights(model: Model, child: Architecture, strongest: bool = True) -> dict[str, Tensor]:
    """The weights of ``model`` for a network whose backbone is ``child``: the same blocks, none wider.

    Of every width those channels stay whose filters have the largest L2 norm, summed over the layers that a residual
    sum ties; their order stays. Where nothing is removed every tensor is the model's own. Source: Yang et al.,
    NetAdapt (2018), 3.3.

    Args:
        strongest: False takes the first channels instead, as masked networks (:mod:`.supernet`) order them.

    Returns:
        a state dict for the model built from ``child`` with the same head; new tensors.
    """
    axes = channel_axes(model)
    kept = kept_channels(model, child)
    if not strongest:
        kept = {width: torch.arange(len(channels)) for width, channels in kept.items()}
    sliced = {}
    for name, tensor in model.state_dict().items():
        axis = axes.get(name.rpartition(".")[0])
        if axis is not None and tensor.ndim:
            if axis.out is not None:
                tensor = tensor[kept[axis.out]]
            if axis.into is not None and tensor.ndim > 1:
                tensor = tensor[:, kept[axis.into]]
        sliced[name] = tensor.detach().clone()
    return sliced


def kept_channels(model: Model, child: Architecture) -> dict[Width, Tensor]:
    """For every width of the model's network, the (n,) channels that ``child`` keeps, ascending."""
    parent = model.backbone.architecture
    before, after = width_sizes(parent), width_sizes(child)
    if before.keys() != after.keys() or any(after[width] > before[width] for width in before):
        raise ValueError("the sliced network must have its parent's blocks, none of them wider")
    strength = {width: torch.zeros(size) for width, size in before.items()}
    state = model.state_dict()
    for name, axis in channel_axes(model).items():
        if axis.chooses and axis.out is not None and f"{name}.weight" in state:
            strength[axis.out] += state[f"{name}.weight"].detach().float().cpu().flatten(1).square().sum(1)
    kept = {}
    for width, size in after.items():
        parts = [(0, before[width], size)]
        shared = _shared(parent, width), _shared(child, width)
        if shared[0]:  # a partial residual adds the first channels: as many of these stay as the child adds
            parts = [(0, shared[0], shared[1]), (shared[0], before[width], size - shared[1])]
        chosen = [first + strength[width][first:end].topk(count).indices for first, end, count in parts]
        kept[width] = torch.cat(chosen).sort().values
    return kept


def channel_axes(model: Model) -> dict[str, Axes]:
    """Module name -> its widths; modules that are not named keep all their channels."""
    axes = dict(_backbone_axes(model.backbone.architecture))
    axes.update(_head_axes(model))
    return axes


def _backbone_axes(architecture: Architecture) -> Iterator[tuple[str, Axes]]:
    roots = trunk_roots(architecture)
    trunk: list[Width] = [("trunk", root) for root in roots]
    yield from _layer("backbone.stem", Axes(trunk[0], chooses=True))
    for i, block in enumerate(architecture.blocks):
        name, before, after = f"backbone.blocks.{i}", trunk[i], trunk[i + 1]
        if isinstance(block, PointwiseSpec):
            yield from _layer(f"{name}.project", Axes(after, before, chooses=True))
            continue
        inner = _inner(architecture, i)
        if isinstance(block, SandGlassSpec):
            yield from _layer(f"{name}.first_depthwise", Axes(before))
            yield from _layer(f"{name}.reduce", Axes(inner, before, chooses=True))
            yield from _layer(f"{name}.expand", Axes(after, inner, chooses=True))
            yield from _layer(f"{name}.second_depthwise", Axes(after))
            continue
        yield from _layer(f"{name}.expand", Axes(inner, before, chooses=True))
        yield from _layer(f"{name}.depthwise", Axes(inner))
        yield f"{name}.se.reduce", Axes(("squeeze", i), inner, chooses=True)
        yield f"{name}.se.expand", Axes(inner, ("squeeze", i))
        yield from _layer(f"{name}.project", Axes(after, inner, chooses=True))
    yield from _layer("backbone.last_conv", Axes(("last_conv", 0), trunk[-1], chooses=True))


def _head_axes(model: Model) -> Iterator[tuple[str, Axes]]:
    head, info = model.head, model.backbone.feature_info
    names = (model.feature,) if isinstance(model, Classifier) else model.features
    widths = [_feature_width(model.backbone.architecture, info[name]) for name in names]
    if isinstance(head, RASPPHead):
        yield "head.pooled.conv", Axes(None, widths[0])
        yield "head.local.conv", Axes(None, widths[0])
    elif isinstance(head, LRASPPHead):
        yield "head.local.conv", Axes(None, widths[0])
        yield "head.gate.0", Axes(None, widths[0])
        yield "head.low_classifier", Axes(None, widths[1])
    elif isinstance(head, SSDLiteHead):
        for number, width in enumerate(widths):
            for predictors in ("class_predictors", "box_predictors"):
                yield from _layer(f"head.{predictors}.{number}.depthwise", Axes(width))
                yield f"head.{predictors}.{number}.project", Axes(None, width)
        yield "head.extras.0.reduce.conv", Axes(None, widths[-1])
    else:
        first = "pre_logits" if model.backbone.architecture.pre_logits else "fc"
        yield f"head.{first}", Axes(None, widths[0])


def _layer(name: str, axes: Axes) -> Iterator[tuple[str, Axes]]:
    """A convolution and its normalisation."""
    yield f"{name}.conv", axes
    yield f"{name}.norm", replace(axes, into=None, chooses=False)


def _feature_width(architecture: Architecture, info: FeatureInfo) -> Width:
    if info.layer == len(architecture.blocks):
        return ("last_conv", 0)
    if info.tap in ("expansion", "depthwise"):
        return _inner(architecture, info.layer)
    return ("trunk", trunk_roots(architecture)[info.layer + 1])


def _inner(architecture: Architecture, index: int) -> Width:
    """The width inside a block; without an expansion it is that of the block's input."""
    block = architecture.blocks[index]
    if isinstance(block, BlockSpec) and not block.expand:
        return ("trunk", trunk_roots(architecture)[index])
    return ("inner", index)


def width_sizes(architecture: Architecture) -> dict[Width, int]:
    """Channels of every width of a network."""
    sizes: dict[Width, int] = {("trunk", 0): architecture.stem.out_channels}
    roots = trunk_roots(architecture)
    for i, block in enumerate(architecture.blocks):
        sizes[("trunk", roots[i + 1])] = block.out_channels
        if isinstance(block, BlockSpec):
            sizes[_inner(architecture, i)] = block.expansion
            if block.squeeze:
                sizes[("squeeze", i)] = block.squeeze
        elif isinstance(block, SandGlassSpec):
            sizes[("inner", i)] = block.bottleneck
    if architecture.last_conv is not None:
        sizes[("last_conv", 0)] = architecture.last_conv.out_channels
    return sizes


def _shared(architecture: Architecture, width: Width) -> int:
    """How many of a trunk's first channels its residual sums add, where that is not all of them; else 0."""
    roots = trunk_roots(architecture)
    for place, block in enumerate(architecture.blocks):
        if isinstance(block, SandGlassSpec) and width == ("trunk", roots[place]) and block.residual_channels:
            return block.residual_channels if block.residual_channels < block.in_channels else 0
    return 0
