"""Class maps as papers evaluate: from the whole picture or a sliding window, at several scales, mirrored too."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from densevision.config.schema import EvaluationConfig
from densevision.errors import UserError
from densevision.segmentation.postprocess import class_map

_STRIP = 2**23  # probabilities that are held at a time: 32 MiB


@dataclass(frozen=True)
class Views:
    """How a picture is looked at.

    window: (height, width) of a sliding window over the scaled picture, cut to it; None sees it whole. stride:
    between windows; the last of a row or column ends with the picture. scales: of the picture. flip: mirrored
    too. exact: of :func:`densevision.segmentation.postprocess.class_map`, where there is one view of the whole.
    """

    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    exact: bool = True


def views_from_config(evaluation: EvaluationConfig, crop_size: Sequence[int] | None) -> Views:
    """The views that the section ``evaluation`` asks for.

    Raises:
        UserError: a sliding window without a size, a stride that leaves gaps, or scales that are none.
    """
    scales = tuple(float(scale) for scale in evaluation.scales)
    if not scales or min(scales) <= 0:
        raise UserError(f"expected positive numbers, got {list(scales)}", key="evaluation.scales")
    if evaluation.mode == "whole":
        return Views(scales=scales, flip=evaluation.flip, exact=evaluation.exact)
    window = evaluation.window or crop_size
    if window is None:
        raise UserError("a sliding window needs evaluation.window or data.crop_size", key="evaluation.window")
    stride = evaluation.stride or [math.ceil(side * 2 / 3) for side in window]
    if any(step > side for step, side in zip(stride, window, strict=True)):
        raise UserError(f"a stride of {stride} leaves gaps between windows of {list(window)}", key="evaluation.stride")
    return Views((window[0], window[1]), (stride[0], stride[1]), scales, evaluation.flip, evaluation.exact)


@dataclass(frozen=True)
class _Window:
    """A window of (height, width) ``size`` at (top, left) of the picture scaled to (height, width) ``scaled``."""

    scaled: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]
    rows: slice  # of the class map, those that it shows


@dataclass(frozen=True)
class _Look:
    window: _Window
    logits: Tensor  # (B, K, h, w), mirrored back


def see(
    segment: Callable[[Tensor], Tensor], images: Tensor, size: tuple[int, int], align_corners: bool, views: Views
) -> Tensor:
    """The most likely class of each pixel.

    With one view of the whole picture, exactly :func:`densevision.segmentation.postprocess.class_map`. Several views
    are averaged as probabilities, each pixel over the views that show it: logits of different views have no common
    scale, and a confident view would outvote the rest by its logits' size alone. Source: DeepLab
    ``model.py``, ``predict_labels_multi_scale``, which averages softmax values.

    Memory, beside the picture and the network's own for one window: a strip of probabilities and the coarse logits of
    the windows that cross it. So with a sliding window a picture of any size is seen, at any scale.

    Args:
        segment: pixels (B, 3, h, w) -> logits (B, K, h', w').
        images: (B, 3, H, W) uint8 or float in 0..255.
        size: (height, width) of the result.
        align_corners: how the logits lie on their picture.

    Returns:
        (B, *size) uint8 class indices.
    """
    whole = views.window is None or all(w >= s for w, s in zip(views.window, images.shape[2:], strict=True))
    if whole and views.scales == (1.0,) and not views.flip:
        return class_map(segment(images), size, align_corners, views.exact)
    waiting = deque(sorted(_windows((images.shape[2], images.shape[3]), size, views), key=lambda w: w.rows.start))
    looks = _look(segment, images, waiting.popleft(), views.flip)
    batch, num_classes = looks[0].logits.shape[:2]
    rows = max(1, _STRIP // (batch * num_classes * size[1]))
    strips = []
    for top in range(0, size[0], rows):
        bottom = min(top + rows, size[0])
        looks = [look for look in looks if look.window.rows.stop > top]
        while waiting and waiting[0].rows.start < bottom:
            looks += _look(segment, images, waiting.popleft(), views.flip)
        total = images.new_zeros((batch, num_classes, bottom - top, size[1]), dtype=torch.float32)
        seen = images.new_zeros((bottom - top, size[1]), dtype=torch.float32)
        for look in looks:
            _add(look, total, seen, top, size, align_corners)
        strips.append((total / seen).max(1)[1].to(torch.uint8))
    return torch.cat(strips, dim=1)


def _windows(picture: tuple[int, int], size: tuple[int, int], views: Views) -> Iterator[_Window]:
    for scale in views.scales:
        scaled = max(1, round(picture[0] * scale)), max(1, round(picture[1] * scale))
        window = scaled if views.window is None else views.window
        stride = views.stride or window
        window = min(window[0], scaled[0]), min(window[1], scaled[1])
        for top in _starts(scaled[0], window[0], stride[0]):
            rows, _ = _shown(0, size[0], size[0], scaled[0], top, window[0])
            if rows.stop > rows.start:
                for left in _starts(scaled[1], window[1], stride[1]):
                    yield _Window(scaled, top, left, window, rows)


def _look(segment: Callable[[Tensor], Tensor], images: Tensor, window: _Window, flip: bool) -> list[_Look]:
    height, width = window.size
    taps, weights = _taps(images.shape[2], window.scaled[0], window.top, height)
    first, last = int(taps.min()), int(taps.max())
    part = _summed(images[:, :, first : last + 1], 3, *_taps(images.shape[3], window.scaled[1], window.left, width))
    part = _summed(part, 2, taps - first, weights)
    looks = [_Look(window, segment(part).float())]
    if flip:
        looks.append(_Look(window, segment(part.flip(3)).float().flip(3)))
    return looks


def _taps(length: int, scaled: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels of a side, and how much of each, make ``count`` pixels from ``start`` on of that side scaled.

    As ``F.interpolate(mode="bilinear", antialias=True)`` takes them, which can only scale all of a picture: under a
    triangle as wide as the larger of a pixel before and after, cut at the picture's edges.

    Returns:
        (count, taps) int64 and float64; a side that is not scaled has one tap.
    """
    ratio = length / scaled
    reach = max(1.0, ratio)
    centres = (np.arange(start, start + count) + 0.5) * ratio - 0.5
    taps = np.ceil(centres - reach).astype(np.int64)[:, None] + np.arange(math.floor(2 * reach) + 1)
    weights = np.maximum(0, 1 - abs(taps - centres[:, None]) / reach) * ((taps >= 0) & (taps < length))
    used = weights.any(0)
    return taps.clip(0, length - 1)[:, used], (weights / weights.sum(1, keepdims=True))[:, used]


def _summed(images: Tensor, dim: int, taps: np.ndarray, weights: np.ndarray) -> Tensor:
    """Sums of weighted pixels along ``dim``; pixels that are taken as they are keep their type."""
    if taps.shape[1] == 1:
        return images.narrow(dim, int(taps[0, 0]), len(taps))
    total: Tensor | None = None
    for tap, weight in zip(taps.T, weights.T, strict=True):
        pixels = images.index_select(dim, torch.tensor(tap).to(images.device)).float()
        pixels *= torch.tensor(weight, dtype=torch.float32).to(images.device).view(-1, *[1] * (3 - dim))
        total = pixels if total is None else total.add_(pixels)
    assert total is not None
    return total


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin that together cover 0..length-1."""
    return [min(start, length - window) for start in range(0, max(1, length - window + stride), stride)]


def _add(look: _Look, total: Tensor, seen: Tensor, first_row: int, size: tuple[int, int], align_corners: bool) -> None:
    """Add a look's probabilities to the strip of rows ``first_row...`` of a class map of ``size``."""
    window = look.window
    rows, y = _shown(first_row, len(seen), size[0], window.scaled[0], window.top, window.size[0])
    columns, x = _shown(0, size[1], size[1], window.scaled[1], window.left, window.size[1])
    if not y.size or not x.size:
        return
    logits = _at(look.logits, 2, y, window.size[0], align_corners)
    logits = _at(logits, 3, x, window.size[1], align_corners)
    total[:, :, rows, columns] += logits.softmax(1)
    seen[rows, columns] += 1


def _shown(first: int, count: int, length: int, scaled: int, start: int, window: int) -> tuple[slice, np.ndarray]:
    """Which of ``count`` pixels from ``first`` on a window shows, and the place of each in the window's pixels.

    Pixel x of a side of ``length`` lies at (x + .5) * scaled / length - .5 of that side scaled to ``scaled``.
    """
    places = (np.arange(first, first + count) + 0.5) * (scaled / length) - 0.5 - start
    low, high = np.searchsorted(places, (-0.5, window - 0.5))
    return slice(low, high), places[low:high]


def _at(logits: Tensor, dim: int, places: np.ndarray, side: int, align_corners: bool) -> Tensor:
    """Linear interpolation along ``dim`` at places given in the pixels of a side of ``side``."""
    cells = logits.shape[dim]
    places = places * ((cells - 1) / max(1, side - 1)) if align_corners else (places + 0.5) * (cells / side) - 0.5
    places = places.clip(0, cells - 1)
    low = np.floor(places).astype(np.int64)
    weight = torch.tensor(places - low, dtype=logits.dtype).to(logits.device)
    first, second = (torch.tensor(x).to(logits.device) for x in (low, np.minimum(low + 1, cells - 1)))
    weight = weight.view(-1, *[1] * (logits.dim() - dim - 1))
    return torch.lerp(logits.index_select(dim, first), logits.index_select(dim, second), weight)
