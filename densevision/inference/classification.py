"""A classifier's predictions: a probability for every class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from densevision.classification import Classifier
from densevision.inference.base import NetworkPredictor, rgb, write_picture
from densevision.io import resize_middle, write_json
from densevision.structures import LabelMap
from densevision.visualize import class_bars


@dataclass(frozen=True)
class ClassificationResult:
    """How probable each class is.

    picture: (H, W, 3) uint8 RGB, as it was given. probabilities: (K,) float32 by class index, of sum 1.
    label_map: the classes.
    """

    picture: np.ndarray
    probabilities: np.ndarray
    label_map: LabelMap

    def top(self, count: int = 5) -> dict[str, float]:
        """The ``count`` most probable classes by name, the surest first; of equals the lower index."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return {self.label_map.names[k]: float(self.probabilities[k]) for k in order}

    @property
    def summary(self) -> str:
        """The three most probable classes with their probabilities."""
        return ", ".join(f"{name} {probability:.3f}" for name, probability in self.top(3).items())

    def overlay(self) -> np.ndarray:
        """(H', W', 3) uint8 RGB: the picture above its five most probable classes."""
        top = self.top()
        return class_bars(self.picture, list(top), list(top.values()))

    def drawn(self) -> np.ndarray:
        """:meth:`overlay`."""
        return self.overlay()

    def save(self, path: str | Path) -> None:
        """Write :meth:`overlay` in the format of the file's suffix.

        Raises:
            UserError: the suffix is no picture format.
        """
        write_picture(Path(path), self.overlay())

    def to_dict(self) -> dict[str, Any]:
        """For json: ``size`` (height, width) and ``classes``, all of them with their probabilities, surest first."""
        everything = self.top(self.label_map.num_classes)
        classes = [{"name": name, "probability": probability} for name, probability in everything.items()]
        return {"size": list(self.picture.shape[:2]), "classes": classes}

    def write(self, folder: Path, name: str) -> None:
        """``<name>.png``, the overlay, and ``<name>.json``, :meth:`to_dict`."""
        self.save(folder / f"{name}.png")
        write_json(folder / f"{name}.json", self.to_dict())


class ClassificationPredictor(NetworkPredictor):
    """Predicts the middle of the picture at ``data.image_size``, as the model was evaluated."""

    model: Classifier

    def predict(self, picture: str | Path | np.ndarray | Image.Image) -> ClassificationResult:
        """As :meth:`Predictor.predict`."""
        return self.predict_batch([rgb(picture)])[0]

    @torch.inference_mode()
    def predict_batch(self, pictures: Sequence[np.ndarray]) -> list[ClassificationResult]:
        """As :meth:`Predictor.predict_batch`."""
        size, share = self.config.data.image_size or pictures[0].shape[:2], self.config.data.eval_crop
        images = self._images(resize_middle(picture, size, share) for picture in pictures)
        probabilities = self.model(images).float().softmax(1).cpu().numpy()
        return [ClassificationResult(*pair, self.label_map) for pair in zip(pictures, probabilities, strict=True)]
