"""The detection losses: classes over all anchors, boxes over the matched ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from densevision.detection.box_coder import encode
from densevision.detection.matcher import match_anchors, pairwise_iou

NEGATIVES_PER_POSITIVE = 3  # SSD paper, 2.2, hard negative mining


class DetectionLoss(nn.Module):
    """Classification of all anchors plus a smooth L1 loss of the matched ones' offsets.

    ``sigmoid``: focal loss over all anchors and columns, and a quarter of the boxes' loss, which is the mean over the
    four offsets (the official V3 configurations). Column 0 has no positive ones. ``softmax``: cross-entropy of the
    matched anchors and of the 3 times as many hardest others of the same picture, and the whole of the boxes' loss
    (SSD paper; torchvision's SSD). There a picture without boxes teaches nothing.

    Returned as a sum and the number of matched anchors to divide it by, so that the caller can divide by that of all
    processes and accumulated batches; officially each replica divides by its own.

    Args:
        score: ``sigmoid`` or ``softmax``.
        match_iou: overlap from which an anchor learns a box.
        alpha: weight of the positive ones, 1 - alpha of the negative ones; sigmoid only.
        gamma: the focal exponent; sigmoid only.
    """

    def __init__(self, score: str = "sigmoid", match_iou: float = 0.5, alpha: float = 0.75, gamma: float = 2.0) -> None:
        super().__init__()
        self.score = score
        self.match_iou = match_iou
        self.alpha = alpha
        self.gamma = gamma

    def forward(
        self, outputs: dict[str, Tensor], anchors: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Sum and count.

        Args:
            outputs: of the model, any floating type; half types are computed in float32.
            anchors: (A, 4) float32 xyxy pixels.
            boxes: B tensors (N, 4) xyxy pixels, N from 0. labels: B tensors (N,) int64 class indices.
        """
        logits, deltas = (_at_least_float32(outputs[name]) for name in ("class_logits", "box_deltas"))
        targets, columns = assign(anchors, boxes, labels, self.match_iou)
        matched = columns > 0
        huber = F.smooth_l1_loss(deltas, encode(targets, anchors).to(deltas.dtype), reduction="none").sum(-1)
        box_sum = torch.where(matched, huber, 0).sum()
        count = matched.sum(dtype=logits.dtype)
        if self.score == "softmax":
            return mined_cross_entropy(logits, columns) + box_sum, count
        return focal_loss(logits, columns, self.alpha, self.gamma) + box_sum / 4, count


def assign(
    anchors: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor], match_iou: float
) -> tuple[Tensor, Tensor]:
    """What each anchor of each picture has to learn.

    Returns:
        (B, A, 4) xyxy boxes, an unmatched anchor's being itself; (B, A) int64 columns of the class logits, label + 1,
        0 for background.
    """
    # one box too many: it is empty, matches nothing, and spares the case of no boxes at all
    padded = F.pad(pad_sequence(list(boxes), batch_first=True), (0, 0, 0, 1)).to(anchors.dtype)
    padded_labels = F.pad(pad_sequence(list(labels), batch_first=True), (0, 1))
    index = match_anchors(pairwise_iou(padded, anchors), match_iou)
    matched, index = index >= 0, index.clamp(min=0)
    targets = padded.gather(1, index[..., None].expand(-1, -1, 4))
    columns = padded_labels.gather(1, index) + 1
    return torch.where(matched[..., None], targets, anchors), torch.where(matched, columns, 0)


def focal_loss(logits: Tensor, columns: Tensor, alpha: float, gamma: float) -> Tensor:
    """The sum of the sigmoid focal loss over all entries.

    Args:
        logits: (B, A, K + 1), float32 or float64. columns: (B, A) int64, each anchor's positive column, 0 for none.
        alpha, gamma: as in :class:`DetectionLoss`.
    """
    return _FocalSum.apply(logits, columns, alpha, gamma)


def mined_cross_entropy(logits: Tensor, columns: Tensor) -> Tensor:
    """The sum of the cross-entropy of the matched anchors and of each picture's hardest others, 3 a matched one.

    Args:
        logits: (B, A, K + 1). columns: (B, A) int64 true columns, 0 for background.
    """
    losses = F.cross_entropy(logits.flatten(0, 1), columns.flatten(), reduction="none").view(columns.shape)
    matched = columns > 0
    hardest = torch.where(matched, 0, losses).sort(dim=1, descending=True).values
    rank = torch.arange(hardest.shape[1], device=hardest.device)
    mined = rank < NEGATIVES_PER_POSITIVE * matched.sum(dim=1, keepdim=True)
    return torch.where(matched, losses, 0).sum() + torch.where(mined, hardest, 0).sum()


class _FocalSum(torch.autograd.Function):
    """The loss and its derivative in one pass over the entries; nothing but the derivative is kept for backward.

    A negative entry costs (1 - a) p^g s with p = sigmoid(x) and s = softplus(x), and its derivative is
    (1 - a) p^g (g (1 - p) s + p). A positive one is the same at -x with a for 1 - a.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, columns: Tensor, alpha: float, gamma: float) -> Tensor:
        losses, slopes = _negative(logits, gamma)
        total = losses.sum() * (1 - alpha)
        # all were counted as negative; the few positive ones are corrected
        index = columns[..., None]
        x = logits.gather(-1, index)
        as_negative, negative_slope = _negative(x, gamma)
        as_positive, positive_slope = _negative(-x, gamma)
        matched = index > 0
        total = total + torch.where(matched, alpha * as_positive - (1 - alpha) * as_negative, 0).sum()
        slopes *= 1 - alpha
        correction = -alpha * positive_slope - (1 - alpha) * negative_slope
        slopes.scatter_add_(-1, index, torch.where(matched, correction, 0))
        ctx.save_for_backward(slopes)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * gradient, None, None, None


def _negative(x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Loss and derivative of negative entries, without the weight 1 - alpha."""
    p = torch.sigmoid(x)
    # softplus; torch's own takes ten times as long on the CPU, for digits of log(1 + e) that p^g makes vanish
    s = x.clamp(min=0).sub_(x.abs().sigmoid_().log_())
    power = p * p if gamma == 2 else p**gamma
    losses = power * s
    # gamma (1 - p) losses + p power
    slopes = torch.addcmul(losses, losses, p, value=-1).mul_(gamma).addcmul_(p, power)
    return losses, slopes


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
