"""The segmentation loss: cross-entropy at the label's resolution."""

from __future__ import annotations

import math
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
        class_weights: one weight a class; the count is then the sum of the learnt pixels' weights, so that the
            quotient is torch's weighted mean.
        ohem: learn only from pixels whose true class has at most this probability (online hard example mining,
            Shrivastava et al., 2016; 0.7 is usual); None for all.
        ohem_min_kept: share of the batch's pixels, the hardest, that is learnt from in any case.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        align_corners: bool,
        class_weights: Sequence[float] | None = None,
        ohem: float | None = None,
        ohem_min_kept: float = 0.0625,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.ohem, self.ohem_min_kept = ohem, ohem_min_kept
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """logits: (B, K, h, w); labels: (B, H, W) uint8 with IGNORE_INDEX. Two scalars: sum and count."""
        height, width = labels.shape[-2:]
        logits = upsample_logits(logits, (height, width), self.align_corners)
        weights = self.class_weights
        if weights is not None:
            weights = weights.to(logits.dtype)
        targets = labels.long()
        learnt = labels != IGNORE_INDEX
        if self.ohem is not None:
            learnt &= self._is_hard(logits.detach(), targets)
            targets = torch.where(learnt, targets, IGNORE_INDEX)
        total = F.cross_entropy(logits, targets, weight=weights, ignore_index=IGNORE_INDEX, reduction="sum")
        if weights is None:
            return total, learnt.sum(dtype=total.dtype)
        # index_select wants real classes; other pixels get weight 0 afterwards
        pixel_weights = weights[torch.where(learnt, targets, 0)]
        return total, (pixel_weights * learnt).sum()

    def _is_hard(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, H, W) bool; class weights do not count here, and ignored pixels are the easiest."""
        assert self.ohem is not None
        surprise = F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="none")
        least = -math.log(self.ohem) if self.ohem > 0 else math.inf
        kept = math.ceil(self.ohem_min_kept * surprise.numel())
        if kept == 0:
            return surprise >= least
        return surprise >= surprise.flatten().topk(kept, sorted=False)[0].amin().clamp(max=least)


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
