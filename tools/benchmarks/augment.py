"""Augmenting a Cityscapes picture (scale .5 to 2, crop 769, mirrored by half), against torchvision's reference.

    python tools/benchmarks/augment.py

All begin with the decoded picture and label of 1024x2048 and end with what their own loader hands to the model:
torchvision's a normalised float picture and an int64 label, ours uint8, which the model normalises on its device.
Between them stands what fetching the window first stands for: OpenCV resizes the whole picture, then crops. For the
same draws its outcome is compared with ours, pixel by pixel.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from rounds import interleaved, one_thread, ratio, report
from torch import Tensor

from datamodules.transforms import FILL, TrainTransform, Window, draw_window
from densevision.structures import IGNORE_INDEX

SIZE, CROP, SCALES = (1024, 2048), 769, (0.5, 2.0)
REFERENCE, WHOLE, OURS = "torchvision's reference, PIL", "cv2, whole picture resized, then cropped", "densevision"


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


def resized_then_cropped(image: np.ndarray, label: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """A training window as OpenCV makes it: (H, W, 3) and (H, W) uint8 -> the same, of the window's size."""
    resized = cv2.resize(image, window.scaled[::-1], interpolation=cv2.INTER_LINEAR)
    classes = cv2.resize(label, window.scaled[::-1], interpolation=cv2.INTER_NEAREST)
    image, label = (_cropped(whole, window, fill) for whole, fill in ((resized, FILL), (classes, IGNORE_INDEX)))
    return (cv2.flip(image, 1), cv2.flip(label, 1)) if window.flip else (image, label)


def _cropped(whole: np.ndarray, window: Window, fill: int) -> np.ndarray:
    (height, width), (rows, columns) = window.size, whole.shape[:2]
    above, before = max(0, -window.top), max(0, -window.left)
    below, after = max(0, window.top + height - rows), max(0, window.left + width - columns)
    value = [fill] * (whole.shape[2] if whole.ndim == 3 else 1)
    whole = cv2.copyMakeBorder(whole, above, below, before, after, cv2.BORDER_CONSTANT, value=value)
    top, left = window.top + above, window.left + before
    return np.ascontiguousarray(whole[top : top + height, left : left + width])


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

    def with_cv2(number: int) -> tuple[np.ndarray, np.ndarray]:
        window = draw_window(np.random.default_rng((0, 0, number)), SIZE, (CROP, CROP), SCALES, flip=0.5)
        return resized_then_cropped(image, label, window)

    def with_ours(number: int) -> tuple[np.ndarray, np.ndarray]:
        return ours(image, label, np.random.default_rng((0, 0, number)))

    def in_draws(one: Callable[[int], Any]) -> Callable[[], None]:
        numbers = itertools.count()

        def draw() -> None:
            for number in itertools.islice(numbers, options.draws):
                one(number)

        return draw

    def to_torch(pair: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(pair[0]).permute(2, 0, 1), torch.from_numpy(pair[1])

    missed = _agree(with_cv2, with_ours, options.rounds * options.draws)
    random.seed(0)
    peers = {
        REFERENCE: in_draws(lambda number: torchvisions_reference(picture, target)),
        WHOLE: in_draws(lambda number: to_torch(with_cv2(number))),
        OURS: in_draws(lambda number: to_torch(with_ours(number))),
    }
    seconds = {name: [v / options.draws for v in values] for name, values in interleaved(peers, options.rounds).items()}
    missed |= report(seconds, REFERENCE, {OURS: 8.0})
    print(f"over {WHOLE}: {ratio(seconds, WHOLE, OURS):.2f}")
    return missed


def _agree(reference: Callable[[int], Any], ours: Callable[[int], Any], draws: int) -> int:
    """Print how far the outcomes of the same draws agree; 1 if that is not enough."""
    equal, levels, near = [], [], []
    for number in range(draws):
        (image, label), (same_image, same_label) = reference(number), ours(number)
        difference = cv2.absdiff(image, same_image)
        equal.append(np.mean(label == same_label))
        levels.append(difference.mean())
        near.append(np.mean(difference <= 2))
    print(
        f"{draws} draws against {WHOLE}: labels equal in {np.mean(equal):.5%} of pixels (worst draw {min(equal):.5%}); "
        f"values differ by {np.mean(levels):.3f} grey levels (worst draw {max(levels):.3f}), "
        f"{np.mean(near):.4%} by at most 2 (worst draw {min(near):.4%})"
    )
    missed = min(equal) < 0.9999 or max(levels) > 0.25 or min(near) < 0.999
    print(f"at least 99.99 %, at most 0.25 and at least 99.9 % wanted, in every draw{': MISSED' if missed else ''}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
