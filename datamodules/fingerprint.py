"""A short number for the data of a split, so that two experiments can tell whether they saw the same."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from densevision.errors import UserError

_READ = 16  # pictures whose files are read


def fingerprint(dataset: Any) -> str:
    """Sixteen hexadecimal digits: of the names of all pictures and what is known of their labels without reading a
    file, and of the bytes of the files of a few pictures, evenly spread.

    Where the data set lies, and whether it is read from a store, does not count.

    Args:
        dataset: has ``names``, ``label_columns()`` (arrays) and ``source_files(index)`` (paths).

    Raises:
        UserError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for name in dataset.names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    for column in dataset.label_columns():
        digest.update(np.ascontiguousarray(column).tobytes())
    for index in np.unique(np.linspace(0, len(dataset) - 1, _READ).round().astype(int)).tolist():
        for file in dataset.source_files(index):
            try:
                digest.update(file.read_bytes())
            except OSError as error:
                raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()[:16]
