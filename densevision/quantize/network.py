"""From a network to one that rounds, and the ranges of its tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from densevision.layers import ConvNormAct, InvertedResidual, SandGlass, SqueezeExcite
from densevision.quantize.layers import QuantizedInput, QuantizedLayer, Quantizer
from densevision.segmentation.heads import LRASPPHead

Model = TypeVar("Model", bound=nn.Module)


def quantized(model: Model) -> Model:
    """A copy that rounds, on the CPU; :func:`calibrate` or a checkpoint's weights have to give the ranges.

    Args:
        model: a segmenter, detector or classifier, with batch normalisation or without.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, LRASPPHead):
            module.classify_first = True  # fewer values to round; as it is exported
    _replace(model)
    _share(model)
    return model


def _replace(model: nn.Module) -> None:
    for name, module in list(model.named_children()):
        if isinstance(module, ConvNormAct):
            setattr(model, name, QuantizedLayer(module.conv, module.norm, module.act))
        elif isinstance(module, nn.Conv2d | nn.Linear):
            setattr(model, name, QuantizedLayer(module, None, None))
        elif isinstance(module, SqueezeExcite):
            module.reduce = QuantizedLayer(module.reduce, None, module.act)  # type: ignore[assignment]
            module.expand = QuantizedLayer(module.expand, None, module.gate)  # type: ignore[assignment]
            module.act, module.gate = nn.Identity(), nn.Identity()
        else:
            _replace(module)
            if (isinstance(module, InvertedResidual) and module.residual) or (
                isinstance(module, SandGlass) and module.residual_channels
            ):
                setattr(model, name, QuantizedInput(module))


def _share(model: nn.Module) -> None:
    """Round every tensor once: drop inputs that are a rounded output, and let those that read the same share."""
    trial = copy.deepcopy(model).to("meta").eval()
    readers = {name: module for name, module in trial.named_modules() if isinstance(module, Quantizer)}
    rounded: set[int] = set()
    read: dict[int, str] = {}
    alive = []  # or another tensor might get the same identity
    replaced: dict[str, str | None] = {}

    def watch(name: str, quantizer: Quantizer) -> None:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            alive.extend([args[0], out])
            source = id(args[0])
            if source in rounded:
                replaced[name] = None
            elif source in read:
                replaced[name] = read[source]
            else:
                read[source] = name
            rounded.add(id(out))

        quantizer.register_forward_hook(hook)

    for name, quantizer in readers.items():
        watch(name, quantizer)
    with torch.no_grad():
        trial(torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device="meta"))
    for name, other in replaced.items():
        layer = model.get_submodule(name.rpartition(".")[0])
        layer.input = None if other is None else model.get_submodule(other)  # type: ignore[assignment]


def quantizers(model: nn.Module) -> Iterator[Quantizer]:
    """All of a network's, each once."""
    return (module for module in model.modules() if isinstance(module, Quantizer))


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Choose the range of every tensor by what the network in float makes of pictures.

    Args:
        model: of :func:`quantized`.
        batches: (B, 3, H, W) uint8 RGB, on the model's device; at least one.
    """
    modes = {module: module.training for module in model.modules()}
    layers = [module for module in model.modules() if isinstance(module, QuantizedLayer)]
    model.eval()
    for quantizer in quantizers(model):
        quantizer.seen = []
    for layer in layers:
        layer.calibrating = True
    for images in batches:
        model(images)
    for layer in layers:
        layer.calibrating = False
    for quantizer in quantizers(model):
        quantizer.choose_range()
    for module, mode in modes.items():
        module.training = mode
