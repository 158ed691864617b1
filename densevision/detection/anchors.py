"""Anchors: the boxes that a detector's cells start from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from densevision.config.lookup import lookup
from densevision.errors import UserError

# the anchors of each map: (width, height) as fractions of the shorter side of the network's picture
Shapes = list[list[tuple[float, float]]]


def ssdlite_anchors(maps: int = 6) -> Shapes:
    """The published anchors: 3 on the first map, 6 on each of the others.

    Source: object_detection ``multiple_grid_anchor_generator.create_ssd_anchors`` with scales .2 to .95 and
    ``reduce_boxes_in_lowest_layer``.
    """
    scales = _scales(maps)
    shapes = [[_shape(0.1, 1.0), _shape(scales[0], 2.0), _shape(scales[0], 0.5)]]
    for scale, following in pairwise(scales[1:]):
        # .3333 and not a third, as published
        ratios = [_shape(scale, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 0.3333)]
        shapes.append([*ratios, _shape(math.sqrt(scale * following), 1.0)])
    return shapes


def torchvision_anchors(maps: int = 6) -> Shapes:
    """torchvision's ``DefaultBoxGenerator([[2, 3]] * maps, min_ratio=0.2, max_ratio=0.95)``: 6 a map, none above 1.

    A picture's side is the limit, so these want square pictures, as torchvision resizes them.
    """
    scales = _scales(maps)
    shapes = []
    for scale, following in pairwise(scales):
        squares = [_shape(scale, 1.0), _shape(math.sqrt(scale * following), 1.0)]
        ratios = [_shape(scale, ratio) for ratio in (2.0, 1 / 2, 3.0, 1 / 3)]
        shapes.append([(min(width, 1.0), min(height, 1.0)) for width, height in squares + ratios])
    return shapes


# what model.head.anchors may name
ANCHORS: dict[str, Callable[[int], Shapes]] = {"ssdlite": ssdlite_anchors, "torchvision": torchvision_anchors}


def shapes_from_config(anchors: Any, maps: int) -> Shapes:
    """What ``model.head.anchors`` says: one of :data:`ANCHORS`, or a list of [width, height] for each of the maps.

    Raises:
        UserError: an unknown name, or lists that do not fit the maps.
    """
    key = "model.head.anchors"
    if isinstance(anchors, str):
        return lookup("set of anchors", anchors, ANCHORS, key=key)(maps)
    if not isinstance(anchors, list) or len(anchors) != maps:
        raise UserError(f"expected {', '.join(ANCHORS)} or {maps} lists of [width, height], got {anchors}", key=key)
    for number, shapes in enumerate(anchors):
        pairs = isinstance(shapes, list) and shapes and all(isinstance(s, list) and len(s) == 2 for s in shapes)
        if not pairs or not all(isinstance(side, int | float) and side > 0 for shape in shapes for side in shape):
            raise UserError(f"map {number}: expected at least one [width, height], both above 0, got {shapes}", key=key)
    return [[(float(width), float(height)) for width, height in shapes] for shapes in anchors]


def grid_anchors(shapes: Shapes, grids: Sequence[tuple[int, int]], image_size: tuple[int, int]) -> Tensor:
    """Every anchor of every cell: map by map, in each row by row, in each cell in the order of ``shapes``.

    Args:
        shapes: the anchors of each map.
        grids: (height, width) of each map in cells.
        image_size: (H, W) of the network's picture. Centres divide it evenly, whatever the strides; anchors at its
            border reach beyond it, as published.

    Returns:
        (A, 4) float32 xyxy pixels on the default device.
    """
    height, width = image_size
    anchors = []
    for (rows, columns), pairs in zip(grids, shapes, strict=True):
        y = (torch.arange(rows, dtype=torch.float64) + 0.5) * (height / rows)
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) * (width / columns)
        centres = torch.cartesian_prod(y, x).flip(1)[:, None]
        half = torch.tensor(pairs, dtype=torch.float64) * (min(height, width) / 2)
        anchors.append(torch.cat([centres - half, centres + half], dim=-1).reshape(-1, 4))
    return torch.cat(anchors).float()


class AnchorCache:
    """The anchors of a model, built once a picture size and device.

    Plain tensors rather than a module's buffers, which ``half()`` would round.

    Args:
        shapes: the anchors of each map.
        strides: pixels a cell of each map; a map covers the picture to its end, with ceil(side / stride) cells.
    """

    def __init__(self, shapes: Shapes, strides: Sequence[int]) -> None:
        self.shapes = shapes
        self.strides = tuple(strides)
        self._built: dict[tuple[int, int, torch.device], Tensor] = {}

    def grids(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        """(height, width) of each map in cells."""
        return [(-(-image_size[0] // stride), -(-image_size[1] // stride)) for stride in self.strides]

    def __call__(self, image_size: tuple[int, int], device: torch.device) -> Tensor:
        """(A, 4) float32 xyxy pixels on ``device``; do not write to it."""
        key = (*image_size, device)
        if key not in self._built:
            # one made in inference mode could not take part in training afterwards
            with torch.inference_mode(False):
                self._built[key] = grid_anchors(self.shapes, self.grids(image_size), image_size).to(device)
        return self._built[key]


def _scales(maps: int) -> list[float]:
    """.2 to .95 in even steps, a map each, then 1."""
    return [0.2 + 0.75 * k / max(maps - 1, 1) for k in range(maps)] + [1.0]


def _shape(scale: float, ratio: float) -> tuple[float, float]:
    return scale * math.sqrt(ratio), scale / math.sqrt(ratio)
