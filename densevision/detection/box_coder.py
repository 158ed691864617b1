"""Boxes as offsets from anchors, the numbers that the network predicts, and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# object_detection faster_rcnn_box_coder in SSD's configurations: 10 for the centre, 5 for the size
CENTRE_WEIGHT, SIZE_WEIGHT = 10.0, 5.0
# exp() of more leaves every picture, and float32 soon; so have torchvision's BoxCoder and newer official code
MAX_LOG_RATIO = math.log(1000 / 16)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(..., 4) xyxy boxes -> (..., 4) offsets: 10 dx / w, 10 dy / h, 5 ln(w' / w), 5 ln(h' / h).

    Args:
        boxes: with positive width and height.
        anchors: xyxy in the same units; shapes broadcast.
    """
    centres, sizes = _centre_and_size(boxes)
    anchor_centres, anchor_sizes = _centre_and_size(anchors)
    shift = (centres - anchor_centres) / anchor_sizes * CENTRE_WEIGHT
    return torch.cat([shift, torch.log(sizes / anchor_sizes) * SIZE_WEIGHT], dim=-1)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of :func:`encode`, sizes limited to exp(MAX_LOG_RATIO) times the anchor's."""
    anchor_centres, anchor_sizes = _centre_and_size(anchors)
    centres = anchor_centres + deltas[..., :2] / CENTRE_WEIGHT * anchor_sizes
    half = torch.exp((deltas[..., 2:] / SIZE_WEIGHT).clamp(max=MAX_LOG_RATIO)) * anchor_sizes / 2
    return torch.cat([centres - half, centres + half], dim=-1)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low
