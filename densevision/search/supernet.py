"""DMaskingNAS's supernet: one network, masks over its channels, and its effective cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from densevision.backbones import Architecture, BlockSpec, SandGlassSpec
from densevision.backbones.base import INIT_STD
from densevision.classification import Classifier
from densevision.errors import UserError
from densevision.layers import NormSpec, truncated_normal_
from densevision.search.costs import Build, Size, backbone_layers, head_madds, layer_madds, map_shapes
from densevision.search.mask_space import MaskSpace
from densevision.search.slicing import Width, channel_axes, width_sizes
from densevision.search.spatial import AtResolutions, HeadAtResolutions
from densevision.search.widths import trunk_roots, with_width

Gates = Mapping[str, Tensor]  # decision -> (n,) shares that sum to 1


class MixedBlock(nn.Module):
    """Several kinds of a block side by side; their outputs are summed by the gates. A kind of None is the input.

    (B, C, H, W) -> (B, C', H', W'); taps as :class:`densevision.layers.InvertedResidual` gives them.
    """

    def __init__(self, options: Sequence[nn.Module]) -> None:
        super().__init__()
        self.options = nn.ModuleList(options)
        self.gates = torch.ones(len(options)) / len(options)

    def forward(self, x: Tensor, taps: dict[str, Tensor] | None = None) -> Tensor:
        total: Tensor | None = None
        found: dict[str, Tensor] = {}
        for gate, option in zip(self.gates, self.options, strict=True):
            inner: dict[str, Tensor] = {}
            out = x if isinstance(option, nn.Identity) else option(x, inner)
            total = gate * out if total is None else total + gate * out
            for name, value in inner.items():
                found[name] = found[name] + gate * value if name in found else gate * value
        assert total is not None
        if taps is not None:
            taps.update(found)
        return total


class Supernet:
    """A model of the space's widest network whose layers are masked, and what it costs at the present gates.

    Masks stand behind normalisation and activation: there they silence a channel, before them its shift would speak.
    All layers that read or give a width share its mask, so that with gates of 0 and 1 the model is the sliced network,
    to the bit, and :meth:`cost` its counted multiply-adds.

    Args:
        build: table -> model, head included.
        image_size: (H, W) that is counted for.

    Attributes:
        model: to be trained as any other. theta: the logits of every decision.
    """

    def __init__(self, build: Build, space: MaskSpace, image_size: Size) -> None:
        self.space, self.image_size = space, image_size
        self.model = build(space.widest)
        self.theta = nn.ParameterDict(
            {name.replace(" ", "_"): nn.Parameter(torch.zeros(n)) for name, n in space.decisions.items()}
        )
        self._sizes: dict[str, dict[Width, tuple[int, ...]]] = {}
        for name, widths in space.widths.items():
            tables = [width_sizes(with_width(space.widest, space.group(name), width)) for width in widths]
            own = {w: tuple(table[w] for table in tables) for w in tables[0]}
            self._sizes[name] = {width: sizes for width, sizes in own.items() if len(set(sizes)) > 1}
        self.names = list(self.model.backbone.feature_info)
        self._build = build
        self._heads: dict[Size, tuple[float, dict[str, float]]] = {}
        self._full = width_sizes(space.widest)
        self._masks: dict[Width, Tensor] = {}
        self._mixed: dict[int, MixedBlock] = {}
        self._mix_blocks()
        self._hook()
        self.stride_gates = torch.ones(1)
        if len(space.strides) > 1:
            self._search_resolution()
        self.set_gates({name: torch.full((n,), 1.0 / n) for name, n in space.decisions.items()})

    def sample(self, temperature: float) -> dict[str, Tensor]:
        """Gumbel-softmax gates of all decisions; gradients flow to :attr:`theta`."""
        return {name: nn.functional.gumbel_softmax(self.logits(name), temperature) for name in self.space.decisions}

    def set_gates(self, gates: Gates) -> None:
        """What the model computes, and costs, from now on."""
        self.gates = dict(gates)
        self._masks = {}
        for name, sizes in self._sizes.items():
            for width, choices in sizes.items():
                channels = torch.arange(max(choices), device=gates[name].device)
                prefixes = (channels < torch.tensor(choices, device=channels.device)[:, None]).to(gates[name].dtype)
                self._masks[width] = gates[name] @ prefixes
        for i, mixed in self._mixed.items():
            mixed.gates = gates[f"block {i}"]
        if len(self.space.strides) > 1:
            self.stride_gates = gates["stride"]

    def best(self) -> dict[str, int]:
        """The likeliest choice."""
        return {name: int(self.logits(name).argmax()) for name in self.space.decisions}

    def logits(self, name: str) -> Tensor:
        """Of a decision."""
        return self.theta[name.replace(" ", "_")]

    def one_hot(self, choice: Mapping[str, int]) -> dict[str, Tensor]:
        """Gates of 0 and 1."""
        return {name: torch.eye(n)[choice[name]] for name, n in self.space.decisions.items()}

    def cost(self) -> Tensor:
        """Effective multiply-adds in millions: the count with expected widths, kinds and sizes; differentiable."""
        effective = self._effective()
        total: Any = 0.0
        for stride, gate in zip(self.space.strides, self.stride_gates, strict=True):
            size = (-(-self.image_size[0] // stride), -(-self.image_size[1] // stride))
            part: Any = self._head_cost(effective, size)
            for index, (spec, read) in enumerate(backbone_layers(effective, self.names, size), start=-1):
                if index not in self._mixed:
                    part = part + layer_madds(spec, read)
                    continue
                for share, kind in zip(self._mixed[index].gates, self.space.kinds(spec), strict=True):
                    part = part + share * layer_madds(kind, read) if kind is not None else part
            total = total + gate * part
        return total / 1e6

    def _effective(self) -> Architecture:
        """The widest network with expected widths in place of its own."""
        widest, roots = self.space.widest, trunk_roots(self.space.widest)
        trunk = [self._width(("trunk", root)) for root in roots]
        blocks: list[Any] = []
        for i, block in enumerate(widest.blocks):
            changes: dict[str, Any] = {"in_channels": trunk[i], "out_channels": trunk[i + 1]}
            if isinstance(block, BlockSpec):
                changes["expansion"] = self._width(("inner", i)) if block.expand else trunk[i]
                changes["squeeze"] = self._width(("squeeze", i)) if block.squeeze else 0
            elif isinstance(block, SandGlassSpec):
                changes["bottleneck"] = self._width(("inner", i))
            blocks.append(replace(block, **changes))
        last: Any = widest.last_conv
        if last is not None:
            last = replace(last, in_channels=trunk[-1], out_channels=self._width(("last_conv", 0)))
        return replace(widest, stem=replace(widest.stem, out_channels=trunk[0]), blocks=tuple(blocks), last_conv=last)

    def _width(self, width: Width) -> Any:
        """Expected channels."""
        for name, sizes in self._sizes.items():
            if width in sizes:
                gate = self.gates[name]
                return gate @ torch.tensor(sizes[width], dtype=gate.dtype, device=gate.device)
        return self._full[width]

    def _head_cost(self, effective: Architecture, size: Size) -> Any:
        """The head's multiply-adds, which grow evenly with the channels of each map that it reads."""
        widest = self.space.widest
        if size not in self._heads:
            with torch.random.fork_rng(devices=()):  # initial weights must not move what a search draws
                self._heads[size] = self._count_heads(widest, size)
        whole, slopes = self._heads[size]
        lost = [
            slope
            * (self.space.widths[name][-1] - self.gates[name] @ self.gates[name].new_tensor(self.space.widths[name]))
            for name, slope in slopes.items()
        ]
        return whole - sum(lost)

    def _count_heads(self, widest: Architecture, size: Size) -> tuple[float, dict[str, float]]:
        """Multiply-adds of the widest network's head, and those that each channel of a group of widths adds."""
        whole = head_madds(self._build(widest), map_shapes(widest, self.names, size))
        slopes: dict[str, float] = {}
        for name, widths in self.space.widths.items():
            other = with_width(widest, self.space.group(name), widths[0])
            before, after = (map_shapes(network, self.names, size) for network in (widest, other))
            if before != after:
                slopes[name] = (whole - head_madds(self._build(other), after)) / (widths[-1] - widths[0])
        return whole, slopes

    def _mix_blocks(self) -> None:
        for i, block in enumerate(self.space.widest.blocks):
            kinds = self.space.kinds(block)
            if len(kinds) == 1 or i >= len(self.model.backbone.blocks):
                continue
            present = self.model.backbone.blocks[i]
            norm = NormSpec(present.project.norm.momentum, present.project.norm.eps)  # type: ignore[union-attr, arg-type]
            options = [nn.Identity() if kind is None else kind.build(norm, until="output") for kind in kinds]
            self._mixed[i] = MixedBlock(options)
            for module in self._mixed[i].modules():
                if isinstance(module, nn.Conv2d):
                    truncated_normal_(module.weight, std=INIT_STD)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
            self.model.backbone.blocks[i] = self._mixed[i]

    def _hook(self) -> None:
        """Have every layer masked that gives a width with choices."""
        masked = {width for sizes in self._sizes.values() for width in sizes}
        modules = dict(self.model.named_modules())
        for name, axes in channel_axes(self.model).items():
            layer = name.removesuffix(".norm") if name.endswith(".norm") else name.replace("se.reduce", "se.act")
            if axes.out not in masked or layer == name:
                continue
            block = re.match(r"(backbone\.blocks\.(\d+)\.)(.*)", layer)
            places = [layer]
            if block and int(block[2]) in self._mixed:
                count = len(self._mixed[int(block[2])].options)
                places = [f"{block[1]}options.{j}.{block[3]}" for j in range(count)]
            for place in places:
                if place in modules and not isinstance(modules[place], nn.Identity):
                    modules[place].register_forward_hook(self._masking(axes.out))

    def _masking(self, width: Width | None) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        assert width is not None
        return lambda module, args, output: output * self._masks[width].to(output)[:, None, None]

    def _search_resolution(self) -> None:
        if not isinstance(self.model, Classifier):
            raise UserError(
                "only a classifier's resolution is searched; dense predictions have theirs in data.image_size",
                key="search.supernet.strides",
            )
        backbone, view = self.model.backbone, (self.space.strides, lambda: self.stride_gates)
        backbone.stem = AtResolutions(backbone.stem, *view)  # type: ignore[assignment]
        for i, block in enumerate(backbone.blocks):
            backbone.blocks[i] = AtResolutions(block, *view)
        if backbone.last_conv is not None:
            backbone.last_conv = AtResolutions(backbone.last_conv, *view)
        self.model.head = HeadAtResolutions(self.model.head, *view)  # type: ignore[assignment]
