"""Training and judging a segmenter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from densevision.config.schema import Config
from densevision.io import make_folder, resize_label, write_png
from densevision.metrics.segmentation import ConfusionMatrix, SegmentationScores
from densevision.segmentation.losses import SegmentationLoss
from densevision.segmentation.segmenter import Segmenter
from densevision.segmentation.views import see, views_from_config
from densevision.structures import LabelMap, SampleKey, SegmentationBatch, SegmentationSample
from densevision.tasks.base import BaseTask
from densevision.tasks.segmentation_report import write_report
from densevision.training.exhibits import MOST_CLASSES, Chart, Confusion, ShownPicture
from densevision.visualize import comparison, draw_mask

_WORST = 12  # pictures of a report


class SegmentationTask(BaseTask):
    """A :class:`Segmenter` with full-resolution cross-entropy, judged by the Cityscapes mIoU.

    Attributes:
        on_class_maps: called in evaluation with the names of a batch's pictures and their class maps, (B, H, W)
            uint8 at the size of the labels, or of the stored pictures where there are none.
        scores: the latest evaluation's.
        picture_scores: name -> mIoU of every picture of the latest evaluation; None unless a report is to be written.
    """

    monitor = "miou"
    model: Segmenter

    def __init__(
        self, model: Segmenter, label_map: LabelMap, config: Config, class_weights: Sequence[float] | None = None
    ) -> None:
        loss = SegmentationLoss(model.head.align_corners, class_weights, config.loss.ohem, config.loss.ohem_min_kept)
        super().__init__(model, loss, label_map, config)
        self.views = views_from_config(config.evaluation, config.data.crop_size)
        self.confusion = ConfusionMatrix(label_map.names)
        self.scores: SegmentationScores | None = None
        self.picture_scores: dict[str, float] | None = None
        self.on_class_maps: Callable[[Sequence[str], Tensor], None] | None = None

    def batch_loss(self, batch: SegmentationBatch) -> tuple[Tensor, Tensor]:
        logits = self.model(batch["images"])
        total, count = self.loss(logits, batch["labels"])
        return total, count

    def classify(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, *size) uint8 class indices, seen as the section ``evaluation`` says."""
        return see(self.model, images, size, self.model.head.align_corners, self.views)

    def keep_predictions(self, where: Path) -> None:
        """Write class maps as PNGs of the data set's own ids, ``where/<name>.png``."""
        make_folder(where)
        to_ids = np.array(self.label_map.ids, dtype=np.uint8)

        def write(names: Sequence[str], class_maps: Tensor) -> None:
            for name, indices in zip(names, class_maps.cpu().numpy(), strict=True):
                write_png(where / f"{name}.png", to_ids[indices])

        self.on_class_maps = write

    def on_validation_epoch_start(self) -> None:
        self.confusion.reset()

    def validation_step(self, batch: SegmentationBatch | None, batch_idx: int) -> None:
        if batch is None:  # of more processes than pictures
            return
        labels = batch.get("labels")
        size = batch["sizes"][0] if labels is None else (labels.shape[-2], labels.shape[-1])
        predicted = self.classify(batch["images"], size)
        if labels is not None:
            self.confusion.update(predicted, labels)
            if self.picture_scores is not None:
                for name, one, truth in zip(batch["names"], predicted, labels, strict=True):
                    matrix = ConfusionMatrix(self.label_map.names)
                    matrix.update(one[None], truth[None])
                    self.picture_scores[name] = matrix.compute(all_processes=False).miou
        if self.on_class_maps is not None:
            self.on_class_maps(batch["names"], predicted)

    def on_validation_epoch_end(self) -> None:
        scores = self.scores = self.confusion.compute()
        if self.picture_scores is not None and dist.is_available() and dist.is_initialized():
            everyones: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(everyones, self.picture_scores)
            self.picture_scores = {name: score for some in everyones for name, score in some.items()}
        self.report = scores.to_dict()
        self.evaluation = {
            "miou": scores.miou,
            "pixel_accuracy": scores.pixel_accuracy,
            **{f"iou/{name}": iou for name, iou in scores.iou.items()},
        }

    def write_report(self, folder: Path, source: Any, title: str) -> None:
        """Write what :func:`densevision.tasks.segmentation_report.write_report` says, after an evaluation.

        Args:
            folder: where to.
            source: the data set that was judged on; the worst pictures are read from it again.
            title: one line.
        """
        assert self.scores is not None
        assert self.picture_scores is not None
        # a picture without a labelled pixel has no score, and nan would spoil the order
        scored = [(name, score) for name, score in self.picture_scores.items() if not math.isnan(score)]
        by_score = sorted(scored, key=lambda item: (item[1], item[0]))
        index = {pair.name: number for number, pair in enumerate(source.pairs)}
        worst = []
        with torch.inference_mode():
            for name, score in by_score[:_WORST]:
                worst.append((name, score, self.show_prediction(source[SampleKey(0, index[name])]).drawing))
        write_report(folder, self.scores, worst, title)

    def show_prediction(self, sample: SegmentationSample) -> ShownPicture:
        """The sample's picture, truth and prediction."""
        image = sample["image"]
        size = (image.shape[-2], image.shape[-1])
        predicted = self.classify(image[None].to(self.device), size)
        picture = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        masks = {"prediction": predicted[0].cpu().numpy()}
        if "label" in sample:
            masks = {"truth": resize_label(sample["label"].numpy(), size), **masks}
        panels = {name: draw_mask(picture, mask, self.label_map) for name, mask in masks.items()}
        drawing = comparison(picture, masks.get("truth"), masks["prediction"], self.label_map)
        return ShownPicture(sample["name"], {"picture": picture, **panels}, drawing, masks=masks)

    def charts(self) -> dict[str, Chart]:
        """Pixels of each class by what they were taken for."""
        if self.scores is None or len(self.scores.names) > MOST_CLASSES:
            return {}
        return {"confusion": Confusion((*self.scores.names, "no class"), self.scores.counts)}
