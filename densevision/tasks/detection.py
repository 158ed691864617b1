"""Training and judging a detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densevision.config.schema import Config
from densevision.detection.losses import DetectionLoss
from densevision.detection.postprocess import Detections
from densevision.detection.ssdlite import SSDLite
from densevision.metrics.detection import DetectionResults, DetectionScorer, DetectionScores
from densevision.models import build_postprocess
from densevision.structures import DetectionBatch, DetectionSample, LabelMap
from densevision.tasks.base import BaseTask
from densevision.training.exhibits import Chart, PrecisionRecall, ShownPicture
from densevision.visualize import DRAWN_SCORE, box_comparison, draw_boxes


class DetectionTask(BaseTask):
    """An :class:`SSDLite` with the loss of its scores, judged by COCO's mean average precision."""

    monitor = "map"
    model: SSDLite

    def __init__(self, model: SSDLite, label_map: LabelMap, config: Config) -> None:
        settings = config.loss
        loss = DetectionLoss(config.model.head.score, settings.match_iou, settings.focal_alpha, settings.focal_gamma)
        super().__init__(model, loss, label_map, config)
        self.postprocess = build_postprocess(config.model.head)
        self.found = DetectionResults(label_map)
        self.scores: DetectionScores | None = None
        self._results_file: Path | None = None

    def batch_loss(self, batch: DetectionBatch) -> tuple[Tensor, Tensor]:
        images = batch["images"]
        anchors = self.model.anchors((images.shape[-2], images.shape[-1]))
        total, count = self.loss(self.model(images), anchors, batch["boxes"], batch["labels"])
        return total, count

    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """The detections of each picture.

        Args:
            images: (B, 3, H, W) uint8, all resized to one size.
            sizes: B times the (height, width) in whose pixels the boxes are wanted.
        """
        seen = (images.shape[-2], images.shape[-1])
        found = self.postprocess(self.model(images), self.model.anchors(seen), seen)
        return [detections.resized(seen, size) for detections, size in zip(found, sizes, strict=True)]

    def keep_predictions(self, where: Path) -> None:
        """Write COCO's results file at the end of the next evaluation."""
        self._results_file = where

    def on_validation_epoch_start(self) -> None:
        loader: Any = self.trainer.val_dataloaders
        truth = loader.source.truth
        self.found = DetectionResults(self.label_map) if truth is None else DetectionScorer(truth, self.label_map)

    def validation_step(self, batch: DetectionBatch | None, batch_idx: int) -> None:
        if batch is None:  # of more processes than pictures
            return
        found = self.detect(batch["images"], batch["sizes"])
        # one copy from the device for the whole batch
        boxes, scores, labels = (torch.cat(values).cpu() for values in zip(*map(_columns, found), strict=True))
        counts = [len(detections.scores) for detections in found]
        self.found.update(batch["image_ids"], boxes.split(counts), scores.split(counts), labels.split(counts))

    def on_validation_epoch_end(self) -> None:
        if self._results_file is not None:
            self.found.write(self._results_file)
        if isinstance(self.found, DetectionScorer):
            scores = self.scores = self.found.compute()
            self.report = scores.to_dict()
            self.evaluation = {
                **scores.figures,
                **{f"map/{name}": value for name, value in scores.map_per_class.items()},
            }

    def show_prediction(self, sample: DetectionSample) -> ShownPicture:
        """The sample's picture with its true boxes and with the surer of the found ones."""
        image = sample["image"]
        (found,) = self.detect(image[None].to(self.device), [(image.shape[-2], image.shape[-1])])
        sure = found.scores >= DRAWN_SCORE
        boxes, scores, labels = (values[sure].cpu().numpy() for values in _columns(found))
        truth = (sample["boxes"].numpy(), sample["labels"].numpy()) if "boxes" in sample else None
        picture = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        shown: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]] = {"prediction": (boxes, labels, scores)}
        if truth is not None:
            shown = {"truth": (*truth, None), **shown}
        panels = {name: draw_boxes(picture, *one, self.label_map) for name, one in shown.items()}
        drawing = box_comparison(picture, truth, (boxes, labels, scores), self.label_map)
        return ShownPicture(sample["name"], {"picture": picture, **panels}, drawing, boxes=shown)

    def charts(self) -> dict[str, Chart]:
        """Precision by recall at IoU .5, .75 and over all thresholds, mean of the classes, and at .5 of each class."""
        if self.scores is None:
            return {}
        recall, curves, per_class = self.scores.curves()
        return {
            "precision_recall": PrecisionRecall(recall, curves),
            "precision_recall_50": PrecisionRecall(recall, per_class),
        }


def _columns(detections: Detections) -> tuple[Tensor, Tensor, Tensor]:
    return detections.boxes, detections.scores, detections.labels
