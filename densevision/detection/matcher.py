"""Which anchor learns which box."""

from __future__ import annotations

import torch
from torch import Tensor


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of every box with every other.

    Args:
        boxes: (..., N, 4) xyxy. others: (..., A, 4) xyxy in the same units; leading dimensions broadcast.

    Returns:
        (..., N, A) in 0..1; 0 for an empty box.
    """
    low = torch.maximum(boxes[..., :, None, :2], others[..., None, :, :2])
    high = torch.minimum(boxes[..., :, None, 2:], others[..., None, :, 2:])
    width, height = (high - low).clamp_(min=0).unbind(-1)
    intersection = width * height
    union = _area(boxes)[..., :, None] + _area(others)[..., None, :] - intersection
    return intersection / union.clamp_(min=torch.finfo(union.dtype).tiny)


def match_anchors(iou: Tensor, positive: float = 0.5) -> Tensor:
    """The box that each anchor learns, for all pictures of a batch at once.

    An anchor learns the box it overlaps most if that is ``positive`` or more; and every box claims the anchor that
    overlaps it most, whatever the amount, the first box where several claim one. A box that overlaps no anchor is
    learnt by none, so that empty boxes can fill up the pictures with fewer boxes. Source: object_detection
    ``argmax_matcher.py`` with ``force_match_for_each_row``, which would give such a box to the first anchor.

    Args:
        iou: (..., N, A) of N boxes with A anchors; N at least 1.

    Returns:
        (..., A) int64 index of the box, -1 for background.
    """
    best, box = iou.max(dim=-2)
    matched = torch.where(best >= positive, box, -1)
    overlap, claimed = iou.max(dim=-1)
    number = iou.shape[-2]
    index = torch.arange(number, device=iou.device).expand_as(claimed)
    nobody = torch.full_like(matched, number)
    claimant = nobody.scatter_reduce(-1, claimed, torch.where(overlap > 0, index, number), "amin")
    return torch.where(claimant < number, claimant, matched)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
