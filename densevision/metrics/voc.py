"""VOC's average precision at IoU .5: of 2007, at eleven recalls, and of 2010 to 2012, the area under the whole curve.

The official definition is the devkit's VOCevaldet.m. Each detection, the surest first, is judged by the one object of
its class that it overlaps most: the first to find it is right, others are wrong, and all are passed over where it is
difficult.
"""

from __future__ import annotations

import math

import numpy as np

from densevision.structures import DetectionTruth

_LEAST_IOU = 0.5
# as the devkit's ports write it; three of the levels lie a last bit above .3, .6 and .7
_RECALLS = np.arange(0.0, 1.1, 0.1)


def voc_average_precision(
    truth: DetectionTruth, rows: np.ndarray, classes: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The average precision of each class, by the rule of 2007 and by that of 2012.

    Args:
        truth: the annotations; crowds are the difficult objects.
        rows: of :meth:`DetectionResults.rows`; of equally sure detections the first counts first.
        classes: (N,) class index of each annotation.
        num_classes: K.

    Returns:
        Two arrays (K,) float64, 0..1; nan for a class without an object that is not difficult.
    """
    order = np.lexsort([-rows["score"], rows["label"]])
    rows = rows[order]
    object_of = _best_objects(truth, rows, classes)
    found, first = object_of >= 0, np.zeros(len(rows), bool)
    first[np.unique(object_of, return_index=True)[1]] = True
    passed_over = found & truth.crowd[object_of] if len(truth.crowd) else found
    right = found & first & ~passed_over
    wrong = ~right & ~passed_over
    wanted = np.bincount(classes[~truth.crowd], minlength=num_classes)
    bounds = np.searchsorted(rows["label"], np.arange(num_classes + 1))
    both = np.full((2, num_classes), math.nan)
    for k in np.flatnonzero(wanted):
        own = slice(*bounds[k : k + 2])
        hits = np.cumsum(right[own])
        recall = hits / wanted[k]
        precision = hits / np.maximum(hits + np.cumsum(wrong[own]), 1)
        both[:, k] = _at_eleven_recalls(recall, precision), _area(recall, precision)
    return both[0], both[1]


def _best_objects(truth: DetectionTruth, rows: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(D,) the object of its class and picture that each detection overlaps most, the first of several; -1: none by .5.

    In pixels as they are here, from 0 and without the last, VOC's "+ 1" of sides is done already.
    """
    pictures = np.unique(truth.image_ids)
    num_classes = 1 + max(classes.max(initial=0), rows["label"].max(initial=0))
    places = np.searchsorted(pictures, truth.box_image_ids) * num_classes + classes
    by_place = np.argsort(places, kind="stable")
    wanted = np.searchsorted(pictures, rows["image_id"]) * num_classes + rows["label"]
    begin, end = np.searchsorted(places[by_place], wanted), np.searchsorted(places[by_place], wanted, side="right")
    found, objects = _corners(rows["box"]), _corners(truth.boxes)
    areas, object_areas = rows["box"][:, 2:].prod(axis=1), truth.boxes[:, 2:].prod(axis=1)
    best_iou, best = np.full(len(rows), -np.inf), np.full(len(rows), -1)
    for nth in range(int((end - begin).max(initial=0))):  # the nth object of each detection's class and picture
        some = np.flatnonzero(begin + nth < end)
        near = by_place[begin[some] + nth]
        sides = np.minimum(found[some, 2:], objects[near, 2:]) - np.maximum(found[some, :2], objects[near, :2])
        overlap = (sides > 0).all(axis=1)
        some, near, shared = some[overlap], near[overlap], sides[overlap].prod(axis=1)
        iou = shared / (areas[some] + object_areas[near] - shared)
        better = iou > best_iou[some]
        best_iou[some[better]], best[some[better]] = iou[better], near[better]
    return np.where(best_iou >= _LEAST_IOU, best, -1)


def _at_eleven_recalls(recall: np.ndarray, precision: np.ndarray) -> float:
    """VOC2007: the mean of the best precisions at recalls of at least 0, .1, ..., 1."""
    return sum(float(precision[recall >= least].max(initial=0.0)) for least in _RECALLS) / len(_RECALLS)


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    """VOC2010 and later: the area under the precision made to fall."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
