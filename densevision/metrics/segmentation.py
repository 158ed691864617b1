"""The Cityscapes scores: one confusion matrix over all pixels of all pictures, counted in integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from densevision.metrics.reduce import sum_over_processes
from densevision.structures import IGNORE_INDEX

_VALUES = 256  # of a uint8
_EXACT = 2**24  # pixels that OpenCV's float32 histograms count exactly


@dataclass(frozen=True)
class SegmentationScores:
    """What a confusion matrix says.

    names: the K classes. counts: (K, K + 1) int64 pixels, truth by prediction; the last column holds the pixels
    that were predicted as no class at all. Ignored pixels are in neither.
    """

    names: tuple[str, ...]
    counts: np.ndarray

    @property
    def iou(self) -> dict[str, float]:
        """Intersection over union by class name, 0..1; nan for a class that neither occurs nor is predicted.

        Source: cityscapesScripts 2.3.0, ``getIouScoreForLabel``: a class that is predicted and never occurs
        scores 0, predictions on ignored pixels count nowhere, a prediction of no class misses the true one.
        """
        hits, truth, predicted = self._sums()
        union = truth + predicted - hits
        return {name: _ratio(h, u) for name, h, u in zip(self.names, hits, union, strict=True)}

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that have one, 0..1; nan without any (``getScoreAverage``)."""
        scores = [score for score in self.iou.values() if not math.isnan(score)]
        return _ratio(sum(scores), len(scores))

    @property
    def accuracy(self) -> dict[str, float]:
        """Share of each class's pixels that were found, 0..1; nan for a class that does not occur."""
        hits, truth, _ = self._sums()
        return {name: _ratio(h, t) for name, h, t in zip(self.names, hits, truth, strict=True)}

    @property
    def pixel_accuracy(self) -> float:
        """Share of all labelled pixels that were found, 0..1; nan without a labelled pixel."""
        hits, truth, _ = self._sums()
        return _ratio(hits.sum(), truth.sum())

    def to_dict(self) -> dict[str, Any]:
        """The scores for json: ``miou``, ``pixel_accuracy``, ``iou`` by name; what is not defined is None."""
        return {
            "miou": _or_none(self.miou),
            "pixel_accuracy": _or_none(self.pixel_accuracy),
            "iou": {name: _or_none(score) for name, score in self.iou.items()},
        }

    def _sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(K,) each: pixels found, pixels of the class, labelled pixels predicted as the class."""
        return self.counts.diagonal(), self.counts.sum(axis=1), self.counts.sum(axis=0)[:-1]


class ConfusionMatrix:
    """Counts pixels by truth and prediction, picture after picture, exactly and across processes.

    No nn.Module: its counts are neither weights nor buffers, which DDP would overwrite with those of rank 0.

    Args:
        names: the K classes, at most 255, index by index.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if not 0 < len(names) <= IGNORE_INDEX:
            raise ValueError(f"expected 1 to {IGNORE_INDEX} classes, got {len(names)}")
        self.names = tuple(names)
        self.reset()

    def reset(self) -> None:
        """Forget all pictures."""
        self._counts: Tensor | None = None

    @torch.no_grad()
    def update(self, class_map: Tensor, labels: Tensor) -> None:
        """Count the pixels of some pictures; on their device and without waiting for it.

        Args:
            class_map: (B, H, W) uint8 predicted class indices; or of whole pictures, (B,).
            labels: likewise the true class indices, IGNORE_INDEX where nothing is said.

        Raises:
            ValueError: the two differ in shape.
            TypeError: one of them is not uint8.
        """
        if class_map.shape != labels.shape:
            raise ValueError(f"predictions are {tuple(class_map.shape)}, labels {tuple(labels.shape)}")
        for values in (class_map, labels):
            if values.dtype != torch.uint8:
                raise TypeError(f"expected uint8 class indices, got {values.dtype}")
        if self._counts is None:
            self._counts = _no_counts(labels.device)
        # every pair of uint8 values has its cell: nothing to mask, and no value can fall into another's
        if labels.device.type == "cpu":
            _count_on_cpu(self._counts, labels, class_map)
        else:
            # bincount would wait for the device to learn the largest value
            cells = (labels.to(torch.int32) * _VALUES + class_map).flatten()
            one = torch.ones((), dtype=torch.int64, device=cells.device)
            self._counts.scatter_add_(0, cells.long(), one.expand(cells.shape))

    def compute(self, all_processes: bool = True) -> SegmentationScores:
        """The scores over all pictures of all processes so far; in a distributed run every process must call it.

        Args:
            all_processes: False for the pictures of this process alone, who need not ask the others.

        Raises:
            ValueError: a label was neither a class nor IGNORE_INDEX.
        """
        own = _no_counts("cpu") if self._counts is None else self._counts
        counts = (sum_over_processes(own) if all_processes else own.cpu()).numpy().reshape(_VALUES, _VALUES)
        k = len(self.names)
        unknown = np.flatnonzero(counts[k:IGNORE_INDEX].any(axis=1)) + k
        if unknown.size:
            raise ValueError(f"labels hold {unknown.tolist()}, which are none of {k} classes nor {IGNORE_INDEX}")
        no_class = counts[:k, k:].sum(axis=1, keepdims=True)
        return SegmentationScores(self.names, np.concatenate([counts[:k, :k], no_class], axis=1))


def _count_on_cpu(counts: Tensor, labels: Tensor, class_map: Tensor) -> None:
    """OpenCV's histogram of two bytes: half the time of the best bincount, a twentieth of a masked one."""
    pairs = [values.numpy().ravel() for values in (labels, class_map)]
    for start in range(0, len(pairs[0]), _EXACT):
        part = [values[start : start + _EXACT] for values in pairs]
        found = cv2.calcHist(part, [0, 1], None, [_VALUES, _VALUES], [0, _VALUES, 0, _VALUES])
        counts += torch.from_numpy(found).flatten().to(torch.int64)


def _no_counts(device: torch.device | str) -> Tensor:
    return torch.zeros(_VALUES * _VALUES, dtype=torch.int64, device=device)


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else math.nan


def _or_none(score: float) -> float | None:
    return None if math.isnan(score) else score
