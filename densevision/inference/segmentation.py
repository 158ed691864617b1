"""A segmenter's predictions: one class a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from densevision.config import Config
from densevision.inference.base import NetworkPredictor, rgb, write_picture
from densevision.io import resize_image, write_png
from densevision.segmentation.segmenter import Segmenter
from densevision.segmentation.views import see, views_from_config
from densevision.structures import LabelMap
from densevision.visualize import draw_mask, overlay


@dataclass(frozen=True)
class SegmentationResult:
    """One class a pixel.

    picture: (H, W, 3) uint8 RGB, as it was given. class_map: (H, W) uint8 class indices. label_map: the classes.
    """

    picture: np.ndarray
    class_map: np.ndarray
    label_map: LabelMap

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class index."""
        return self.label_map.names

    @property
    def colors(self) -> tuple[tuple[int, int, int], ...]:
        """The RGB colour of each class index."""
        return self.label_map.colors

    @property
    def shares(self) -> dict[str, float]:
        """Share of the picture by class name, 0..1, the largest first; classes that do not occur are left out."""
        pixels = np.bincount(self.class_map.ravel(), minlength=len(self.names))
        order = np.argsort(-pixels, kind="stable")
        return {self.names[k]: float(pixels[k] / self.class_map.size) for k in order if pixels[k]}

    @property
    def summary(self) -> str:
        """The classes of the three largest shares."""
        return ", ".join(f"{name} {share:.3f}" for name, share in list(self.shares.items())[:3])

    @property
    def label_ids(self) -> np.ndarray:
        """(H, W) uint8: the data set's own ids, as its label files and evaluation server have them."""
        return np.array(self.label_map.ids, dtype=np.uint8)[self.class_map]

    def overlay(self) -> np.ndarray:
        """(H', W', 3) uint8 RGB: the classes drawn on the picture, with a legend below."""
        return overlay(self.picture, self.class_map, self.label_map)

    def drawn(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the classes drawn on the picture, without a legend."""
        return draw_mask(self.picture, self.class_map, self.label_map)

    def to_dict(self) -> dict[str, Any]:
        """For json: ``size`` (height, width) and ``classes``, those that occur with their shares, largest first."""
        classes = [{"name": name, "share": share} for name, share in self.shares.items()]
        return {"size": list(self.picture.shape[:2]), "classes": classes}

    def save(self, path: str | Path) -> None:
        """Write :meth:`overlay` in the format of the file's suffix.

        Raises:
            UserError: the suffix is no picture format.
        """
        write_picture(Path(path), self.overlay())

    def save_label_ids(self, path: str | Path) -> None:
        """Write :attr:`label_ids` as a grey PNG."""
        write_png(path, self.label_ids)

    def write(self, folder: Path, name: str) -> None:
        """``<name>.png``, the overlay, and ``<name>_labelIds.png``."""
        self.save(folder / f"{name}.png")
        self.save_label_ids(folder / f"{name}_labelIds.png")


class SegmentationPredictor(NetworkPredictor):
    """Predicts at ``data.image_size`` where the model was evaluated at one, else at the picture's own size.

    Views of it (windows, scales, mirrored) are those that the section ``evaluation`` of the configuration asks for.
    """

    model: Segmenter

    def __init__(self, model: nn.Module, config: Config, label_map: LabelMap, device: torch.device) -> None:
        super().__init__(model, config, label_map, device)
        self.views = views_from_config(config.evaluation, config.data.crop_size)

    def predict(self, picture: str | Path | np.ndarray | Image.Image) -> SegmentationResult:
        """As :meth:`Predictor.predict`; the class map has the picture's own size."""
        return self.predict_batch([rgb(picture)])[0]

    @torch.inference_mode()
    def predict_batch(self, pictures: Sequence[np.ndarray]) -> list[SegmentationResult]:
        """As :meth:`Predictor.predict_batch`."""
        size = (pictures[0].shape[0], pictures[0].shape[1])
        seen = self._images(resize_image(picture, self.config.data.image_size or size) for picture in pictures)
        classes = see(self.model, seen, size, self.model.head.align_corners, self.views).cpu().numpy()
        return [SegmentationResult(*pair, self.label_map) for pair in zip(pictures, classes, strict=True)]
