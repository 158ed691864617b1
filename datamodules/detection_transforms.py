"""From a stored picture with boxes to what a detector is shown.

Crops, zooms and flips are drawn first, as one window of integer pixels; then only what is visible of the picture in
that window is resized, once, to where it belongs. Boxes follow the very same mapping. Every picture ends at one size,
its aspect not kept, in training as in evaluation.

Boxes are (N, 4) float32 xyxy pixels, labels (N,) int64, pictures (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from datamodules.photometric import distort
from datamodules.stored_picture import Picture
from datamodules.transforms import colour_changes
from densevision.io import resize_image

SSD_FILL = (123, 117, 104)  # what torchvision's references zoom out into
_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # both crops choose one of these evenly


@dataclass(frozen=True)
class Crop:
    """A window and the boxes that it keeps.

    left, top, right, bottom: whole pixels of the picture; beyond the picture where it is zoomed out. keep: (N,) bool.
    """

    left: int
    top: int
    right: int
    bottom: int
    keep: np.ndarray

    @classmethod
    def whole(cls, size: tuple[int, int], boxes: np.ndarray) -> Crop:
        """All of a picture of ``size=(height, width)``."""
        return cls(0, 0, size[1], size[0], np.ones(len(boxes), bool))

    @classmethod
    def of(cls, window: np.ndarray, keep: np.ndarray) -> Crop:
        """A (4,) window of whole numbers."""
        left, top, right, bottom = (int(side) for side in window)
        return cls(left, top, right, bottom, keep)


def no_crop(rng: np.random.Generator, size: tuple[int, int], boxes: np.ndarray) -> Crop:
    """The whole picture."""
    return Crop.whole(size, boxes)


def ssd_crop(rng: np.random.Generator, size: tuple[int, int], boxes: np.ndarray) -> Crop:
    """TensorFlow's ``ssd_random_crop``, the published SSDLite's.

    One of seven degrees c is chosen; with probability .15 the picture is left whole, else the first of 100 windows
    (aspect .5 to 2, at least a tenth of the picture) that covers at least c of some box. Boxes of which less than c
    is left are dropped: the window may end without any.

    Source: object_detection/core/preprocessor.py, ``ssd_random_crop`` and ``_strict_random_crop_image``;
    tensorflow/core/kernels/image/sample_distorted_bounding_box_op.cc.
    """
    degree = _OVERLAPS[int(rng.integers(len(_OVERLAPS)))]
    if rng.random() <= 0.15:
        return Crop.whole(size, boxes)
    windows = _distorted_windows(rng, size)
    height, width = size
    objects = np.trunc(np.clip(boxes, 0, [width, height, width, height]))
    if not len(boxes):
        objects = np.array([[0.0, 0.0, width, height]])
    objects = objects[_area(objects) >= 1]
    covering = (_intersection(windows, objects) >= degree * _area(objects)).any(axis=1)
    if not covering.any():
        return Crop.whole(size, boxes)
    window = windows[covering.argmax()]
    inside = _intersection(window[None], boxes)[0]
    # a box that lies wholly inside has 1 of it inside, also after rounding
    keep = (inside > 0) & (inside >= (degree - 1e-6) * _area(boxes))
    return Crop.of(window, keep)


def _distorted_windows(rng: np.random.Generator, size: tuple[int, int], attempts: int = 100) -> np.ndarray:
    """(M, 4) windows of TensorFlow's ``GenerateRandomCrop``, those of ``attempts`` that succeed, in their order."""
    height, width = size
    least, most = 0.1 * width * height, float(width * height)
    aspect = rng.uniform(0.5, 2.0, attempts)
    lowest = np.rint(np.sqrt(least / aspect))
    highest = np.rint(np.sqrt(most / aspect))
    highest = np.where(np.rint(highest * aspect) > width, np.floor((width + 0.5 - 1e-7) / aspect), highest)
    highest -= np.rint(highest * aspect) > width
    highest = np.minimum(highest, height)
    lowest = np.minimum(lowest, highest)
    tall = lowest + np.floor(rng.random(attempts) * (highest - lowest + 1))
    tall += tall * np.rint(tall * aspect) < least
    tall -= tall * np.rint(tall * aspect) > most
    wide = np.rint(tall * aspect)
    fits = (tall * wide >= least) & (tall * wide <= most) & (wide <= width) & (tall <= height) & (wide > 0) & (tall > 0)
    # as there, a window never touches the far edge unless it reaches over the whole picture
    top, left = np.floor(rng.random(attempts) * (height - tall)), np.floor(rng.random(attempts) * (width - wide))
    return np.stack([left, top, left + wide, top + tall], axis=1)[fits]


def iou_crop(rng: np.random.Generator, size: tuple[int, int], boxes: np.ndarray) -> Crop:
    """torchvision's ``RandomIoUCrop``, the SSD paper's.

    One of seven degrees c is chosen, of which 1 leaves the picture whole; else the first of 40 windows (sides .3 to 1
    of the picture's, aspect .5 to 2) that holds the centre of a box with IoU c or more. Boxes whose centre is outside
    are dropped. If none of the 40 will do, another degree is chosen; the 40 are judged at once.

    Source: torchvision 0.29, ``transforms/v2/_geometry.py``.
    """
    height, width = size
    while (degree := _OVERLAPS[int(rng.integers(len(_OVERLAPS)))]) < 1:
        shares = rng.random((40, 4))
        wide, tall = np.floor(width * (0.3 + 0.7 * shares[:, 0])), np.floor(height * (0.3 + 0.7 * shares[:, 1]))
        left, top = np.floor((width - wide) * shares[:, 2]), np.floor((height - tall) * shares[:, 3])
        windows = np.stack([left, top, left + wide, top + tall], axis=1)
        windows = windows[(wide > 0) & (tall > 0) & (wide >= 0.5 * tall) & (wide <= 2 * tall)]
        centred = _centred(windows, boxes)
        overlap = _intersection(windows, boxes)
        iou = overlap / (_area(windows)[:, None] + _area(boxes) - overlap)
        accepted = (centred & (iou >= degree)).any(axis=1)
        if accepted.any():
            first = accepted.argmax()
            return Crop.of(windows[first], centred[first])
    return Crop.whole(size, boxes)


def zoom_out(rng: np.random.Generator, size: tuple[int, int], probability: float = 0.5) -> tuple[int, int, int, int]:
    """torchvision's ``RandomZoomOut``: height and width of a canvas 1 to 4 times as large, left and top of the
    picture on it.
    """
    height, width = size
    if rng.random() >= probability:
        return height, width, 0, 0
    ratio, x, y = rng.random(3)
    tall, wide = int(height * (1 + 3 * ratio)), int(width * (1 + 3 * ratio))
    return tall, wide, int((wide - width) * x), int((tall - height) * y)


def zoomed_iou_crop(rng: np.random.Generator, size: tuple[int, int], boxes: np.ndarray) -> Crop:
    """:func:`zoom_out` and then :func:`iou_crop`; the canvas is never built."""
    tall, wide, left, top = zoom_out(rng, size)
    crop = iou_crop(rng, (tall, wide), boxes + np.array([left, top] * 2))
    return Crop(crop.left - left, crop.top - top, crop.right - left, crop.bottom - top, crop.keep)


CROPS: dict[str, Callable[[np.random.Generator, tuple[int, int], np.ndarray], Crop]] = {
    "none": no_crop,
    "ssd_crop": ssd_crop,
    "ssdlite": iou_crop,
    "ssd": zoomed_iou_crop,
}


class DetectionTrainTransform:
    """What a training picture goes through.

    Args:
        image_size: (height, width) of every picture afterwards.
        augment: a key of CROPS; "ssd" distorts colours too, as torchvision's preset of that name.
        flip, vertical_flip: probabilities of mirroring.
        photometric: probability of the milder colour changes that segmentation has.
    """

    def __init__(
        self,
        image_size: Sequence[int],
        augment: str = "none",
        flip: float = 0.0,
        vertical_flip: float = 0.0,
        photometric: float = 0.0,
    ) -> None:
        self.image_size = (image_size[0], image_size[1])
        self.augment, self.flip, self.vertical_flip = augment, flip, vertical_flip
        self.photometric = photometric
        self.colour = colour_changes() if photometric > 0 else None

    def __call__(
        self, image: Picture, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Picture, boxes in it and their labels -> the same of the augmented picture."""
        height, width = image.shape[:2]
        crop = CROPS[self.augment](rng, (height, width), boxes)
        # without crops a training picture is what evaluation shows; what is drawn at random may be resized quickly
        resize = resize_image if self.augment == "none" else resize_quickly
        visible, place, mapping = _visible(image, crop, self.image_size, resize)
        if self.augment == "ssd":
            visible = distort(visible, image, rng)
        if self.colour is not None and rng.random() < self.photometric:
            self.colour.set_random_seed(int(rng.integers(2**32)))
            visible = self.colour(image=visible)["image"]
        picture = visible if visible.shape[:2] == self.image_size else _placed(visible, place, self.image_size)
        boxes, labels = _mapped(boxes[crop.keep], labels[crop.keep], mapping, place)
        if rng.random() < self.flip:
            picture, boxes = cv2.flip(picture, 1), _mirrored(boxes, 0, self.image_size[1])
        if rng.random() < self.vertical_flip:
            picture, boxes = cv2.flip(picture, 0), _mirrored(boxes, 1, self.image_size[0])
        return np.ascontiguousarray(picture), boxes, labels


class DetectionEvalTransform:
    """What a picture goes through in evaluation: resized to ``image_size``, boxes with it."""

    def __init__(self, image_size: Sequence[int]) -> None:
        self.image_size = (image_size[0], image_size[1])

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Picture and boxes in it -> the same at ``image_size``."""
        ratio = np.divide(self.image_size, image.shape[:2]).astype(np.float32)[[1, 0, 1, 0]]
        return resize_image(image, self.image_size), boxes * ratio


def _visible(
    image: Picture, crop: Crop, size: tuple[int, int], resize: Callable[..., np.ndarray]
) -> tuple[np.ndarray, tuple[int, int, int, int], tuple[np.ndarray, np.ndarray]]:
    """The part of the picture that the crop shows, resized; its xyxy place in the result; and the mapping of boxes.

    The mapping is (scale, shift), (4,) float64 each: what is at x in the picture is at x * scale + shift.
    """
    left, top = max(0, crop.left), max(0, crop.top)
    right, bottom = min(image.shape[1], crop.right), min(image.shape[0], crop.bottom)
    ratio_y, ratio_x = size[0] / (crop.bottom - crop.top), size[1] / (crop.right - crop.left)
    # whole pixels, and at least one: boxes follow the rounded place, so that they still fit what is seen
    x1, y1 = round((left - crop.left) * ratio_x), round((top - crop.top) * ratio_y)
    x2, y2 = round((right - crop.left) * ratio_x), round((bottom - crop.top) * ratio_y)
    x1, y1 = min(x1, size[1] - 1), min(y1, size[0] - 1)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    visible = resize(image[top:bottom, left:right], (y2 - y1, x2 - x1))
    visible = np.require(visible, requirements="W")  # what a store shows cannot be written to
    scale = np.array([(x2 - x1) / (right - left), (y2 - y1) / (bottom - top)] * 2)
    return visible, (x1, y1, x2, y2), (scale, np.array([x1, y1] * 2) - np.array([left, top] * 2) * scale)


def resize_quickly(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) to (height, width): halved while a side is more than twice as long, then bilinear.

    Within a grey level or so of resizing by area, as evaluation does, in a quarter of the time.
    """
    while (shape := image.shape[:2]) != size:
        sides = [side // 2 if side > 2 * wanted else wanted for side, wanted in zip(shape, size, strict=True)]
        image = cv2.resize(image, sides[::-1], interpolation=cv2.INTER_LINEAR)
    return image


def _placed(visible: np.ndarray, place: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    x1, y1, x2, y2 = place
    placed = _empty_canvas(size).copy()
    placed[y1:y2, x1:x2] = visible
    return placed


@lru_cache(maxsize=1)
def _empty_canvas(size: tuple[int, int]) -> np.ndarray:
    """(*size, 3) uint8 of SSD_FILL; filling it costs more than all boxes do."""
    return np.full((*size, 3), SSD_FILL, np.uint8)


def _mapped(
    boxes: np.ndarray, labels: np.ndarray, mapping: tuple[np.ndarray, np.ndarray], place: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes where the picture went, clipped to it; those of which nothing is seen go, with their labels."""
    x1, y1, x2, y2 = place
    moved = np.clip(boxes * mapping[0] + mapping[1], [x1, y1, x1, y1], [x2, y2, x2, y2]).astype(np.float32)
    seen = (moved[:, 2:] > moved[:, :2]).all(axis=1)
    return moved[seen], labels[seen]


def _mirrored(boxes: np.ndarray, axis: int, side: int) -> np.ndarray:
    mirrored = boxes.copy()
    mirrored[:, [axis, axis + 2]] = side - boxes[:, [axis + 2, axis]]
    return mirrored


def _centred(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M, N) bool: the centre of the box lies inside the window."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    left, top, right, bottom = windows.T[..., None]
    return (left < x) & (x < right) & (top < y) & (y < bottom)


def _intersection(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M, N) pixels that windows and boxes share."""
    sides = np.minimum(windows[:, None, 2:], boxes[:, 2:]) - np.maximum(windows[:, None, :2], boxes[:, :2])
    return np.maximum(sides, 0).prod(axis=2)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
