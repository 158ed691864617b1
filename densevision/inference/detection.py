"""A detector's predictions: boxes with class and score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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

    def drawn(self) -> np.ndarray:
        """:meth:`overlay` with the surer boxes."""
        return self.overlay()

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """As entries of COCO's results file: ``image_id``, ``category_id``, ``bbox`` (x, y, w, h) and ``score``."""
        corners = self.boxes.astype(float)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
        ids = [self.label_map.ids[label] for label in self.labels.tolist()]
        return [
            {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
            for category, box, score in zip(ids, boxes, self.scores.tolist(), strict=True)
        ]

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

    def predict(self, picture: str | Path | np.ndarray | Image.Image) -> DetectionResult:
        """As :meth:`Predictor.predict`; boxes are in the picture's own pixels."""
        return self.predict_batch([rgb(picture)])[0]

    @torch.inference_mode()
    def predict_batch(self, pictures: Sequence[np.ndarray]) -> list[DetectionResult]:
        """As :meth:`Predictor.predict_batch`."""
        size = (pictures[0].shape[0], pictures[0].shape[1])
        height, width = self.config.data.image_size or size
        images = self._images(resize_image(picture, (height, width)) for picture in pictures)
        results = []
        found = self.postprocess(self.model(images), self.model.anchors((height, width)), (height, width))
        for picture, one in zip(pictures, found, strict=True):
            one = one.resized((height, width), size)
            boxes, scores, labels = (values.cpu().numpy() for values in (one.boxes, one.scores, one.labels))
            results.append(DetectionResult(picture, boxes, scores, labels, self.label_map))
        return results
