"""Pictures of what is wrong with a data set, for ``check_data --pictures``."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from densevision.io import write_png
from densevision.structures import IGNORE_INDEX, LabelMap
from densevision.visualize import color_map, draw_boxes, draw_mask, grid

_AT_MOST = 100  # of a split
_WRONG = np.array((255, 0, 255), np.uint8)
_WIDTH = 640  # a caption's line in pixels where there is no picture


def draw_problems(report: Any, folder: Path) -> int:
    """Draw the items of a DataReport with which something is the matter, the first of each split.

    Wrong pixels and boxes are magenta; what is the matter stands above. Returns the number of pictures.
    """
    drawn = 0
    for use, split in report.splits.items():
        # errors before what is only worth a look
        order = sorted(
            split.problems, key=lambda index: not any(said in split.errors for said in split.problems[index])
        )
        for index in order[:_AT_MOST] if split.evidence else ():
            picture = draw_evidence(split.evidence(index), report.label_map)
            rows = [[picture]]
            said = [
                line for text in split.problems[index] for line in textwrap.wrap(text, max(40, picture.shape[1] // 9))
            ]
            for line in reversed(said):
                rows = [[grid(rows, [line])]]
            write_png(folder / f"{use}_{index:06d}.png", rows[0][0])
            drawn += 1
    return drawn


def draw_evidence(evidence: Any, label_map: LabelMap) -> np.ndarray:
    """(H, W, 3) uint8 RGB: an item's picture with its labels, what is wrong in magenta."""
    image, label, wrong = evidence.image, evidence.label, evidence.wrong
    if image is None and label is None:
        return np.full((8, _WIDTH, 3), 255, np.uint8)
    if label is not None:
        classes = np.where(wrong, IGNORE_INDEX, label)
        fits = image is not None and image.shape[:2] == label.shape
        drawn = draw_mask(image, classes, label_map) if fits else color_map(classes, label_map)
        drawn[wrong] = _WRONG
        return drawn if fits or image is None else grid([[image, drawn]])
    if evidence.boxes is None:
        return image
    inside = np.clip(evidence.boxes, 0, [image.shape[1] - 1, image.shape[0] - 1] * 2)
    drawn = draw_boxes(image, inside[~wrong], evidence.labels[~wrong], None, label_map)
    marked = LabelMap(label_map.ids, label_map.names, (tuple(_WRONG.tolist()),) * label_map.num_classes)
    return draw_boxes(drawn, inside[wrong], evidence.labels[wrong], None, marked)
