"""Parameters and multiply-adds of a model, from one real forward pass."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from densevision.backbones import Block, BlockSpec, ConvSpec, SandGlassSpec
from densevision.classification import Classifier
from densevision.detection.ssdlite import SSDLite
from densevision.layers.conv import ACTIVATIONS
from densevision.segmentation.segmenter import Segmenter

aten = torch.ops.aten


@dataclass(frozen=True)
class Complexity:
    """What a model costs on one picture.

    params: trainable weights, biases and normalisation's gamma and beta; no running statistics.
    conv_madds: multiply-adds of convolutions and linear layers, half of what torch's FlopCounterMode counts.
    paper_madds: in the convention of the MobileNetV3 paper, see :func:`measure`.
    by_module: qualified module name -> (conv_madds, paper_madds) inside it; "" is the model.
    """

    params: int
    conv_madds: int
    paper_madds: int
    by_module: dict[str, tuple[int, int]]


def measure(model: nn.Module, image_size: tuple[int, int], dense: bool = True) -> Complexity:
    """Run the model once, in evaluation mode, on one picture without content, and count.

    The convention of the paper is nowhere written down. One rule gives all 19 published figures of Tables 7 and 8
    within 0.8 %: convolutions (squeeze-and-excite's included), 1 an element of a residual sum, 2 an element of
    h-swish, and 1 an element of the logits resized to the picture. Normalisation is folded; ReLU, pooling, biases and
    inner resizing are free.

    Args:
        model: a network on (1, 3, H, W) pictures; it is copied to the meta device, not changed.
        image_size: (H, W).
        dense: whether logits (1, K, h, w) are resized to the picture; other outputs are not.
    """
    meta = copy.deepcopy(model).to("meta").eval()
    images = torch.empty(1, 3, *image_size, dtype=torch.uint8, device="meta")
    root = type(model).__name__
    with torch.no_grad(), FlopCounterMode(display=False) as convs, _ElementwiseCounter() as elementwise:
        output = meta(images)
    is_map = dense and isinstance(output, Tensor) and output.ndim == 4
    resized = output.shape[1] * image_size[0] * image_size[1] if is_map else 0
    by_module: dict[str, tuple[int, int]] = {}
    for name, flops in convs.get_flop_counts().items():
        if name == "Global":
            continue
        conv = sum(flops.values()) // 2
        by_module[name.removeprefix(root).removeprefix(".")] = (conv, conv + elementwise.counts[name])
    conv_madds = convs.get_total_flops() // 2
    paper_madds = conv_madds + elementwise.counts["Global"] + resized
    by_module[""] = (conv_madds, paper_madds)
    params = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Complexity(params, conv_madds, paper_madds, by_module)


# operator -> what one element of its output costs
_ELEMENTWISE: dict[Any, int] = {
    aten.hardswish: 2,  # x * relu6(x + 3) / 6
    aten.hardswish_: 2,
    aten.add: 1,
    aten.add_: 1,
}


class _ElementwiseCounter(TorchDispatchMode):
    """Counts :data:`_ELEMENTWISE` by module, sums of equal shapes only (a broadcast one is a shift)."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._tracker = ModuleTracker()

    def __enter__(self) -> _ElementwiseCounter:
        self._tracker.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._tracker.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        cost = _ELEMENTWISE.get(func.overloadpacket, 0)
        if cost and all(isinstance(value, Tensor) and value.shape == output.shape for value in args):
            for name in self._tracker.parents:
                self.counts[name] += cost * output.numel()
        return output


@dataclass(frozen=True)
class Layer:
    """A row of a model's table, in the columns of the MobileNetV3 paper.

    name: the module's qualified name. input: (height, width, channels) read. operator: what it is. expansion: channels
    of the depthwise convolution, in a sandglass those between its 1x1 convolutions. squeeze: channels inside
    squeeze-and-excite, 0 without. feature: the names under which something of it is read by the head.
    """

    name: str
    input: tuple[int, int, int]
    operator: str
    expansion: int | None
    out: int
    squeeze: int
    act: str
    stride: int
    dilation: int
    feature: str
    params: int
    conv_madds: int
    paper_madds: int


def layers(model: Segmenter | SSDLite | Classifier, image_size: tuple[int, int], complexity: Complexity) -> list[Layer]:
    """The table of a model: stem, blocks, last convolution, and the parts of the head.

    Args:
        image_size: (H, W) of the picture that the sizes are for.
        complexity: of ``model`` at that size. Sums of feature maps in the head and the resizing of the logits belong
            to no layer, so that the layers' ``paper_madds`` add up to a little less than its total.
    """
    backbone = model.backbone
    architecture = backbone.architecture
    features: dict[int, list[str]] = {}
    for name, info in backbone.feature_info.items():
        features.setdefault(info.layer, []).append(name)
    parts: list[tuple[str, int | None, Block | ConvSpec]] = [("backbone.stem", -1, architecture.stem)]
    built = architecture.blocks[: len(backbone.blocks)]
    parts += [(f"backbone.blocks.{i}", i, spec) for i, spec in enumerate(built)]
    if backbone.last_conv is not None and architecture.last_conv is not None:
        parts.append(("backbone.last_conv", len(architecture.blocks), architecture.last_conv))
    for child_name, child in model.head.named_children():
        convs = list(_single_convs(f"head.{child_name}", child))
        parts += [(name, None, spec) for name, spec in convs]
        if not convs and (act := _activation(child)):  # a child of its own, of the layer before it
            name, index, spec = parts[-1]
            parts[-1] = (name, index, replace(spec, act=act))
    sizes = _input_sizes(model, image_size, [name for name, _, _ in parts])
    return [
        Layer(
            name=name,
            input=(*sizes[name], spec.in_channels),
            operator=_operator(spec),
            expansion=_inner_channels(spec),
            out=spec.out_channels,
            squeeze=spec.squeeze if isinstance(spec, BlockSpec) else 0,
            act=spec.act,
            stride=spec.stride,
            dilation=1 if isinstance(spec, ConvSpec) else spec.dilation,
            feature=" ".join(features.get(index, [])) if index is not None else "",
            params=sum(p.numel() for p in model.get_submodule(name).parameters() if p.requires_grad),
            conv_madds=complexity.by_module[name][0],
            paper_madds=complexity.by_module[name][1],
        )
        for name, index, spec in parts
    ]


def _single_convs(name: str, module: nn.Module) -> Iterator[tuple[str, ConvSpec]]:
    """The outermost modules with one convolution each: its normalisation, activation or gate belong to it."""
    convs = [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    if len(convs) > 1:
        for child_name, child in module.named_children():
            yield from _single_convs(f"{name}.{child_name}", child)
    elif convs:
        (conv,), act = convs, _activation(module)
        if isinstance(conv, nn.Linear):
            yield name, ConvSpec(conv.in_features, conv.out_features, kernel=1, stride=1, act=act)
        else:
            yield name, ConvSpec(conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0], act)


def _operator(spec: Block | ConvSpec) -> str:
    name = {BlockSpec: "bneck", SandGlassSpec: "sandglass"}.get(type(spec), "conv2d")
    return f"{name} {spec.kernel}x{spec.kernel}"


def _inner_channels(spec: Block | ConvSpec) -> int | None:
    if isinstance(spec, SandGlassSpec):
        return spec.bottleneck
    return spec.expansion if isinstance(spec, BlockSpec) else None


def _activation(module: nn.Module) -> str:
    names = {kind: name for name, kind in ACTIVATIONS.items()} | {nn.Hardsigmoid: "hsigmoid", nn.Sigmoid: "sigmoid"}
    return next((names[type(part)] for part in module.modules() if type(part) in names), "")


def _input_sizes(model: nn.Module, image_size: tuple[int, int], names: list[str]) -> dict[str, tuple[int, int]]:
    """(height, width) of what the named modules read."""
    meta = copy.deepcopy(model).to("meta").eval()
    sizes: dict[str, tuple[int, int]] = {}

    def reader(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def read(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            height, width = args[0].shape[2:] or (1, 1)  # what a linear layer reads is pooled
            sizes[name] = (height, width)

        return read

    for name in names:
        meta.get_submodule(name).register_forward_pre_hook(reader(name))
    with torch.no_grad():
        meta(torch.empty(1, 3, *image_size, dtype=torch.uint8, device="meta"))
    return sizes
