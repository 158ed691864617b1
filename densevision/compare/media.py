"""W&B's pictures of a run with their masks and boxes, drawn as the run's own pictures are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from densevision.io import encode_jpeg, read_image, read_label
from densevision.structures import LabelMap
from densevision.visualize import draw_boxes, draw_mask


def drawn_panels(
    picture: Path, masks: dict[str, Path], boxes: dict[str, Path], classes: dict[str, Any]
) -> dict[str, bytes]:
    """The picture, and over it every mask and every set of boxes, as JPEG.

    Args:
        picture: the file. masks: kind -> file with class indices. boxes: kind -> file with W&B's ``box_data``.
        classes: ``names`` and ``colors`` of the run's data.

    Raises:
        UserError, OSError, KeyError, ValueError, TypeError: a file cannot be read, or is none of ours.
    """
    image = read_image(picture)
    panels = {"picture": image}
    if classes:
        labels = LabelMap(
            tuple(range(len(classes["names"]))),
            tuple(classes["names"]),
            tuple((r, g, b) for r, g, b in classes["colors"]),
        )
        panels |= {kind: draw_mask(image, read_label(file), labels) for kind, file in masks.items()}
        panels |= {kind: draw_boxes(image, *_columns(file), labels) for kind, file in boxes.items()}
    return {kind: encode_jpeg(panel) for kind, panel in panels.items()}


def _columns(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Boxes (N, 4) in xyxy pixels, class indices (N,) and scores (N,), None where they have none."""
    entries = json.loads(file.read_text(encoding="utf-8"))["box_data"]
    corners = [[entry["position"][side] for side in ("minX", "minY", "maxX", "maxY")] for entry in entries]
    scores = [entry["scores"]["score"] for entry in entries if entry.get("scores")]
    boxes = np.array(corners, dtype=np.float64).reshape(-1, 4)
    return (
        boxes,
        np.array([entry["class_id"] for entry in entries], dtype=np.int64),
        np.array(scores) if scores else None,
    )
