"""Batch normalisation with the momentum and epsilon that a network was published with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class NormSpec:
    """What a batch normalisation layer is made from.

    momentum: weight of the new batch in the running statistics (1 - TensorFlow's decay).
    eps: added to the variance.
    """

    momentum: float
    eps: float

    def build(self, channels: int) -> nn.BatchNorm2d:
        """A layer for (B, channels, H, W)."""
        return nn.BatchNorm2d(channels, eps=self.eps, momentum=self.momentum)
