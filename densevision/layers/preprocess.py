"""From pixels to the network's input; a layer of the model, so that a model file needs no side notes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from densevision.config.lookup import lookup

# (mean, std) of pixels in 0..1; half is TF-slim's x * 2 / 255 - 1, imagenet is torchvision's and timm's
STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "half": ((0.5,), (0.5,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class Preprocess(nn.Module):
    """(pixel / 255 - mean) / std.

    (B, C, H, W) uint8, or floats in 0..255 -> the same shape in the floating type of the model (its buffers are
    converted with it by ``.half()`` or ``.double()``; under autocast they stay float32). They hold nothing that
    the configuration does not say and are left out of state dicts.

    Args:
        mode: ``half`` ([-1, 1], any number of channels) or ``imagenet`` (RGB).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mode: str) -> None:
        super().__init__()
        mean, std = (
            torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)
            for values in lookup("preprocess", mode, STATISTICS)
        )
        self.mode = mode
        dtype = torch.get_default_dtype()
        self.register_buffer("scale", (1 / (255 * std)).to(dtype), persistent=False)
        self.register_buffer("shift", (mean / std).to(dtype), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images.to(self.scale.dtype) * self.scale - self.shift

    def extra_repr(self) -> str:
        return self.mode
