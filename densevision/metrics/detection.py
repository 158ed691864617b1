"""The scores of detectors: COCO's twelve figures and average precision of each class, and VOC's for VOC's data."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from densevision.io import atomic_write
from densevision.metrics.coco_tables import class_indices, engine, warn
from densevision.metrics.reduce import is_rank_zero, rows_of_processes
from densevision.metrics.voc import voc_average_precision
from densevision.structures import DetectionTruth, LabelMap

_SEEN = np.dtype([("image_id", "i8"), ("count", "i8")])
_FOUND = np.dtype([("image_id", "i8"), ("label", "i8"), ("box", "f8", (4,)), ("score", "f8")])
# figure -> where it stands in pycocotools' tables: (precision or recall, IoU threshold, size, greatest number of
# detections); pycocotools 2.0.11, COCOeval.summarize
_ALL_IOU, _IOU_50, _IOU_75 = slice(None), slice(0, 1), slice(5, 6)
_ANY, _SMALL, _MEDIUM, _LARGE = range(4)
_AT_1, _AT_10, _AT_100 = range(3)
_FIGURES = {
    "map": ("precision", _ALL_IOU, _ANY, _AT_100),
    "map_50": ("precision", _IOU_50, _ANY, _AT_100),
    "map_75": ("precision", _IOU_75, _ANY, _AT_100),
    "map_small": ("precision", _ALL_IOU, _SMALL, _AT_100),
    "map_medium": ("precision", _ALL_IOU, _MEDIUM, _AT_100),
    "map_large": ("precision", _ALL_IOU, _LARGE, _AT_100),
    "mar_1": ("recall", _ALL_IOU, _ANY, _AT_1),
    "mar_10": ("recall", _ALL_IOU, _ANY, _AT_10),
    "mar_100": ("recall", _ALL_IOU, _ANY, _AT_100),
    "mar_small": ("recall", _ALL_IOU, _SMALL, _AT_100),
    "mar_medium": ("recall", _ALL_IOU, _MEDIUM, _AT_100),
    "mar_large": ("recall", _ALL_IOU, _LARGE, _AT_100),
}


@dataclass(frozen=True, eq=False)
class DetectionScores:
    """What COCO's evaluation says.

    names: the K classes. precision: (10, 101, K, 4, 3) float64 at IoU .5 to .95, recall 0 to 1, any, small, medium
    and large objects, and 1, 10 and 100 detections a picture; -1 where there is nothing to find. recall: the same
    without its second axis. voc: for data in VOC's format, its own average precision of each class by the rule's name,
    "voc07" and "voc12", (K,) float64.
    """

    names: tuple[str, ...]
    precision: np.ndarray
    recall: np.ndarray
    voc: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float]:
        """The twelve official figures, 0..1; nan where no object has the size, -1 in COCO's own report.

        Of data in VOC's format also ``map_voc07`` and ``map_voc12``.
        """
        tables = {"precision": self.precision, "recall": self.recall}
        coco = {
            name: _mean_of_defined(tables[table][iou][..., size, most])
            for name, (table, iou, size, most) in _FIGURES.items()
        }
        return {**coco, **{f"map_{rule}": _mean_of_defined(values) for rule, values in self.voc.items()}}

    @property
    def map_per_class(self) -> dict[str, float]:
        """Average precision over IoU .5 to .95 by class name, 0..1; nan for a class without an object."""
        return self._per_class(_ALL_IOU)

    @property
    def map_50_per_class(self) -> dict[str, float]:
        """Average precision at IoU .5 by class name, 0..1; nan for a class without an object."""
        return self._per_class(_IOU_50)

    def curves(self) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Precision by recall, of all sizes and 100 detections a picture.

        Returns:
            (101,) recall; the mean over the classes with objects at "IoU 0.50", "IoU 0.75" and "IoU 0.50 to 0.95", and
            for each of these classes that at IoU .5: (101,) precision each.
        """
        table = self.precision[..., _ANY, _AT_100]
        there = np.min(table, axis=(0, 1)) > -1
        means = {"IoU 0.50": _IOU_50, "IoU 0.75": _IOU_75, "IoU 0.50 to 0.95": _ALL_IOU}
        classes = {name: table[0, :, k] for k, name in enumerate(self.names) if there[k]}
        if not classes:
            return np.linspace(0, 1, table.shape[1]), {}, {}
        mean = {name: table[iou][..., there].mean(axis=(0, 2)) for name, iou in means.items()}
        return np.linspace(0, 1, table.shape[1]), mean, classes

    def to_dict(self) -> dict[str, Any]:
        """The scores for json: the figures, and two (four) of each class by name; what is not defined is None."""
        return {
            **_or_none(self.figures),
            "map_per_class": _or_none(self.map_per_class),
            "map_50_per_class": _or_none(self.map_50_per_class),
            **{
                f"map_{rule}_per_class": _or_none(dict(zip(self.names, values.tolist(), strict=True)))
                for rule, values in self.voc.items()
            },
        }

    def _per_class(self, iou: slice) -> dict[str, float]:
        table = self.precision[iou, :, :, _ANY, _AT_100]
        return {name: _mean_of_defined(table[:, :, k]) for k, name in enumerate(self.names)}


class DetectionResults:
    """Collects detections picture after picture, across processes, for COCO's results file.

    Args:
        label_map: the classes; its ids are the file's category ids.
    """

    def __init__(self, label_map: LabelMap) -> None:
        self.label_map = label_map
        self.reset()

    def reset(self) -> None:
        """Forget all pictures."""
        self._seen: list[tuple[int, int]] = []
        self._found: list[np.ndarray] = []

    def update(
        self,
        image_ids: Sequence[int],
        boxes: Sequence[Tensor | np.ndarray],
        scores: Sequence[Tensor | np.ndarray],
        labels: Sequence[Tensor | np.ndarray],
    ) -> None:
        """Take in the detections of some pictures.

        Args:
            image_ids: the data set's own number of each picture.
            boxes: (n, 4) xyxy in pixels of the stored picture, each.
            scores: (n,) the higher the surer, each; the order of equal ones counts.
            labels: (n,) class indices, each.
        """
        for image_id, *detections in zip(image_ids, boxes, scores, labels, strict=True):
            corners, score, label = (_numpy(values) for values in detections)
            found = np.empty(len(label), _FOUND)
            found["image_id"], found["label"], found["score"] = image_id, label, score
            found["box"] = corners
            found["box"][:, 2:] -= found["box"][:, :2]  # in float64: COCO's file has widths, and exactly these
            self._seen.append((int(image_id), len(found)))
            self._found.append(found)

    def rows(self) -> np.ndarray:
        """All processes' detections as a structured array, every picture once, pictures in the order of their ids.

        A collective: in a distributed run every process must call it. Fields: ``image_id``, ``label`` (class index),
        ``box`` (xywh in stored pixels), ``score``. A picture that came more than once counts as it first did, and
        detections with numbers that are not finite are left out, which is logged.
        """
        seen = rows_of_processes(np.array(self._seen, _SEEN))
        found = rows_of_processes(np.concatenate(self._found) if self._found else np.empty(0, _FOUND))
        starts = np.cumsum(seen["count"]) - seen["count"]
        _, first = np.unique(seen["image_id"], return_index=True)
        counts = seen["count"][first]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        found = found[np.repeat(starts[first], counts) + within]
        finite = np.isfinite(found["score"]) & np.isfinite(found["box"]).all(axis=1)
        if not finite.all():
            warn(f"{(~finite).sum()} of {len(found)} detections are not finite numbers and left out")
        return found[finite]

    def write(self, path: str | Path) -> int:
        """Write COCO's results file and return the number of detections in it; a collective as :meth:`rows`, in which
        the first process writes.

        A list of ``{"image_id", "category_id", "bbox": [x, y, width, height], "score"}``, unrounded: the official
        evaluation of the file gives the very scores that are computed here.
        """
        rows = self.rows()
        if is_rank_zero():
            write_results(path, rows, self.label_map)
        return len(rows)


def write_results(path: str | Path, rows: np.ndarray, label_map: LabelMap) -> None:
    """Write rows of :meth:`DetectionResults.rows` as COCO's results file, atomically."""
    columns = (rows["image_id"], np.asarray(label_map.ids)[rows["label"]], rows["box"], rows["score"])
    entries = [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
        for image_id, category, box, score in zip(*(column.tolist() for column in columns), strict=True)
    ]
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(entries), encoding="utf-8")


class DetectionScorer(DetectionResults):
    """Judges detections by a split's annotations, exactly as COCO's evaluation does, and VOC's where they are VOC's.

    Every picture of the split counts: in one that no process has seen, nothing was found.

    Args:
        truth: the annotations.
        label_map: the classes.
    """

    def __init__(self, truth: DetectionTruth, label_map: LabelMap) -> None:
        super().__init__(label_map)
        self.truth = truth

    def compute(self) -> DetectionScores:
        """The scores over all pictures of all processes so far; in a distributed run every process must call it.

        Raises:
            ValueError: a picture that was seen is none of the split.
        """
        rows = self.rows()
        unknown = np.setdiff1d(rows["image_id"], self.truth.image_ids)
        if unknown.size:
            raise ValueError(f"detections in pictures {unknown[:5].tolist()}, which are not in the annotations")
        precision, recall = engine(self.truth)(self.truth, rows, self.label_map)
        voc: dict[str, np.ndarray] = {}
        if self.truth.voc:
            classes = class_indices(self.truth, self.label_map)
            by_rule = voc_average_precision(self.truth, rows, classes, self.label_map.num_classes)
            voc = dict(zip(("voc07", "voc12"), by_rule, strict=True))
        return DetectionScores(self.label_map.names, precision, recall, voc)


def _mean_of_defined(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else math.nan


def _or_none(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(score) else score for name, score in scores.items()}


def _numpy(values: Tensor | np.ndarray) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
