"""Anchors for the boxes of one's own data, and how well a set of anchors suits them. Plain arrays in and out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from densevision.detection.anchors import Shapes, ssdlite_anchors

_CHUNK = 50_000  # boxes compared with all anchors at once
_SAMPLE = 20_000  # boxes that anchors are fitted to; more change their third digit
_RESTARTS, _ROUNDS = 8, 50
_SPARED = 0.01  # share of the boxes that more anchors would have to reach to be worth their time
_DIGITS = 3  # of a proposed side: a fraction of a pixel


def matchable_shares(
    boxes: np.ndarray,
    image_size: tuple[int, int],
    shapes: Shapes,
    strides: Sequence[int],
    match_iou: float = 0.5,
) -> tuple[list[float], float]:
    """The share of boxes that overlap an anchor by ``match_iou``, without which only the claimed one learns them.

    Args:
        boxes: (N, 4) xyxy in pixels of the network's picture.
        image_size: (H, W) of that picture.
        shapes: the anchors of each map, as :data:`densevision.detection.anchors.Shapes`.
        strides: pixels a cell of each map.

    Returns:
        the share by map, and the share on any map; 0..1, nan without boxes.
    """
    if not len(boxes):
        return [float("nan")] * len(shapes), float("nan")
    reached = np.concatenate(
        [
            np.stack(
                [
                    _best_iou(boxes[first : first + _CHUNK], image_size, pairs, stride) >= match_iou
                    for pairs, stride in zip(shapes, strides, strict=True)
                ],
                axis=1,
            )
            for first in range(0, len(boxes), _CHUNK)
        ]
    )
    return reached.mean(axis=0).tolist(), float(reached.any(axis=1).mean())


def fit_anchors(
    boxes: np.ndarray,
    image_size: tuple[int, int],
    strides: Sequence[int],
    match_iou: float = 0.5,
    most: int = 6,
    seed: int = 0,
) -> Shapes:
    """Anchors fitted to boxes: as few on each map as reach all but a hundredth of what ``most`` of them do.

    A box goes to the coarsest map whose cells are close enough for an anchor of its own shape to overlap it by one half
    at most of the places that it can lie at, the small ones to the first map: large boxes then do not crowd out the
    anchors of small ones. On each map the shapes are clustered by their overlap. A map without a box keeps the
    published anchors.

    Args:
        boxes, image_size, strides, match_iou: as in :func:`matchable_shares`.
        most: anchors on one map.
        seed: of the samples and beginnings; the same arguments give the same anchors.
    """
    rng = np.random.default_rng(seed)
    if len(boxes) > _SAMPLE:
        boxes = boxes[rng.choice(len(boxes), _SAMPLE, replace=False)]
    level = _levels(boxes, image_size, strides)
    sides = (boxes[:, 2:] - boxes[:, :2]) / min(image_size)
    published = ssdlite_anchors(len(strides))
    if not len(boxes):
        return published
    by_count: list[Shapes] = []
    for count in range(1, most + 1):
        fitted = [_cluster(sides[level == number], count, rng) for number in range(len(strides))]
        by_count.append([own or kept for own, kept in zip(fitted, published, strict=True)])
    reached = [matchable_shares(boxes, image_size, shapes, strides, match_iou)[1] for shapes in by_count]
    return next(shapes for shapes, share in zip(by_count, reached, strict=True) if share >= reached[-1] - _SPARED)


def _levels(boxes: np.ndarray, image_size: tuple[int, int], strides: Sequence[int]) -> np.ndarray:
    """(N,) the map that each box goes to."""
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    level = np.zeros(len(sides), np.int64)
    picture = np.array([image_size[1], image_size[0]])
    for number, stride in enumerate(strides):
        cell = picture / -(-picture // stride)
        # half a cell is the furthest from an anchor, and where a box of most of the picture lies between two cells
        off = np.where(sides > picture / 2, cell / 2, cell / 3)
        # equal shapes that share 2/3 of their area overlap by 1/2
        level[np.prod(np.maximum(1 - off / sides, 0), axis=1) >= 2 / 3] = number
    return level


def _best_iou(
    boxes: np.ndarray, image_size: tuple[int, int], pairs: Sequence[tuple[float, float]], stride: int
) -> np.ndarray:
    """(N,) the greatest overlap with an anchor of one map: always one of the nearest cell's."""
    overlaps = np.ones((len(boxes), len(pairs)))
    shapes, shorter = np.asarray(pairs), min(image_size)
    for axis, side in ((0, image_size[1]), (1, image_size[0])):
        low, high = boxes[:, axis].astype(np.float64), boxes[:, axis + 2].astype(np.float64)
        cells = -(-side // stride)
        cell = np.clip(np.floor((low + high) / 2 * cells / side), 0, cells - 1)
        half = shapes[None, :, axis] * shorter / 2
        centre = ((cell + 0.5) * side / cells)[:, None]
        shared = np.minimum(high[:, None], centre + half) - np.maximum(low[:, None], centre - half)
        overlaps *= np.maximum(shared, 0)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64)
    union = areas[:, None] + shapes.prod(axis=1) * shorter**2 - overlaps
    return (overlaps / union).max(axis=1)


def _cluster(sides: np.ndarray, count: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """k-medians by overlap of (n, 2) widths and heights, the best of several beginnings, by area; n from 0."""
    if not len(sides):
        return []
    count = min(count, len(np.unique(sides.round(_DIGITS), axis=0)))
    best, best_overlap = sides[:count], -1.0
    for _ in range(_RESTARTS):
        centres = _spread(sides, count, rng)
        for _ in range(_ROUNDS):
            nearest = _shape_iou(sides, centres).argmax(axis=1)
            moved = np.array(
                [np.median(sides[nearest == k], axis=0) if (nearest == k).any() else centres[k] for k in range(count)]
            )
            if np.array_equal(moved, centres):
                break
            centres = moved
        overlap = float(_shape_iou(sides, centres).max(axis=1).mean())
        if overlap > best_overlap:
            best, best_overlap = centres, overlap
    best = best[np.argsort(best.prod(axis=1), kind="stable")].round(_DIGITS).clip(10.0**-_DIGITS)
    return [(float(width), float(height)) for width, height in best]


def _spread(sides: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Beginnings far from each other: each drawn with a chance of 1 - overlap with the nearest before (k-means++)."""
    centres = sides[rng.integers(len(sides))][None]
    while len(centres) < count:
        distance = 1 - _shape_iou(sides, centres).max(axis=1)
        chance = distance / distance.sum() if distance.sum() > 0 else None
        centres = np.concatenate([centres, sides[rng.choice(len(sides), p=chance)][None]])
    return centres


def _shape_iou(sides: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n, 2) and (k, 2) widths and heights -> (n, k) overlap around one centre."""
    shared = np.minimum(sides[:, None], centres[None]).prod(axis=-1)
    return shared / (sides.prod(axis=1)[:, None] + centres.prod(axis=1)[None] - shared)
