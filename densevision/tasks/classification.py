"""Training and judging a classifier."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from densevision.classification import Classifier
from densevision.config.schema import Config
from densevision.errors import UserError
from densevision.metrics.classification import TopAccuracy
from densevision.metrics.segmentation import ConfusionMatrix
from densevision.structures import ClassificationBatch, ClassificationSample, LabelMap
from densevision.tasks.base import BaseTask
from densevision.training.exhibits import MOST_CLASSES, Chart, Confusion, ShownPicture
from densevision.visualize import class_bars

_DRAWN_CLASSES = 4


class ClassificationTask(BaseTask):
    """A :class:`Classifier` with cross-entropy, judged by its top-1 accuracy."""

    monitor = "top1"
    model: Classifier

    def __init__(self, model: Classifier, label_map: LabelMap, config: Config) -> None:
        loss = nn.CrossEntropyLoss(label_smoothing=config.loss.label_smoothing, reduction="sum")
        super().__init__(model, loss, label_map, config)
        self.accuracy = TopAccuracy()
        self.confusion: ConfusionMatrix | None = None
        self.confused: np.ndarray | None = None  # (K, K) pictures of the latest evaluation, truth by prediction

    def batch_loss(self, batch: ClassificationBatch) -> tuple[Tensor, Tensor]:
        images, targets = batch["images"], batch["labels"]
        settings = self.config.loss
        if settings.mixup or settings.cutmix:
            images, targets = mix(images, targets, self.label_map.num_classes, settings.mixup, settings.cutmix)
        logits = self.model(images)
        targets = targets.to(logits.dtype) if targets.is_floating_point() else targets
        total = self.loss(logits, targets)
        return total, torch.full_like(total, len(logits))

    def keep_predictions(self, where: Path) -> None:
        raise UserError("there is no customary file for the predictions of a classifier, and none is written")

    def on_validation_epoch_start(self) -> None:
        self.accuracy = TopAccuracy()
        self.confusion = ConfusionMatrix(self.label_map.names) if self.label_map.num_classes <= MOST_CLASSES else None

    def validation_step(self, batch: ClassificationBatch | None, batch_idx: int) -> None:
        if batch is None:  # of more processes than pictures
            return
        logits, labels = self.model(batch["images"]), batch["labels"]
        self.accuracy.update(logits, labels)
        if self.confusion is not None:
            self.confusion.update(logits.argmax(1).to(torch.uint8), labels.to(torch.uint8))

    def on_validation_epoch_end(self) -> None:
        if self.confusion is not None:
            self.confused = self.confusion.compute().counts[:, :-1]
        self.evaluation = self.accuracy.compute()
        self.report = dict(self.evaluation)

    def show_prediction(self, sample: ClassificationSample) -> ShownPicture:
        """The sample's picture above its surest classes and the truth."""
        image = sample["image"]
        probabilities = self.model(image[None].to(self.device))[0].float().softmax(0)
        shown = probabilities.argsort(descending=True)[:_DRAWN_CLASSES].tolist()
        if sample["label"] not in shown:
            shown[-1] = sample["label"]
        names = [self.label_map.names[k] + " (true)" * (k == sample["label"]) for k in shown]
        picture = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        drawing = class_bars(picture, names, probabilities[shown].tolist())
        return ShownPicture(sample["name"], {"picture": picture, "prediction": drawing}, drawing)

    def charts(self) -> dict[str, Chart]:
        """Pictures of each class by what they were taken for."""
        return {} if self.confused is None else {"confusion": Confusion(self.label_map.names, self.confused)}


def mix(images: Tensor, labels: Tensor, num_classes: int, mixup: float, cutmix: float) -> tuple[Tensor, Tensor]:
    """Blend each picture of a batch with another one of it, and their labels with the same share.

    mixup (Zhang et al., 2018) adds whole pictures; cutmix (Yun et al., 2019) pastes a window. All chance is torch's
    CPU generator's, which the task seeds anew for every step.

    Args:
        images: (B, 3, H, W) uint8. labels: (B,) int64.
        mixup, cutmix: alpha of the Beta distribution that the share is drawn from, 0 for never; with both, either is
            drawn with equal chance.

    Returns:
        pictures of the same shape, uint8 after cutmix and float32 in 0..255 after mixup; (B, K) float32 shares.
    """
    cuts = bool(cutmix) and (not mixup or bool(torch.rand(()) < 0.5))
    alpha = cutmix if cuts else mixup
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(images)).to(images.device)
    others = images[order]
    if cuts:
        height, width = images.shape[-2:]
        h, w = (round(side * math.sqrt(1 - share)) for side in (height, width))
        y, x = (int(torch.randint(side, ())) for side in (height, width))
        top, bottom = max(0, y - h // 2), min(height, y - h // 2 + h)
        left, right = max(0, x - w // 2), min(width, x - w // 2 + w)
        images = images.clone()
        images[..., top:bottom, left:right] = others[..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        images = share * images.float() + (1 - share) * others.float()
    targets = one_hot(labels, num_classes).float()
    return images, share * targets + (1 - share) * targets[order]
