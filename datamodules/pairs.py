"""Pictures and where their label maps are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.packed import PackedStrings


@dataclass(frozen=True)
class Pair:
    """A picture and where its label map is to be. name: unique in the split. labelled: the label file is there."""

    name: str
    image: Path
    label: Path
    labelled: bool


class Pairs(Sequence[Pair]):
    """A list of pairs whose memory the loader processes share (:class:`PackedStrings`).

    names, images, labels: of the pairs, the files as strings. labelled: (N,) bool.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.names = PackedStrings(pair.name for pair in pairs)
        self.images = PackedStrings(str(pair.image) for pair in pairs)
        self.labels = PackedStrings(str(pair.label) for pair in pairs)
        self.labelled = np.array([pair.labelled for pair in pairs], bool)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        labelled = bool(self.labelled[index])
        return Pair(self.names[index], Path(self.images[index]), Path(self.labels[index]), labelled)
