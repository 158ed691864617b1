"""W&B's pictures and masks of a run, drawn as the run's own pictures are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from densevision.io import read_image, read_label
from densevision.structures import LabelMap
from densevision.visualize import draw_mask


def drawn_panels(picture: Path, masks: dict[str, Path], classes: dict[str, Any]) -> dict[str, bytes]:
    """The picture, and over it every mask, as JPEG.

    Args:
        picture: the file. masks: kind -> file with class indices.
        classes: ``names`` and ``colors`` of the run's data.

    Raises:
        UserError: a file cannot be read.
    """
    image = read_image(picture)
    panels = {"picture": image}
    if masks and classes:
        labels = LabelMap(
            tuple(range(len(classes["names"]))),
            tuple(classes["names"]),
            tuple((r, g, b) for r, g, b in classes["colors"]),
        )
        panels |= {kind: draw_mask(image, read_label(file), labels) for kind, file in masks.items()}
    return {kind: _jpeg(panel) for kind, panel in panels.items()}


def _jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
