"""Pictures of numbers: probabilities and confusions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from densevision.visualize.pictures import INK, PAPER, fitting, letter_size, load_font

_SHOWN_SIDE = 160  # pixels that a picture is enlarged to, and the bars are wide at least
_BAR = (170, 205, 240)


def class_bars(image: np.ndarray, names: Sequence[str], probabilities: Sequence[float]) -> np.ndarray:
    """A picture above its classes, each a bar as long as it is probable; small pictures are enlarged.

    Args:
        image: (H, W, 3) uint8 RGB.
        names, probabilities: of the classes to show, in their order.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    times = min(math.ceil(_SHOWN_SIDE / min(image.shape[:2])), 4 * _SHOWN_SIDE // max(image.shape[:2]))
    if times > 1:
        image = cv2.resize(image, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST)
    height, width = len(image), max(image.shape[1], _SHOWN_SIDE)
    size = letter_size(width)
    font, line = load_font(size), int(size * 1.6)
    canvas = Image.new("RGB", (width, height + line * len(names)), PAPER)
    canvas.paste(Image.fromarray(image), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for row, (name, probability) in enumerate(zip(names, probabilities, strict=True)):
        top = height + row * line
        draw.rectangle((0, top + 2, probability * width, top + line - 2), fill=_BAR)
        percent = f"{100 * probability:.1f} %"
        room = width - int(font.getlength(percent)) - 2 * size
        draw.text((size / 2, top + line / 2), fitting(name, font, room), fill=INK, font=font, anchor="lm")
        draw.text((width - size / 2, top + line / 2), percent, fill=INK, font=font, anchor="rm")
    return np.asarray(canvas)


def confusion_picture(counts: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """A confusion matrix as a picture: each row, a true class, shaded by where its pixels went, in percent.

    Args:
        counts: (K, C) pixels, truth by prediction; a row without pixels stays white.
        names: the C predictions, the first K of them the classes; a prediction that was never made and is no class is
            left out.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if not counts[:, len(counts) :].any():
        counts, names = counts[:, : len(counts)], names[: len(counts)]
    cell, font = 36, load_font(14)
    margin = int(max(font.getlength(name) for name in names)) + 16
    rows, columns = counts.shape
    canvas = Image.new("RGB", (margin + columns * cell + 8, margin + rows * cell + 8), PAPER)
    draw = ImageDraw.Draw(canvas)
    for column, name in enumerate(names):
        upright = Image.new("RGB", (margin, cell), PAPER)
        ImageDraw.Draw(upright).text((8, cell / 2), name, fill=INK, font=font, anchor="lm")
        canvas.paste(upright.rotate(90, expand=True), (margin + column * cell, 0))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for row in range(rows):
        top = margin + row * cell
        draw.text((margin - 8, top + cell / 2), names[row], fill=INK, font=font, anchor="rm")
        for column, share in enumerate(shares[row]):
            left = margin + column * cell
            # blue for what was found, red for what was missed
            far = np.array((25, 95, 170) if row == column else (190, 50, 40))
            shade = tuple(int(value) for value in 255 + (far - 255) * share**0.5)
            draw.rectangle((left, top, left + cell - 2, top + cell - 2), fill=shade)
            if share >= 0.005:
                ink = PAPER if share > 0.3 else INK
                place = (left + cell / 2 - 1, top + cell / 2 - 1)
                draw.text(place, f"{100 * share:.0f}", fill=ink, font=font, anchor="mm")
    return np.asarray(canvas)
