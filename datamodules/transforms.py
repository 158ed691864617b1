"""From a stored picture to what the model is shown.

Geometry is ours and crops first: scale, place and mirroring are drawn, then just the window that is wanted is
fetched. It samples the points that resizing the whole picture and cropping would, so the outcome is the same (labels
exactly, pictures within a grey level) at a fraction of the work. Colour is albumentations', reseeded for every sample:
left alone it repeats itself in every worker and every epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import albumentations as A
import cv2
import numpy as np

from datamodules.stored_picture import Picture, whole
from densevision.io import resize_image, resize_label
from densevision.structures import IGNORE_INDEX

_PRECISION = 1 / 64  # of a pixel
_REACH = 128  # pixels of the scaled picture
FILL = 127  # what lies outside a picture: about 0 once the model has normalised it


@dataclass(frozen=True)
class Window:
    """Which part of a scaled and perhaps mirrored picture is wanted.

    scaled: (height, width) of the whole picture once scaled. top, left: where the window begins in it; negative
    where the window is larger than the picture. size: the window's (height, width). flip: mirror the window.
    """

    scaled: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]
    flip: bool


def draw_window(
    rng: np.random.Generator,
    picture: tuple[int, int],
    crop_size: Sequence[int] | None,
    scale_range: Sequence[float] = (1.0, 1.0),
    scale_step: float = 0.0,
    flip: float = 0.0,
) -> Window:
    """Draw a training window.

    Args:
        rng: the sample's own.
        picture: (height, width) of the picture.
        crop_size: of the window; None for the picture's own size (at scale 1 the whole picture).
        scale_range: lowest and highest scale, drawn evenly.
        scale_step: grid of the scales from the lowest on; 0 draws any number between.
        flip: probability of mirroring.
    """
    low, high = scale_range
    if scale_step > 0:
        scale = low + scale_step * int(rng.integers(int((high - low) / scale_step + 1e-6) + 1))
    else:
        scale = float(rng.uniform(low, high))
    scaled = max(1, round(picture[0] * scale)), max(1, round(picture[1] * scale))
    size = (crop_size[0], crop_size[1]) if crop_size is not None else picture
    # a window larger than the picture leaves room on one side or the other, drawn likewise
    top, left = (int(rng.integers(min(0, s - c), max(0, s - c) + 1)) for s, c in zip(scaled, size, strict=True))
    return Window(scaled, top, left, size, flip=bool(rng.random() < flip))


def warp_image(image: Picture, window: Window) -> np.ndarray:
    """Fetch a window from a picture: (H, W, 3) uint8 -> (*window.size, 3) uint8, bilinear, FILL outside.

    Equal to cv2.resize(INTER_LINEAR) of the whole picture, cropped: destination x shows source (x + .5) * ratio - .5.
    """
    inside, (top, left), (height, width) = _inside(window)
    if image.shape[:2] == window.scaled:
        fetched = image[top : top + height, left : left + width]  # what the warp would give, without the work
        return _placed((fetched[:, ::-1] if window.flip else fetched).copy(), inside, window, FILL)
    ratio_y, ratio_x = (scaled / side for scaled, side in zip(window.scaled, image.shape, strict=False))
    aligned_y, aligned_x = _aligned(top, ratio_y), _aligned(left, ratio_x)
    if aligned_y is None or aligned_x is None:
        fetched = _warped(image, (top, left), (height, width), (1 / ratio_y, 1 / ratio_x))
    else:
        (above, y), (before, x) = aligned_y, aligned_x
        # a little further than the window, for the neighbours of its last pixels
        bottom, right = y + int((above + height + 1) / ratio_y) + 3, x + int((before + width + 1) / ratio_x) + 3
        resized = cv2.resize(image[y:bottom, x:right], None, fx=ratio_x, fy=ratio_y, interpolation=cv2.INTER_LINEAR)
        fetched = resized[above : above + height, before : before + width]
    return _placed(cv2.flip(fetched, 1) if window.flip else np.ascontiguousarray(fetched), inside, window, FILL)


def _aligned(first: int, ratio: float) -> tuple[int, int] | None:
    """The nearest place up to ``first`` in a scaled side that lies between two pixels of the stored side too.

    From such a place on, resizing a part samples the points that resizing the whole side does, at a third of the work
    of a warp. Some scales (1.001) have no such place near; None then.

    Returns:
        How far before ``first`` it is, and where in the stored side.
    """
    margin = max(0, math.ceil(ratio / 2 - 0.5))  # a part's first pixels have no neighbours to look at
    steps = np.arange(min(first, margin), min(first, margin + _REACH) + 1)
    exact = (first - steps) / ratio
    near = np.flatnonzero(np.abs(exact - np.rint(exact)) <= min(_PRECISION, 0.25 / ratio))
    return (int(steps[near[0]]), int(np.rint(exact[near[0]]))) if near.size else None


def _warped(image: Picture, start: tuple[int, int], size: tuple[int, int], step: tuple[float, float]) -> np.ndarray:
    """The window of ``size`` from ``start`` on, each (y, x) of the scaled picture, ``step`` stored pixels each."""
    first_y, first_x = ((place + 0.5) * pixels - 0.5 for place, pixels in zip(start, step, strict=True))
    # the part of the source that bilinear sampling touches, so that the warp need not look at more
    y, x = max(0, int(first_y) - 1), max(0, int(first_x) - 1)
    part = image[y : int(first_y + step[0] * size[0]) + 3, x : int(first_x + step[1] * size[1]) + 3]
    return cv2.warpAffine(
        part,
        np.array([[step[1], 0, first_x - x], [0, step[0], first_y - y]]),
        (size[1], size[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,  # as resizing does at the picture's own edge
    )


def warp_label(label: Picture, window: Window) -> np.ndarray:
    """Fetch a window from a label map: (H, W) uint8 -> window.size, nearest, IGNORE_INDEX outside.

    Equal to cv2.resize(INTER_NEAREST) of the whole map, cropped: destination x shows source floor(x * ratio).
    """
    inside, (top, left), (height, width) = _inside(window)
    rows = (np.arange(top, top + height) * (label.shape[0] / window.scaled[0])).astype(np.intp)
    columns = (np.arange(left, left + width) * (label.shape[1] / window.scaled[1])).astype(np.intp)
    y, x = rows[0], columns[0]
    part = label[y : rows[-1] + 1, x : columns[-1] + 1]
    if window.flip:
        columns = columns[::-1]
    fetched = part.take(rows - y, axis=0).take(columns - x, axis=1)
    return _placed(fetched, inside, window, IGNORE_INDEX)


def _inside(window: Window) -> tuple[tuple[slice, slice], tuple[int, int], tuple[int, int]]:
    """Where the picture lies in the window: slices of the window, and top, left and size in the scaled picture."""
    top, left = max(0, window.top), max(0, window.left)
    bottom = min(window.scaled[0], window.top + window.size[0])
    right = min(window.scaled[1], window.left + window.size[1])
    x = slice(left - window.left, right - window.left)
    if window.flip:
        x = slice(window.size[1] - x.stop, window.size[1] - x.start)
    y = slice(top - window.top, bottom - window.top)
    return (y, x), (top, left), (bottom - top, right - left)


def _placed(fetched: np.ndarray, inside: tuple[slice, slice], window: Window, fill: int) -> np.ndarray:
    if fetched.shape[:2] == window.size:
        return fetched
    placed = np.full((*window.size, *fetched.shape[2:]), fill, np.uint8)
    placed[inside] = fetched
    return placed


class TrainTransform:
    """What a training picture goes through; arguments as the keys of ``data`` with the same names."""

    def __init__(
        self,
        image_size: Sequence[int] | None = None,
        crop_size: Sequence[int] | None = None,
        scale_range: Sequence[float] = (1.0, 1.0),
        scale_step: float = 0.0,
        flip: float = 0.0,
        photometric: float = 0.0,
    ) -> None:
        self.image_size, self.crop_size = image_size, crop_size
        self.scale_range, self.scale_step, self.flip = scale_range, scale_step, flip
        self.photometric = photometric
        self.colour = colour_changes() if photometric > 0 else None

    def __call__(self, picture: Picture, labels: Picture, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """picture: (H, W, 3), labels: (H, W), both uint8 -> the same, of the crop's size.

        Pictures from a store are at ``image_size`` already.
        """
        if self.image_size is not None and picture.shape[:2] != tuple(self.image_size):
            picture, labels = (
                resize_image(whole(picture), self.image_size),
                resize_label(whole(labels), self.image_size),
            )
        height, width = labels.shape
        window = draw_window(rng, (height, width), self.crop_size, self.scale_range, self.scale_step, self.flip)
        image, label = warp_image(picture, window), warp_label(labels, window)
        if self.colour is not None and rng.random() < self.photometric:
            self.colour.set_random_seed(int(rng.integers(2**32)))
            inside, _, _ = _inside(window)  # what lies outside must stay FILL
            image[inside] = self.colour(image=np.ascontiguousarray(image[inside]))["image"]
        return image, label


class EvalTransform:
    """What a picture goes through in evaluation: at ``image_size``, or its own; the label keeps its resolution."""

    def __init__(self, image_size: Sequence[int] | None = None) -> None:
        self.image_size = image_size

    def __call__(self, image: np.ndarray, label: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """image: (H, W, 3), label: (h, w) or None, both uint8 -> the same, the picture resized."""
        return (image if self.image_size is None else resize_image(image, self.image_size)), label


def colour_changes() -> A.Compose:
    """Brightness, contrast, saturation and hue, each a little, in random order."""
    return A.Compose(
        [A.ColorJitter(brightness=(0.7, 1.3), contrast=(0.7, 1.3), saturation=(0.7, 1.3), hue=(-0.03, 0.03), p=1.0)],
        strict=True,  # an argument that the installed version does not know is an error, not a warning
    )
