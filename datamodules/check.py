"""Read a whole data set and collect what is wrong with it, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class ItemReport:
    """What one item of a data set turned out to be.

    errors: sentences, each a reason why training or evaluation would stop. notes: what may be meant so, worded so
    that equal ones can be counted. size: (height, width), None if unreadable. class_counts: (K,) pixels or boxes.
    """

    name: str
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    class_counts: np.ndarray | None = None
