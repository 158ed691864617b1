"""The SSD paper's colour distortion, with the distribution of torchvision's ``RandomPhotometricDistort``."""

from __future__ import annotations

import cv2
import numpy as np

from datamodules.stored_picture import Picture

_THUMBNAIL = 64  # pixels a side
_GREY = np.array([0.299, 0.587, 0.114])


def distort(visible: np.ndarray, picture: Picture, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast, saturation and hue and swap channels, each with probability .5.

    Source: torchvision 0.29, ``transforms/v2/_color.py``: brightness .875 to 1.125, contrast and saturation .5 to 1.5,
    hue within .05 of the circle either way, contrast before saturation and hue or after them.

    Args:
        visible: (h, w, 3) uint8 RGB, what becomes of it.
        picture: (H, W, 3) uint8 RGB, the whole picture that it is a part of: contrast is changed about its mean grey.
        rng: the sample's own.
    """
    brightness, contrast, saturation, hue = (
        rng.uniform(low, high) if rng.random() < 0.5 else None
        for low, high in ((0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05))
    )
    contrast_first = rng.random() < 0.5
    channels = rng.permutation(3) if rng.random() < 0.5 else None
    # the mean grey is that of the whole picture after the changes so far: a thumbnail goes along
    thumbnail = None
    if contrast is not None:
        step_y, step_x = (max(1, side // _THUMBNAIL) for side in picture.shape[:2])
        thumbnail = np.ascontiguousarray(picture[::step_y, ::step_x])

    def apply(image: np.ndarray, mean: float | None) -> np.ndarray:
        """All changes but the last; without ``mean``, those up to the contrast."""
        table = None if brightness is None else _ramp(brightness, 0.0)
        if contrast is not None and contrast_first and mean is not None:
            ramp = _ramp(contrast, (1 - contrast) * mean)
            table = ramp if table is None else ramp[table]
        if table is not None:
            image = cv2.LUT(image, table)
        if contrast is not None and contrast_first and mean is None:
            return image
        if saturation is not None:
            image = cv2.transform(image, saturation * np.eye(3) + (1 - saturation) * _GREY)
        if hue is not None:
            image = _turned(image, hue)
        if contrast is not None and not contrast_first and mean is not None:
            image = cv2.LUT(image, _ramp(contrast, (1 - contrast) * mean))
        return image

    mean = None if thumbnail is None else float(cv2.cvtColor(apply(thumbnail, None), cv2.COLOR_RGB2GRAY).mean())
    image = apply(visible, mean)
    return image if channels is None else cv2.transform(image, np.eye(3)[channels])  # quicker than indexing


def _ramp(factor: float, shift: float) -> np.ndarray:
    """(256,) uint8: value * factor + shift."""
    return np.clip(np.arange(256) * factor + shift, 0, 255).astype(np.uint8)


def _turned(image: np.ndarray, hue: float) -> np.ndarray:
    """Hue moved by a share of the circle."""
    turned = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    turned[..., 0] += np.uint8(round(hue * 256) % 256)  # the circle is 256 long: it closes by itself
    return cv2.cvtColor(turned, cv2.COLOR_HSV2RGB_FULL)
