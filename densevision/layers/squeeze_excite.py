"""Squeeze-and-excite as MobileNetV3 and MnasNet use it."""

from __future__ import annotations

from torch import Tensor, nn

from densevision.config.lookup import lookup
from densevision.layers.conv import activation

GATES: dict[str, type[nn.Module]] = {"hard_sigmoid": nn.Hardsigmoid, "sigmoid": nn.Sigmoid}


class SqueezeExcite(nn.Module):
    """Scale every channel by a gate computed from the mean of all channels; the shape (B, channels, H, W) stays.

    mean over H, W -> 1x1 conv to ``squeeze`` channels, activation -> 1x1 conv back, gate. Both convolutions have
    biases and no normalisation (MobileNetV3 paper, 5.3; TF-slim ``conv_blocks.squeeze_excite``).

    Args:
        gate: ``hard_sigmoid`` (MobileNetV3) or ``sigmoid`` (MnasNet).
        act: between the convolutions; FBNetV2 has the block's own there.
    """

    def __init__(self, channels: int, squeeze: int, gate: str = "hard_sigmoid", act: str = "relu") -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeeze, 1)
        self.act = activation(act)
        self.expand = nn.Conv2d(squeeze, channels, 1)
        self.gate = lookup("gate", gate, GATES)()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.act(self.reduce(self.pool(x)))))
