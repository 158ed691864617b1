"""How large the boxes of a split are and how many there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datamodules.annotations import Annotations, usable_boxes

_PERCENTILES = (5, 25, 50, 75, 95)
_SMALL, _MEDIUM = 32**2, 96**2  # COCO's bounds of small and medium areas


@dataclass(frozen=True, eq=False)
class BoxReport:
    """The N boxes of a split that can be learnt from.

    boxes: (N, 4) float32 xyxy pixels. pictures: (N, 2) float64 (width, height) of each box's picture. counts: (I,)
    int64 boxes of each picture. crowds: annotations that are crowds, in none of these.
    """

    boxes: np.ndarray
    pictures: np.ndarray
    counts: np.ndarray
    crowds: int

    def at(self, image_size: Sequence[int]) -> np.ndarray:
        """(N, 4) float64 xyxy once all pictures are resized to (height, width)."""
        return self.boxes / np.tile(self.pictures, 2) * [image_size[1], image_size[0], image_size[1], image_size[0]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        areas = sides.prod(axis=1)
        scale = np.sqrt((sides / self.pictures).prod(axis=1))
        return {
            "boxes": len(sides),
            "crowds": self.crowds,
            "small": int((areas < _SMALL).sum()),
            "medium": int(((areas >= _SMALL) & (areas < _MEDIUM)).sum()),
            "large": int((areas >= _MEDIUM).sum()),
            "per_picture": {"mean": _mean(self.counts), "most": int(self.counts.max(initial=0))},
            # the square root of a box's share of its picture, and its width over its height
            "scale_percentiles": _percentiles(scale),
            "aspect_percentiles": _percentiles(sides[:, 0] / sides[:, 1]),
        }

    def lines(self) -> Iterator[str]:
        """The report as a short text."""
        said = self.to_dict()
        total = max(1, said["boxes"])
        shares = ", ".join(f"{100 * said[size] / total:.0f} % {size}" for size in ("small", "medium", "large"))
        per_picture = f"{said['per_picture']['mean']:.1f} a picture, at most {said['per_picture']['most']}"
        yield f"{said['boxes']} boxes ({per_picture}) and {said['crowds']} crowds; stored areas: {shares}"
        if said["boxes"]:
            for what, key in (("sqrt(box / picture)", "scale"), ("width / height", "aspect")):
                values = ", ".join(f"{share} %: {value:.3g}" for share, value in said[f"{key}_percentiles"].items())
                yield f"{what} at percentiles {values}"


def _percentiles(values: np.ndarray) -> dict[str, float]:
    if not values.size:
        return {}
    return dict(zip(map(str, _PERCENTILES), np.percentile(values, _PERCENTILES).tolist(), strict=True))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0


def report_boxes(annotations: Annotations, sizes: np.ndarray) -> BoxReport:
    """Sizes and numbers of the boxes that can be learnt from.

    Args:
        annotations: of the split.
        sizes: (I, 2) (height, width) of the pictures, 0 of those that cannot be read.
    """
    known = np.where(sizes > 0, sizes, np.inf).astype(np.float64)  # of the others nothing is said
    heights, widths = np.repeat(known, np.diff(annotations.starts), axis=0).T
    boxes, keep = usable_boxes(annotations.boxes, annotations.crowd, heights, widths)
    keep &= np.isfinite(widths)
    counts = np.diff(np.concatenate([[0], np.cumsum(keep)])[annotations.starts])
    pictures = np.stack([widths, heights], axis=1)[keep]
    return BoxReport(boxes[keep], pictures, counts, int(annotations.crowd.sum()))
