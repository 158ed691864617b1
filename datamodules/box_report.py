"""How large the boxes of a split are and how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

_PERCENTILES = (5, 25, 50, 75, 95)
_SMALL, _MEDIUM = 32**2, 96**2  # COCO's bounds of small and medium areas


@dataclass(frozen=True, eq=False)
class BoxReport:
    """The N boxes of a split that can be learnt from.

    sides: (N, 2) float32 (width, height) pixels. pictures: (N, 2) float64 (width, height) of each box's picture.
    counts: (I,) int64 boxes of each picture. crowds: annotations that are crowds, in none of these.
    """

    sides: np.ndarray
    pictures: np.ndarray
    counts: np.ndarray
    crowds: int

    @property
    def relative(self) -> np.ndarray:
        """(N, 2) float64: width and height as shares of the picture's."""
        return self.sides / self.pictures

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        areas = self.sides.prod(axis=1)
        scale = np.sqrt(self.relative.prod(axis=1))
        return {
            "boxes": len(self.sides),
            "crowds": self.crowds,
            "small": int((areas < _SMALL).sum()),
            "medium": int(((areas >= _SMALL) & (areas < _MEDIUM)).sum()),
            "large": int((areas >= _MEDIUM).sum()),
            "per_picture": {"mean": _mean(self.counts), "most": int(self.counts.max(initial=0))},
            # the square root of a box's share of its picture, and its width over its height
            "scale_percentiles": _percentiles(scale),
            "aspect_percentiles": _percentiles(self.sides[:, 0] / self.sides[:, 1]),
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
