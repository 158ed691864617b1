"""Predictions of an exported file, by its runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from densevision.config import Config
from densevision.detection.anchors import AnchorCache
from densevision.detection.postprocess import Detections
from densevision.errors import UserError
from densevision.export import Runtime
from densevision.inference.base import Predictor, Result, rgb
from densevision.inference.classification import ClassificationResult
from densevision.inference.detection import DetectionResult
from densevision.inference.segmentation import SegmentationResult
from densevision.io import resize_image, resize_label, resize_middle
from densevision.model_heads import anchor_shapes
from densevision.models import anchor_strides, build_postprocess
from densevision.segmentation.postprocess import class_map

Size = tuple[int, int]


class FileNetwork(nn.Module):
    """An exported file with raw outputs where a task expects its network; runs on the CPU, a picture at a time."""

    def __init__(self, runtime: Runtime, config: Config) -> None:
        super().__init__()
        self.runtime = runtime
        self.head = config.model.head
        self._anchors = _anchor_cache(config) if config.task == "detection" else None

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """(B, 3, H, W) uint8 -> the network's outputs."""
        found = [self.runtime(image[None].numpy()) for image in images]
        outputs = {name: torch.from_numpy(np.concatenate([one[name] for one in found])) for name in found[0]}
        return outputs if self._anchors else outputs["logits"]

    def anchors(self, image_size: Size) -> Tensor:
        """As :meth:`densevision.detection.ssdlite.SSDLite.anchors`."""
        assert self._anchors is not None
        return self._anchors(image_size, torch.device("cpu"))


def _anchor_cache(config: Config) -> AnchorCache:
    return AnchorCache(anchor_shapes(config.model.head), anchor_strides(config.model))


class ExportedPredictor(Predictor):
    """Predicts at the size that the file takes; one that takes several sees pictures as its checkpoint does.

    Attributes:
        runtime: the opened file.
    """

    def __init__(self, runtime: Runtime, source: str) -> None:
        super().__init__(runtime.metadata.read_config(source), runtime.metadata.label_map)
        self.runtime = runtime
        self.source = source
        if self.config.task == "detection":
            self.anchor_cache = _anchor_cache(self.config)

    def predict(self, picture: str | Path | np.ndarray | Image.Image) -> Result:
        """As :meth:`Predictor.predict`.

        Raises:
            UserError: also, a picture of a size that the file does not take.
        """
        array = rgb(picture)
        size = self._seen_size((array.shape[0], array.shape[1]))
        if self.config.task == "classification":
            seen = resize_middle(array, size, self.config.data.eval_crop)
        else:
            seen = resize_image(array, size)
        outputs = self.runtime(np.ascontiguousarray(seen.transpose(2, 0, 1)[None]))
        if self.config.task == "segmentation":
            return self._classes(array, outputs)
        return self._boxes(array, outputs, size) if self.config.task == "detection" else self._top(array, outputs)

    def _seen_size(self, size: Size) -> Size:
        metadata = self.runtime.metadata
        if metadata.sizes is None:
            return metadata.image_size
        wanted = self.config.data.image_size or size
        if not metadata.takes((wanted[0], wanted[1])):
            (low, high), (left, right) = metadata.sizes
            raise UserError(
                f"{self.source} takes pictures of {low} to {high} by {left} to {right} pixels, not "
                f"{wanted[0]}x{wanted[1]}; resize them, or export the checkpoint at that size"
            )
        return wanted[0], wanted[1]

    def _classes(self, array: np.ndarray, outputs: dict[str, np.ndarray]) -> SegmentationResult:
        height, width = array.shape[:2]
        if "classes" in outputs:
            classes = resize_label(outputs["classes"][0], (height, width))
        else:
            logits = torch.from_numpy(outputs["logits"])
            align_corners = self.config.model.head.align_corners
            classes = class_map(logits, (height, width), align_corners, self.config.evaluation.exact)[0].numpy()
        return SegmentationResult(array, classes, self.label_map)

    def _boxes(self, array: np.ndarray, outputs: dict[str, np.ndarray], seen: Size) -> DetectionResult:
        tensors = {name: torch.from_numpy(value) for name, value in outputs.items()}
        if "boxes" in tensors:
            count = int(tensors["count"][0])
            found = Detections(*(tensors[name][0, :count] for name in ("boxes", "scores", "labels")))
        else:
            anchors = self.anchor_cache(seen, torch.device("cpu"))
            (found,) = build_postprocess(self.config.model.head)(tensors, anchors, seen)
        found = found.resized(seen, (array.shape[0], array.shape[1]))
        boxes, scores, labels = (values.numpy() for values in (found.boxes, found.scores, found.labels))
        return DetectionResult(array, boxes, scores, labels, self.label_map)

    def _top(self, array: np.ndarray, outputs: dict[str, np.ndarray]) -> ClassificationResult:
        if "probabilities" in outputs:
            return ClassificationResult(array, outputs["probabilities"][0], self.label_map)
        probabilities = torch.from_numpy(outputs["logits"])[0].softmax(0).numpy()
        return ClassificationResult(array, probabilities, self.label_map)
