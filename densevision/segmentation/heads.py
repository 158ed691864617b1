"""The segmentation heads of MobileNetV2 (R-ASPP) and MobileNetV3 (LR-ASPP)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densevision.config.lookup import lookup
from densevision.layers import ConvNormAct, NormSpec, truncated_normal_
from densevision.layers.squeeze_excite import GATES

# DeepLab model.py: batch normalisation decay 0.9997, epsilon 1e-5
NORM = NormSpec(momentum=0.0003, eps=1e-5)


class RASPPHead(nn.Module):
    """R-ASPP: a 1x1 convolution beside a global pooling branch, no atrous branches and no skip connection.

    concat(1x1 conv, upsampled 1x1 conv of the global mean) -> 1x1 conv -> dropout -> 1x1 conv to the classes, at
    the stride of its input. Source: MobileNetV2 paper, 6.3; DeepLab ``model.py`` with ``atrous_rates=None``.

    forward: high (B, high_channels, h, w) -> logits (B, num_classes, h, w).

    Args:
        channels: of each branch and of the projection (256 as published).
        dropout: probability of a zeroed activation before the classifier.
        align_corners: how the caller resizes the logits to the picture; nothing is resized in here.

    The pooled branch normalises a 1x1 map, so a training batch of one picture has no variance and raises
    ``ValueError``; :func:`densevision.models.check_batch_norm` says so beforehand.
    """

    def __init__(
        self,
        high_channels: int,
        channels: int,
        num_classes: int,
        dropout: float = 0.1,
        align_corners: bool = True,
        norm: NormSpec = NORM,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.pooled = ConvNormAct(high_channels, channels, act="relu", norm=norm)
        self.local = ConvNormAct(high_channels, channels, act="relu", norm=norm)
        self.project = ConvNormAct(2 * channels, channels, act="relu", norm=norm)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        self.apply(_initialise)
        # DeepLab get_branch_logits: truncated normal of deviation 0.01, unlike all other layers of the head
        truncated_normal_(self.classifier.weight, std=0.01)

    def forward(self, high: Tensor) -> Tensor:
        # resized, not expanded: LiteRT cannot hold the latter
        pooled = F.interpolate(self.pooled(self.pool(high)), size=high.shape[2:], mode="nearest")
        return self.classifier(self.dropout(self.project(torch.cat([pooled, self.local(high)], dim=1))))


class LRASPPHead(nn.Module):
    """LR-ASPP: squeeze-and-excite-like gating by a coarsely pooled map, and one skip connection at 1/8.

    ``relu(bn(conv1x1(high))) * gate(conv1x1(average pool of high))``, resized to ``low``; its 1x1 classifier and that
    of ``low`` are added. Source: MobileNetV3 paper, 6.4 and Figure 10; DeepLab ``model.py`` with the flags of
    ``model_zoo.md`` (no projection, no dropout on this path).

    The classifier stands behind the resizing, as published and as counted in Table 7. ``classify_first``, which
    :func:`densevision.export.optimised` sets, puts it before: the same sums in another order, on fewer pixels and with
    fewer channels to resize.

    forward: high (B, high_channels, h, w), low (B, low_channels, h8, w8) -> logits (B, num_classes, h8, w8).

    Args:
        channels: F of Table 7, 128 or 256.
        pool_kernel: window of the average pooling in cells of ``high``, clamped to the map; None pools all of it.
            Published: 49x49 at output stride 16, that is 769 pixels, so that in training on crops of 769 the
            pooling is global.
        pool_stride: published: (16, 20). Where the last window would miss the map's end, a smaller one is added;
            on the published 1025x2049 all windows fit and there is none.
        gate: ``hard_sigmoid`` (the released V3 nets) or ``sigmoid`` (torchvision).
        gate_bias: whether the gate's convolution has a bias (torchvision's has none).
        align_corners: of all resizing, the caller's of the logits included.
    """

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        channels: int,
        num_classes: int,
        pool_kernel: tuple[int, int] | None = (49, 49),
        pool_stride: tuple[int, int] = (16, 20),
        gate: str = "hard_sigmoid",
        gate_bias: bool = True,
        align_corners: bool = True,
        norm: NormSpec = NORM,
    ) -> None:
        super().__init__()
        self.pool_kernel = pool_kernel
        self.pool_stride = pool_stride
        self.align_corners = align_corners
        self.classify_first = False
        self.local = ConvNormAct(high_channels, channels, act="relu", norm=norm)
        self.gate = nn.Sequential(
            nn.Conv2d(high_channels, channels, 1, bias=gate_bias),
            lookup("gate", gate, GATES)(),
        )
        self.low_classifier = nn.Conv2d(low_channels, num_classes, 1)
        self.high_classifier = nn.Conv2d(channels, num_classes, 1)
        self.apply(_initialise)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        gated = self.local(high) * self._resize(self.gate(self._pool(high)), high)
        if self.classify_first:
            return self._resize(self.high_classifier(gated), low) + self.low_classifier(low)
        return self.high_classifier(self._resize(gated, low)) + self.low_classifier(low)

    def _pool(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if self.pool_kernel is None or (height <= self.pool_kernel[0] and width <= self.pool_kernel[1]):
            return F.adaptive_avg_pool2d(x, 1)
        kernel = (min(self.pool_kernel[0], height), min(self.pool_kernel[1], width))
        return F.avg_pool2d(x, kernel, self.pool_stride, ceil_mode=True)

    def _resize(self, x: Tensor, like: Tensor) -> Tensor:
        if x.shape[2:] == (1, 1):
            return x  # the product or sum behind it repeats it
        return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=self.align_corners)


def _initialise(module: nn.Module) -> None:
    """Glorot-uniform weights and zero biases, the default of TF-slim's conv2d, which DeepLab's heads keep."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
