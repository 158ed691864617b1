"""COCO's precision and recall tables from columns of numbers, by the official code or by its equal.

The official definition is pycocotools' code. hotcoco computes the same tables in a small part of the time; pycocotools
itself takes over where hotcoco is not installed or would differ.
"""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

import numpy as np

from densevision.metrics.reduce import is_rank_zero
from densevision.structures import DetectionTruth, LabelMap

_log = logging.getLogger("densevision")


def engine(truth: DetectionTruth) -> Any:
    """Which of the two gives the official tables for these annotations in the least time."""
    if (truth.annotation_ids == 0).any():
        # pycocotools marks what is found by the annotation's id, in zeros; hotcoco does not repeat that
        warn(
            "an annotation has the id 0, and the official evaluation counts what finds it as wrong; to equal it the "
            "scores are computed by pycocotools, slowly: number the annotations from 1"
        )
        return pycocotools_tables
    try:
        import hotcoco  # noqa: F401
    except ImportError:
        warn("hotcoco is not installed: pycocotools computes the scores, the same but slowly")
        return pycocotools_tables
    return hotcoco_tables


def hotcoco_tables(truth: DetectionTruth, rows: np.ndarray, label_map: LabelMap) -> tuple[np.ndarray, np.ndarray]:
    """The tables of :class:`densevision.metrics.detection.DetectionScores` by hotcoco."""
    import hotcoco

    # its ids are never negative; the pictures' order, by which it breaks ties, is that of the true ids
    image_ids = np.unique(truth.image_ids)
    images = [{"id": position} for position in range(len(image_ids))]
    categories = [{"id": k, "name": str(k)} for k in range(label_map.num_classes)]
    places = np.searchsorted(image_ids, truth.box_image_ids)
    annotations = hotcoco.COCO.from_arrays(
        images,
        categories,
        places,
        class_indices(truth, label_map),
        truth.boxes,
        area=truth.areas,
        iscrowd=truth.crowd,
    )
    found = np.empty((len(rows), 7))
    found[:, 0], found[:, 1:5] = np.searchsorted(image_ids, rows["image_id"]), rows["box"]
    found[:, 5], found[:, 6] = rows["score"], rows["label"]
    evaluation = hotcoco.COCOeval(annotations, annotations.load_res(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    assert evaluation.eval is not None
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])


def pycocotools_tables(truth: DetectionTruth, rows: np.ndarray, label_map: LabelMap) -> tuple[np.ndarray, np.ndarray]:
    """The tables of :class:`densevision.metrics.detection.DetectionScores` by the official code."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = [{"id": image_id} for image_id in truth.image_ids.tolist()]
    categories = [{"id": k} for k in range(label_map.num_classes)]
    classes = class_indices(truth, label_map)
    truths = (truth.annotation_ids, truth.box_image_ids, classes, truth.boxes, truth.areas, truth.crowd)
    founds = (
        np.arange(1, len(rows) + 1),
        rows["image_id"],
        rows["label"],
        rows["box"],
        rows["box"][:, 2] * rows["box"][:, 3],
        np.zeros(len(rows), bool),
    )
    keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for columns in (truths, founds):
            entries = [
                dict(zip(keys, entry, strict=True)) for entry in zip(*(c.tolist() for c in columns), strict=True)
            ]
            sides.append(COCO())
            sides[-1].dataset = {"images": images, "categories": categories, "annotations": entries}
            sides[-1].createIndex()
        for entry, score in zip(sides[1].dataset["annotations"], rows["score"].tolist(), strict=True):
            entry["score"] = score
        evaluation = COCOeval(*sides, iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def class_indices(truth: DetectionTruth, label_map: LabelMap) -> np.ndarray:
    """(N,) the class index of each annotation."""
    order = np.argsort(label_map.ids)
    ids = np.asarray(label_map.ids)[order]
    places = np.minimum(np.searchsorted(ids, truth.category_ids), len(ids) - 1)
    if (ids[places] != truth.category_ids).any():
        raise ValueError("the annotations have categories that are none of the classes")
    return order[places]


def warn(message: str) -> None:
    """One line, not one a process."""
    if is_rank_zero():
        _log.warning(message)
