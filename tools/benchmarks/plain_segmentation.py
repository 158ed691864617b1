"""A training loop as one would write it without a framework: the baseline of accuracy_segmentation.py.

Shares nothing with the project: its own reading of the files, its own loop, its own score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

CLASS_IDS = (7, 8, 11, 13, 17, 20, 21, 23, 24, 25, 26)  # the labelIds that occur in CamVid
IGNORED = 255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's


def read_split(root: Path, split: str, cities: Sequence[str] | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pictures (H, W, 3) uint8 RGB and their labels (H, W) uint8, 0..10 and 255, sorted by name."""
    table = np.full(256, IGNORED, np.uint8)
    table[list(CLASS_IDS)] = np.arange(len(CLASS_IDS))
    files = sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
    files = [file for file in files if cities is None or file.parent.name in cities]
    images = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
    labels = []
    for file in files:
        stem = file.name.removesuffix("_leftImg8bit.png")
        label = root / "gtFine" / split / file.parent.name / f"{stem}_gtFine_labelIds.png"
        labels.append(table[cv2.imread(str(label), cv2.IMREAD_GRAYSCALE)])
    return images, labels


def class_weights(labels: Sequence[np.ndarray], cap: float = 4.0) -> Tensor:
    """1 / sqrt(frequency), scaled to mean 1, at most ``cap``."""
    counts = sum(np.bincount(label.ravel(), minlength=256)[: len(CLASS_IDS)] for label in labels)
    weights = 1 / np.sqrt(counts / counts.sum())
    return torch.tensor(np.minimum(weights / weights.mean(), cap), dtype=torch.float32)


def batches(images: np.ndarray, labels: np.ndarray, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches for ever, mirrored at random, an incomplete last one of an epoch left out."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(images))
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            x, y = torch.from_numpy(images[chosen]), torch.from_numpy(labels[chosen])
            mirrored = torch.from_numpy(rng.random(size) < 0.5)
            x = torch.where(mirrored[:, None, None, None], x.flip(2), x)
            y = torch.where(mirrored[:, None, None], y.flip(2), y)
            yield normalised(x), y.long()


def normalised(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float."""
    x = images.permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def train_and_score(
    root: Path,
    train: tuple[str, Sequence[str] | None],
    test: tuple[str, Sequence[str] | None],
    momentum: float | None,
    seed: int,
    steps: int = 200,
    size: tuple[int, int] = (176, 240),
) -> list[float]:
    """Train torchvision's LR-ASPP from scratch and judge it.

    Args:
        root: a Cityscapes tree.
        train, test: split and its cities, None for all.
        momentum: of batch normalisation; None keeps torchvision's.
        size: (height, width) that the network sees; it is judged at the size of the labels.

    Returns:
        the IoU of each of the 11 classes, 0..1.
    """
    torch.manual_seed(seed)
    images, labels = read_split(root, *train)
    weights = class_weights(labels)
    small = np.stack([cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA) for image in images])
    targets = np.stack([cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST) for label in labels])
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(CLASS_IDS))
    if momentum is not None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    model.train()
    for _, (x, y) in zip(range(steps), batches(small, targets, 8, seed), strict=False):
        loss = F.cross_entropy(model(x)["out"], y, weight=weights, ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return _score(model.eval(), *read_split(root, *test), size)


@torch.inference_mode()
def _score(
    model: nn.Module, images: Sequence[np.ndarray], labels: Sequence[np.ndarray], size: tuple[int, int]
) -> list[float]:
    k = len(CLASS_IDS)
    counts = np.zeros((k, k), np.int64)
    for image, label in zip(images, labels, strict=True):
        x = normalised(torch.from_numpy(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA))[None])
        logits = F.interpolate(model(x)["out"], size=label.shape, mode="bilinear", align_corners=False)
        predicted = logits.argmax(1)[0].numpy()
        valid = label != IGNORED
        counts += np.bincount(label[valid].astype(int) * k + predicted[valid], minlength=k * k).reshape(k, k)
    hits = counts.diagonal()
    return [float(iou) for iou in hits / (counts.sum(0) + counts.sum(1) - hits)]
