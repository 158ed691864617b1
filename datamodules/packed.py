"""Long lists of strings in one piece of memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class PackedStrings(Sequence[str]):
    """A list of strings as two arrays.

    A Python object is written to when it is only looked at (its references are counted), so that every loader
    process would come to hold its own copy of a list of objects; arrays stay shared. File names that are no UTF-8
    survive.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
        self.characters = np.frombuffer(b"".join(encoded), np.uint8)
        self.ends = np.cumsum([len(string) for string in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        end = int(self.ends[index])  # raises IndexError, which ends an iteration
        start = int(self.ends[index - 1]) if index % len(self) else 0
        return self.characters[start:end].tobytes().decode("utf-8", "surrogatepass")
