"""Training pipelines as other projects have them, file to tensors: what data.py is compared with.

Each is a data set whose samples a DataLoader can collate, with the augmentations of its project's recipe.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
import torchvision.transforms.v2 as T
from PIL import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SSD_FILL = (123.0, 117.0, 104.0)


class Files(Dataset):
    """Pictures with label maps, or with (boxes, labels); ``size`` is the crop's side, or the detector's."""

    def __init__(self, pictures: Sequence[str], truths: Sequence[Any], size: int) -> None:
        self.pictures, self.truths, self.size = pictures, truths, size

    def __len__(self) -> int:
        return len(self.pictures)


class TorchvisionSegmentation(Files):
    """torchvision, references/segmentation: presets.py and transforms.py, backend PIL."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, target = Image.open(self.pictures[index]).convert("RGB"), Image.open(self.truths[index])
        side = random.randint(image.height // 2, image.height * 2)
        image = F.resize(image, side, antialias=True)
        target = F.resize(target, side, interpolation=F.InterpolationMode.NEAREST)
        if random.random() < 0.5:
            image, target = F.hflip(image), F.hflip(target)
        padding = [0, 0, max(0, self.size - image.width), max(0, self.size - image.height)]
        if any(padding):
            image, target = F.pad(image, padding, fill=0), F.pad(target, padding, fill=255)
        place = T.RandomCrop(self.size).make_params([image])
        top, left = place["top"], place["left"]
        image, target = (F.crop(each, top, left, self.size, self.size) for each in (image, target))
        pixels = F.normalize(F.convert_image_dtype(F.pil_to_tensor(image), torch.float), MEAN, STD)
        return pixels, torch.as_tensor(np.array(target), dtype=torch.int64)


class AlbumentationsSegmentation(Files):
    """What albumentations' documentation puts together for this recipe."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        size = {"height": self.size, "width": self.size}
        self.transform = A.Compose(
            [
                A.RandomScale((-0.5, 1.0), p=1.0),
                A.PadIfNeeded(min_height=self.size, min_width=self.size, fill=0, fill_mask=255),
                A.RandomCrop(**size),
                A.HorizontalFlip(p=0.5),
                A.Normalize(MEAN, STD),
                A.ToTensorV2(),
            ]
        )

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = cv2.cvtColor(cv2.imread(self.pictures[index]), cv2.COLOR_BGR2RGB)
        done = self.transform(image=image, mask=cv2.imread(self.truths[index], cv2.IMREAD_GRAYSCALE))
        return done["image"], done["mask"].long()


class MMSegmentation(Files):
    """mmsegmentation's: RandomResize, RandomCrop with cat_max_ratio .75, RandomFlip, all on OpenCV; uint8 out."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = cv2.imread(self.pictures[index], cv2.IMREAD_COLOR)
        label = cv2.imread(self.truths[index], cv2.IMREAD_UNCHANGED)
        scale = np.random.uniform(0.5, 2.0)
        size = round(image.shape[1] * scale), round(image.shape[0] * scale)
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        for _ in range(10):
            top = np.random.randint(0, max(image.shape[0] - self.size, 0) + 1)
            left = np.random.randint(0, max(image.shape[1] - self.size, 0) + 1)
            crop = label[top : top + self.size, left : left + self.size]
            classes, counts = np.unique(crop, return_counts=True)
            counts = counts[classes != 255]
            if len(counts) > 1 and counts.max() / counts.sum() < 0.75:
                break
        image, label = image[top : top + self.size, left : left + self.size], crop
        if np.random.random() < 0.5:
            image, label = cv2.flip(image, 1), cv2.flip(label, 1)
        below, right = self.size - image.shape[0], self.size - image.shape[1]
        if below > 0 or right > 0:
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))
            label = cv2.copyMakeBorder(label, 0, below, 0, right, cv2.BORDER_CONSTANT, value=255)
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1))
        return torch.from_numpy(pixels), torch.from_numpy(label.astype(np.int64))


class TorchvisionSSD(Files):
    """torchvision, references/detection: the preset ``ssd`` on transforms.v2, backend PIL, and the model's resize."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.transform = T.Compose(
            [
                T.RandomPhotometricDistort(),
                T.RandomZoomOut(fill=defaultdict(lambda: SSD_FILL, {tv_tensors.Mask: 0})),
                T.RandomIoUCrop(),
                T.RandomHorizontalFlip(0.5),
                T.PILToTensor(),
                T.ToDtype(torch.float, scale=True),
                T.ConvertBoundingBoxFormat(tv_tensors.BoundingBoxFormat.XYXY),
                T.SanitizeBoundingBoxes(),
                T.ToPureTensor(),
            ]
        )

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        image = Image.open(self.pictures[index]).convert("RGB")
        boxes, labels = self.truths[index]
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(image.height, image.width)),
            "labels": torch.as_tensor(labels),
        }
        pixels, target = self.transform(image, target)
        pixels = (pixels - torch.tensor([0.5] * 3)[:, None, None]) / torch.tensor([0.5] * 3)[:, None, None]
        pixels = torch.nn.functional.interpolate(pixels[None], (self.size, self.size), mode="bilinear")[0]
        return pixels, target["boxes"], target["labels"]


class AlbumentationsSSD(Files):
    """As near as albumentations comes: its crops are of another kind, and it zooms out by padding each side."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.transform = A.Compose(
            [
                A.CropAndPad(percent=(0.0, 1.5), keep_size=False, fill=SSD_FILL, p=0.5),  # to 4 times the sides at most
                A.RandomSizedBBoxSafeCrop(self.size, self.size, p=1.0),
                A.ColorJitter((0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05), p=1.0),
                A.ChannelShuffle(p=0.5),
                A.HorizontalFlip(p=0.5),
                A.Normalize(MEAN, STD),
                A.ToTensorV2(),
            ],
            bbox_params=A.BboxParams("pascal_voc", label_fields=["labels"], clip=True, filter_invalid_bboxes=True),
        )

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        image = cv2.cvtColor(cv2.imread(self.pictures[index]), cv2.COLOR_BGR2RGB)
        boxes, labels = self.truths[index]
        done = self.transform(image=image, bboxes=np.array(boxes, np.float32), labels=np.array(labels))
        return done["image"], torch.as_tensor(done["bboxes"]), torch.as_tensor(done["labels"])


def collate_boxes(samples: Sequence[tuple[torch.Tensor, ...]]) -> dict[str, Any]:
    """Stack the pictures, list the rest."""
    images, boxes, labels = zip(*samples, strict=True)
    return {"images": torch.stack(images), "boxes": list(boxes), "labels": list(labels)}
