"""The segmentation loss: cross-entropy at the label's resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevision.segmentation.postprocess import upsample_logits
from densevision.structures import IGNORE_INDEX


class SegmentationLoss(nn.Module):
    """Cross-entropy of upsampled logits over the labelled pixels, as DeepLab trains (``upsample_logits=True``).

    Returned as a sum and the count to divide it by, so that the caller can divide by the count of all processes and
    accumulated batches. A batch with no labelled pixel gives (0, 0) and zero gradients.

    Args:
        align_corners: of the upsampling; the model's own.
        class_weights: one weight a class; the count is then the sum of the labelled pixels' weights, so that the
            quotient is torch's weighted mean.
    """

    class_weights: Tensor | None

    def __init__(self, align_corners: bool, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.align_corners = align_corners
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """logits: (B, K, h, w); labels: (B, H, W) uint8 with IGNORE_INDEX. Two scalars: sum and count."""
        height, width = labels.shape[-2:]
        logits = upsample_logits(logits, (height, width), self.align_corners)
        weights = self.class_weights
        if weights is not None:
            weights = weights.to(logits.dtype)
        total = F.cross_entropy(logits, labels.long(), weight=weights, ignore_index=IGNORE_INDEX, reduction="sum")
        valid = labels != IGNORE_INDEX
        if weights is None:
            return total, valid.sum(dtype=total.dtype)
        # index_select wants real classes; ignored pixels get weight 0 afterwards
        pixel_weights = weights[torch.where(valid, labels, 0).long()]
        return total, (pixel_weights * valid).sum()


def sqrt_class_weights(pixel_counts: Sequence[int], cap: float) -> list[float]:
    """1 / sqrt(frequency) of each class, scaled to mean 1 over the classes that occur, at most ``cap``.

    A class that never occurs gets weight 1: no pixel uses it.
    """
    counts = torch.tensor(pixel_counts, dtype=torch.float64)
    occurs = counts > 0
    weights = torch.ones_like(counts)
    inverse = counts[occurs].rsqrt()
    weights[occurs] = (inverse / inverse.mean()).clamp(max=cap)
    return [float(weight) for weight in weights]
