"""Augmenting a Cityscapes picture (scale .5 to 2, crop 769, mirrored by half), against torchvision's reference.

    python tools/benchmarks/augment.py

Both begin with the decoded picture and label of 1024x2048 and end with what their own loader hands to the model:
theirs a normalised float picture and an int64 label, ours uint8, which the model normalises on its device.
"""

from __future__ import annotations

import argparse
import random
import sys

import cv2
import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from rounds import interleaved, one_thread, report
from torch import Tensor

from datamodules.transforms import TrainTransform

SIZE, CROP, SCALES = (1024, 2048), 769, (0.5, 2.0)


def torchvisions_reference(image: Image.Image, target: Image.Image) -> tuple[Tensor, Tensor]:
    """``references/segmentation/{presets,transforms}.py`` of torchvision with the PIL backend, retyped."""
    size = random.randint(int(SCALES[0] * SIZE[0]), int(SCALES[1] * SIZE[0]))  # RandomResize, of the shorter side
    image = TF.resize(image, size, antialias=True)
    target = TF.resize(target, size, interpolation=TF.InterpolationMode.NEAREST)
    if random.random() < 0.5:  # RandomHorizontalFlip
        image, target = TF.hflip(image), TF.hflip(target)
    image, target = _pad_if_smaller(image, 0), _pad_if_smaller(target, 255)
    top = random.randint(0, image.size[1] - CROP)  # RandomCrop
    left = random.randint(0, image.size[0] - CROP)
    image, target = TF.crop(image, top, left, CROP, CROP), TF.crop(target, top, left, CROP, CROP)
    tensor = TF.convert_image_dtype(TF.pil_to_tensor(image), torch.float)  # PILToTensor, ToDtype
    label = torch.as_tensor(np.array(target), dtype=torch.int64)
    return TF.normalize(tensor, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)), label


def _pad_if_smaller(image: Image.Image, fill: int) -> Image.Image:
    width, height = image.size
    if min(width, height) >= CROP:
        return image
    return TF.pad(image, [0, 0, max(0, CROP - width), max(0, CROP - height)], fill=fill)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--draws", type=int, default=12, help="samples a round; time grows with the scale drawn")
    options = parser.parse_args()
    one_thread()
    rng = np.random.default_rng(0)
    blocks = cv2.resize(rng.integers(0, 256, (64, 128, 3), np.uint8), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    image = cv2.add(blocks, rng.integers(0, 20, (*SIZE, 3), np.uint8))
    label = cv2.resize(rng.integers(0, 19, (64, 128), np.uint8), SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    picture, target = Image.fromarray(image), Image.fromarray(label)
    ours = TrainTransform(None, (CROP, CROP), SCALES, flip=0.5)
    numbers = iter(range(10**9))

    def theirs_draws() -> None:
        for _ in range(options.draws):
            torchvisions_reference(picture, target)

    def our_draws() -> None:
        for _ in range(options.draws):
            window, classes = ours(image, label, np.random.default_rng((0, 0, next(numbers))))
            torch.from_numpy(window).permute(2, 0, 1), torch.from_numpy(classes)

    random.seed(0)
    seconds = interleaved({"torchvision's reference, PIL": theirs_draws, "densevision": our_draws}, options.rounds)
    seconds = {name: [value / options.draws for value in values] for name, values in seconds.items()}
    return report(seconds, "torchvision's reference, PIL", {"densevision": 8.0})


if __name__ == "__main__":
    sys.exit(main())
