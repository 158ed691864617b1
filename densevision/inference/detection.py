"""A detector's predictions: boxes with class and score."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from densevision.config import Config
from densevision.detection.ssdlite import SSDLite
from densevision.inference.base import NetworkPredictor, rgb, write_picture
from densevision.io import resize_image, write_json
from densevision.models import build_postprocess
from densevision.structures import LabelMap
from densevision.visualize import DRAWN_SCORE, draw_boxes


@dataclass(frozen=True)
class DetectionResult:
    """Boxes in a picture, the best first.

    picture: (H, W, 3) uint8 RGB, as it was given. boxes: (N, 4) float32 xyxy in its pixels. scores: (N,) float32, 0..1.
    labels: (N,) int64 class indices. label_map: the classes.
    """

    picture: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    label_map: LabelMap

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each box's class."""
        return tuple(self.label_map.names[label] for label in self.labels)

    @property
    def summary(self) -> str:
        """How many boxes of each class are drawn, the most frequent first."""
        drawn = Counter(name for name, score in zip(self.names, self.scores, strict=True) if score >= DRAWN_SCORE)
        return ", ".join(f"{count} {name}" for name, count in drawn.most_common()) or "nothing"

    def overlay(self, min_score: float = DRAWN_SCORE) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the boxes of at least ``min_score`` drawn on the picture."""
        sure = self.scores >= min_score
        return draw_boxes(self.picture, self.boxes[sure], self.labels[sure], self.scores[sure], self.label_map)

    def save(self, path: str | Path) -> None:
        """Write :meth:`overlay` in the format of the file's suffix.

        Raises:
            UserError: the suffix is no picture format.
        """
        write_picture(Path(path), self.overlay())

    def to_dict(self) -> dict[str, Any]:
        """For json: ``size`` (height, width) and every detection with class, dataset id, score and xyxy box."""
        ids = self.label_map.ids
        columns = (self.labels.tolist(), self.scores.tolist(), self.boxes.tolist())
        detections = [
            {"name": self.label_map.names[label], "category_id": ids[label], "score": score, "box": box}
            for label, score, box in zip(*columns, strict=True)
        ]
        return {"size": list(self.picture.shape[:2]), "detections": detections}

    def write(self, folder: Path, name: str) -> None:
        """``<name>.png``, the overlay, and ``<name>.json``, :meth:`to_dict`."""
        self.save(folder / f"{name}.png")
        write_json(folder / f"{name}.json", self.to_dict())


class DetectionPredictor(NetworkPredictor):
    """Predicts at ``data.image_size``, the aspect not kept, as the model was trained."""

    model: SSDLite

    def __init__(self, model: nn.Module, config: Config, label_map: LabelMap, device: torch.device) -> None:
        super().__init__(model, config, label_map, device)
        self.postprocess = build_postprocess(config.model.head)

    @torch.inference_mode()
    def predict(self, picture: str | Path | np.ndarray | Image.Image) -> DetectionResult:
        """As :meth:`Predictor.predict`; boxes are in the picture's own pixels."""
        array = rgb(picture)
        height, width = self.config.data.image_size or array.shape[:2]
        resized = resize_image(array, (height, width))
        images = torch.from_numpy(resized.copy()).permute(2, 0, 1)[None].to(self.device)
        (found,) = self.postprocess(self.model(images), self.model.anchors((height, width)), (height, width))
        found = found.resized((height, width), (array.shape[0], array.shape[1]))
        boxes, scores, labels = (values.cpu().numpy() for values in (found.boxes, found.scores, found.labels))
        return DetectionResult(array, boxes, scores, labels, self.label_map)
