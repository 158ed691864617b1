"""Samples become a batch."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from densevision.errors import UserError
from densevision.structures import (
    ClassificationBatch,
    ClassificationSample,
    DetectionBatch,
    DetectionSample,
    SegmentationBatch,
    SegmentationSample,
)


def planes(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) in memory of its own; far quicker than stacking permuted pictures."""
    separated = np.empty((3, *picture.shape[:2]), np.uint8)
    cv2.split(picture, list(separated))
    return torch.from_numpy(separated)


def collate_segmentation(samples: Sequence[SegmentationSample]) -> SegmentationBatch:
    """Stack samples of one size; a batch has labels if its samples have.

    Raises:
        UserError: pictures or labels of different sizes; says what to set.
    """
    batch = SegmentationBatch(
        images=_stack([s["image"] for s in samples], "pictures", samples),
        names=[s["name"] for s in samples],
        sizes=[s["size"] for s in samples],
    )
    if "label" in samples[0]:
        batch["labels"] = _stack([s["label"] for s in samples], "labels", samples)
    return batch


def collate_classification(samples: Sequence[ClassificationSample]) -> ClassificationBatch:
    """Stack pictures, which are all of one size."""
    return ClassificationBatch(
        images=torch.stack([s["image"] for s in samples]),
        labels=torch.tensor([s["label"] for s in samples]),
        names=[s["name"] for s in samples],
        sizes=[s["size"] for s in samples],
    )


def collate_detection(samples: Sequence[DetectionSample]) -> DetectionBatch:
    """Stack pictures, which are all of one size, and list what differs in number."""
    batch = DetectionBatch(
        images=torch.stack([s["image"] for s in samples]),
        names=[s["name"] for s in samples],
        image_ids=[s["image_id"] for s in samples],
        sizes=[s["size"] for s in samples],
    )
    if "boxes" in samples[0]:
        batch["boxes"] = [s["boxes"] for s in samples]
        batch["labels"] = [s["labels"] for s in samples]
    return batch


def _stack(tensors: Sequence[Tensor], what: str, samples: Sequence[SegmentationSample]) -> Tensor:
    first = tensors[0]
    for tensor, sample in zip(tensors, samples, strict=True):
        if tensor.shape != first.shape:
            raise UserError(
                f"{what} of different sizes cannot share a batch: {samples[0]['name']} is "
                f"{_size(first)}, {sample['name']} is {_size(tensor)} (height x width); "
                "for training set data.crop_size (or data.image_size), for evaluation data.eval_batch_size=1"
            )
    return torch.stack([*tensors]).contiguous()


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape[-2:]))
