"""Pictures for people: classes or boxes drawn over a picture, legends, and rows of pictures with captions.

Pictures are (H, W, 3) uint8 RGB arrays, going in and coming out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densevision.structures import LabelMap

PAPER, INK = (255, 255, 255), (45, 45, 45)
_HATCH_PERIOD = 8  # pixels
DRAWN_SCORE = 0.3  # detections of lower scores are not drawn, unless asked for


def color_map(label: np.ndarray, label_map: LabelMap) -> np.ndarray:
    """The colour of each pixel's class, black where there is none.

    Args:
        label: (H, W) uint8 class indices, IGNORE_INDEX where nothing is said.
        label_map: the classes.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: label_map.num_classes] = label_map.colors
    return table[label]


def draw_mask(image: np.ndarray, label: np.ndarray, label_map: LabelMap, alpha: float = 0.5) -> np.ndarray:
    """A picture tinted with the colours of its classes; pixels without a class keep theirs under a grey hatching.

    Each region is outlined in its colour, so that thin and neighbouring ones stay apart.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8 class indices, IGNORE_INDEX where nothing is said.
        label_map: the classes.
        alpha: weight of the colour, 0..1.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: picture and label differ in size.
    """
    if image.shape[:2] != label.shape:
        raise ValueError(f"the picture is {image.shape[:2]}, its label {label.shape} (height, width)")
    colors = color_map(label, label_map)
    drawn = cv2.addWeighted(image, 1 - alpha, colors, alpha, 0)
    edges = _outline(label)
    drawn[edges] = colors[edges]
    unsaid = label >= label_map.num_classes
    drawn[unsaid] = image[unsaid]
    stripes = unsaid & (np.add.outer(*map(np.arange, label.shape)) % _HATCH_PERIOD < 2)
    drawn[stripes] = image[stripes] // 2 + 64
    return drawn


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray | None,
    label_map: LabelMap,
) -> np.ndarray:
    """A picture with boxes in the colours of their classes, each with its name and score.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) xyxy pixels. labels: (N,) class indices. scores: (N,) 0..1; None for true boxes.
        label_map: the classes.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    size = int(np.clip(image.shape[1] / 60, 10, 32))
    font, line = load_font(size), max(1, size // 8)
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    for number in order:  # the surest on top
        color = label_map.colors[int(labels[number])]
        x1, y1, x2, y2 = (round(float(side)) for side in boxes[number])
        draw.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), outline=color, width=line)
        text = label_map.names[int(labels[number])]
        text += "" if scores is None else f" {scores[number]:.2f}"
        # above the box, or inside it at the picture's upper edge
        x, y = max(0, min(x1, image.shape[1] - int(font.getlength(text)))), y1 - size - line
        left, top, right, bottom = draw.textbbox((x + 1, y if y >= 0 else y1 + line), text, font=font)
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=color)
        # black or white, whichever the colour's luminance leaves legible
        ink = (0, 0, 0) if np.dot(color, (0.299, 0.587, 0.114)) > 140 else (255, 255, 255)
        draw.text((x + 1, y if y >= 0 else y1 + line), text, fill=ink, font=font)
    return np.asarray(canvas)


def draw_outlines(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, label_map: LabelMap) -> np.ndarray:
    """A picture with many boxes as thin lines in the colours of their classes; arguments as in :func:`draw_boxes`."""
    drawn = np.ascontiguousarray(image).copy()
    for box, label in zip(np.rint(boxes).astype(int), labels.tolist(), strict=True):
        cv2.rectangle(drawn, box[:2].tolist(), box[2:].tolist(), label_map.colors[label], 1, cv2.LINE_AA)
    return drawn


def legend(label_map: LabelMap, width: int, present: Iterable[int] | None = None) -> np.ndarray:
    """Colour patches with the names of the classes, in as many rows as they need.

    Args:
        label_map: the classes.
        width: of the result in pixels; letters grow with it.
        present: indices of the classes to show, what is no class being passed over; None for all.

    Returns:
        (height, width', 3) uint8 RGB, height 0 where there is nothing to show; width' exceeds ``width`` where
        even one name is wider.
    """
    shown = sorted(set(range(label_map.num_classes)) & set(range(256) if present is None else map(int, present)))
    font_size = letter_size(width)
    font, gap = load_font(font_size), font_size // 2
    patch, line = font_size, int(font_size * 1.6)
    entry = max((int(font.getlength(label_map.names[k])) + patch + 3 * gap for k in shown), default=0)
    columns = max(1, min(width // max(entry, 1), len(shown)))
    rows = -(-len(shown) // columns)
    canvas = Image.new("RGB", (max(width, entry), rows * line + (gap if rows else 0)), PAPER)
    draw = ImageDraw.Draw(canvas)
    for position, index in enumerate(shown):
        x, y = position % columns * entry, position // columns * line + gap
        draw.rectangle((x, y, x + patch, y + patch), fill=label_map.colors[index], outline=INK)
        draw.text((x + patch + gap, y + patch / 2), label_map.names[index], fill=INK, font=font, anchor="lm")
    return np.asarray(canvas)


def grid(rows: Sequence[Sequence[np.ndarray]], captions: Sequence[str] | None = None) -> np.ndarray:
    """Pictures of any sizes in rows and columns on white, each at the top left of its cell.

    Args:
        rows: the pictures, (H, W, 3) uint8 RGB each; rows may differ in length.
        captions: one line above each column, cut with an ellipsis where it does not fit.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    columns = max(map(len, rows), default=0)
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    heights = [max((picture.shape[0] for picture in row), default=0) for row in rows]
    font_size = letter_size(sum(widths))
    gap = font_size // 2
    top = 2 * font_size if captions else 0
    size = (max(top + sum(heights) + gap * (len(rows) - 1), 1), max(sum(widths) + gap * (columns - 1), 1))
    canvas = Image.new("RGB", size[::-1], PAPER)
    draw, font = ImageDraw.Draw(canvas), load_font(font_size)
    lefts = [sum(widths[:c]) + gap * c for c in range(columns)]
    for caption, left, width in zip(captions or (), lefts, widths, strict=False):
        draw.text((left, top / 2), fitting(caption, font, width), fill=INK, font=font, anchor="lm")
    for row, y in zip(rows, [top + sum(heights[:r]) + gap * r for r in range(len(rows))], strict=True):
        for picture, left in zip(row, lefts, strict=False):
            canvas.paste(Image.fromarray(picture), (left, y))
    return np.asarray(canvas)


def overlay(image: np.ndarray, label: np.ndarray, label_map: LabelMap) -> np.ndarray:
    """A picture with its classes drawn on it and a legend of those that occur below it.

    Arguments and result as in :func:`draw_mask`; the result is higher by the legend.
    """
    names = legend(label_map, image.shape[1], present=np.unique(label))
    return _stack(draw_mask(image, label, label_map), names)


def comparison(image: np.ndarray, truth: np.ndarray | None, prediction: np.ndarray, label_map: LabelMap) -> np.ndarray:
    """Picture, truth and prediction side by side, with a legend of the classes that occur.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) uint8 class indices, IGNORE_INDEX where nothing is said; None leaves its panel out.
        prediction: (H, W) uint8 class indices.
        label_map: the classes.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    panels = {"picture": image}
    if truth is not None:
        panels["truth"] = draw_mask(image, truth, label_map)
    panels["prediction"] = draw_mask(image, prediction, label_map)
    side_by_side = grid([list(panels.values())], list(panels))
    present = set(np.unique(prediction)) | (set() if truth is None else set(np.unique(truth)))
    return _stack(side_by_side, legend(label_map, side_by_side.shape[1], present))


def box_comparison(
    image: np.ndarray,
    truth: tuple[np.ndarray, np.ndarray] | None,
    prediction: tuple[np.ndarray, np.ndarray, np.ndarray],
    label_map: LabelMap,
) -> np.ndarray:
    """The picture with its true boxes beside the picture with the predicted ones.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: boxes and labels as in :func:`draw_boxes`; None leaves its panel out.
        prediction: boxes, labels and scores likewise.
        label_map: the classes.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    panels = {} if truth is None else {"truth": draw_boxes(image, *truth, None, label_map)}
    panels["prediction"] = draw_boxes(image, *prediction, label_map)
    return grid([list(panels.values())], list(panels))


def _outline(label: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels whose right or lower neighbour is of another class."""
    edges = np.zeros(label.shape, bool)
    edges[:, :-1] = label[:, :-1] != label[:, 1:]
    edges[:-1] |= label[:-1] != label[1:]
    return edges


def _stack(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    canvas = np.full((len(upper) + len(lower), max(upper.shape[1], lower.shape[1]), 3), PAPER, np.uint8)
    canvas[: len(upper), : upper.shape[1]] = upper
    canvas[len(upper) :, : lower.shape[1]] = lower
    return canvas


def letter_size(width: int) -> int:
    return int(np.clip(width / 70, 12, 48))


@lru_cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
