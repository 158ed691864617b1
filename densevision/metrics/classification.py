"""How often the true class is the surest, or among the surest five."""

from __future__ import annotations

import torch
from torch import Tensor

from densevision.metrics.reduce import sum_over_processes


class TopAccuracy:
    """Top-1 and top-5 accuracy over all processes, counted in integers.

    Of equal logits the class of the lower index comes first, so that a picture never counts by chance; a logit that
    is no number counts as above the true one, so that a broken network is right about nothing.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(3, dtype=torch.int64)  # pictures, right at once, right among five

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits (B, K) of any floating type, labels (B,) int64, on one device."""
        own = logits.gather(1, labels[:, None])
        before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
        above = ~(logits <= own) | ((logits == own) & before)
        rank = above.sum(dim=1)
        batch = torch.stack([torch.ones_like(rank).sum(), (rank == 0).sum(), (rank < 5).sum()])
        self.counts = self.counts.to(batch.device) + batch

    def compute(self) -> dict[str, float]:
        """``top1`` and ``top5`` as fractions; a collective, 0 without pictures."""
        pictures, first, five = sum_over_processes(self.counts).tolist()
        return {"top1": first / max(1, pictures), "top5": five / max(1, pictures)}
