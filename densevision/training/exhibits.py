"""What an evaluation has to show beside its numbers; tasks make it, logs show it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

MOST_CLASSES = 100  # that a confusion matrix is drawn of


@dataclass(frozen=True, eq=False)
class ShownPicture:
    """One picture, what is true of it and what was predicted.

    name: of the picture in its data set. panels: (H, W, 3) uint8 RGB each: the "picture" and, drawn over it where there
    is such a thing, "truth" and "prediction". drawing: all of that in one, with a legend. masks: "truth" and
    "prediction" as (H, W) uint8 class indices. boxes: likewise as (N, 4) xyxy pixels of the picture, (N,) class indices
    and (N,) scores, None for true ones.
    """

    name: str
    panels: dict[str, np.ndarray]
    drawing: np.ndarray
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    boxes: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Confusion:
    """Who is taken for whom. names: the C predictions, the first K of them the classes. counts: (K, C), truth by
    prediction."""

    names: tuple[str, ...]
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Precision by recall. recall: (R,) 0..1. curves: name -> (R,) precision 0..1."""

    recall: np.ndarray
    curves: dict[str, np.ndarray]


Chart = Confusion | PrecisionRecall
