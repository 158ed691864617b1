"""A training loop as one would write it without a framework: the baseline of accuracy_detection.py.

Shares nothing with the project: its own reading of the files, its own loop, pycocotools' scores.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

Targets = list[dict[str, Tensor]]


def read_split(root: Path, split: str, size: tuple[int, int]) -> tuple[list[int], Tensor, Targets]:
    """Picture ids, pictures (N, 3, H, W) uint8 RGB resized to ``size=(height, width)``, and what is in them."""
    truth = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    columns = {category["id"]: 1 + number for number, category in enumerate(truth["categories"])}
    ids, images, targets = [], [], []
    for entry in truth["images"]:
        picture = cv2.cvtColor(cv2.imread(str(root / split / entry["file_name"])), cv2.COLOR_BGR2RGB)
        scale = np.divide(size, picture.shape[:2])[[1, 0, 1, 0]]
        own = [annotation for annotation in truth["annotations"] if annotation["image_id"] == entry["id"]]
        boxes = np.array([annotation["bbox"] for annotation in own], dtype=np.float64)
        boxes[:, 2:] += boxes[:, :2]
        ids.append(entry["id"])
        images.append(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA))
        targets.append(
            {
                "boxes": torch.from_numpy(boxes * scale).float(),
                "labels": torch.tensor([columns[annotation["category_id"]] for annotation in own]),
            }
        )
    return ids, torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), targets


def batches(images: Tensor, targets: Targets, size: int, seed: int) -> Iterator[tuple[list[Tensor], Targets]]:
    """Shuffled batches for ever, mirrored at random both ways, an incomplete last one of an epoch left out."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(images))
        for start in range(0, len(order) - size + 1, size):
            chosen = [_flipped(images[i], targets[i], *rng.random(2) < 0.5) for i in order[start : start + size]]
            yield [image / 255 for image, _ in chosen], [target for _, target in chosen]


def train_and_score(
    root: Path, momentum: float | None, seed: int, steps: int = 200, size: tuple[int, int] = (224, 224)
) -> dict[str, float]:
    """Train torchvision's SSDLite from scratch on train2017 and judge it on val2017.

    Args:
        root: a COCO tree.
        momentum: of batch normalisation; None keeps torchvision's.
        size: (height, width) that the network sees; it is judged at the pictures' own size.

    Returns:
        AP, AP50 and, by class name, AP50; 0..1.
    """
    torch.manual_seed(seed)
    _, images, targets = read_split(root, "train2017", size)
    classes = 1 + int(max(target["labels"].max() for target in targets))
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes, nms_thresh=0.45)
    model.transform.fixed_size = size[::-1]  # its constructor knows 320x320 alone
    if momentum is not None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    model.train()
    for _, (x, y) in zip(range(steps), batches(images, targets, 8, seed), strict=False):
        loss = sum(model(x, y).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        schedule.step()
    return _score(model.eval(), root, "val2017", size)


def _flipped(image: Tensor, target: dict[str, Tensor], across: bool, down: bool) -> tuple[Tensor, dict[str, Tensor]]:
    boxes = target["boxes"]
    for axis, flip in ((0, across), (1, down)):
        if flip:
            image = image.flip(2 - axis)
            side = image.shape[2 - axis]
            boxes = boxes.clone()
            boxes[:, [axis, axis + 2]] = side - boxes[:, [axis + 2, axis]]
    return image, {**target, "boxes": boxes}


@torch.inference_mode()
def _score(model: nn.Module, root: Path, split: str, size: tuple[int, int]) -> dict[str, float]:
    ids, images, _ = read_split(root, split, size)
    results = []
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        truth = COCO(str(root / "annotations" / f"instances_{split}.json"))
        categories = truth.getCatIds()
        for number, image in zip(ids, images, strict=True):
            (found,) = model([image / 255])
            own = truth.imgs[number]
            scale = torch.tensor([own["width"] / size[1], own["height"] / size[0]]).repeat(2)
            boxes = found["boxes"] * scale
            boxes[:, 2:] -= boxes[:, :2]
            for box, score, column in zip(
                boxes.tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True
            ):
                results.append({"image_id": number, "category_id": categories[column - 1], "bbox": box, "score": score})
        judge = COCOeval(truth, truth.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    precision = judge.eval["precision"][0, :, :, 0, -1]  # at IoU .5, of all sizes, 100 detections: (recall, class)
    names = [category["name"] for category in truth.loadCats(categories)]
    by_class = {name: float(column[column > -1].mean()) for name, column in zip(names, precision.T, strict=True)}
    return {"ap": float(judge.stats[0]), "ap50": float(judge.stats[1]), "ap50_by_class": by_class}
