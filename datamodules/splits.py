"""Holding pictures out for validation where a data set does not say which."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from densevision.errors import UserError

_NEAR = 0.05  # share of the number of pictures asked for by which groups may miss it, so that the seed has a choice


def held_out(names: Sequence[str], fraction: float, seed: int, group: str | None = None) -> np.ndarray:
    """Which pictures are held out: the same ones wherever and in whatever order the data set is read.

    Args:
        names: of the pictures.
        fraction: of them to hold out; of whole groups as near to it as they allow.
        seed: draws which.
        group: regular expression; pictures for which it finds the same text (in its first parentheses, if it has any)
            stay together, as the frames of a sequence have to. None: every picture for itself.

    Returns:
        (N,) bool.

    Raises:
        UserError: the expression is none or finds nothing in a name, or one side would be empty.
    """
    keys = _groups(names, group)
    digests = {key: hashlib.blake2b(f"{seed} {key}".encode("utf-8", "surrogatepass")).digest() for key in set(keys)}
    order = sorted(digests, key=digests.__getitem__)
    sizes = dict.fromkeys(order, 0)
    for key in keys:
        sizes[key] += 1
    wanted = round(fraction * len(names))
    if group is not None and 0 < wanted < len(names) and len(order) > 1:
        chosen = _nearest(sizes, wanted)
    else:
        before = np.cumsum([0, *sizes.values()])[:-1]
        chosen = {key for key, count in zip(order, before, strict=True) if count < wanted}
    if not chosen or len(chosen) == len(order):
        what = f"{len(order)} groups ({group})" if group else f"{len(names)} pictures"
        raise UserError(f"{fraction:g} of {what} leaves nothing on one side", "data.val_fraction")
    return np.array([key in chosen for key in keys])


def _nearest(sizes: dict[str, int], wanted: int) -> set[str]:
    """Some of these groups, not all, whose sizes add up to ``wanted`` or nearly; the first that do, in their order."""
    keys, total = list(sizes), sum(sizes.values())
    away = np.abs(np.arange(total) - wanted)  # by sum; that of all groups is none
    last = np.zeros(total, np.int64)  # of the groups that add up to a sum
    reached = np.arange(total) == 0
    for index, size in enumerate(sizes.values()):
        new = ~reached
        new[:size] = False
        new[size:] &= reached[: total - size]
        last[new], reached = index, reached | new
        if (reached & (away <= _NEAR * wanted))[1:].any():
            break
    left = 1 + int(np.where(reached, away, total)[1:].argmin())
    chosen: set[str] = set()
    while left:
        chosen.add(keys[last[left]])
        left -= sizes[keys[last[left]]]
    return chosen


def _groups(names: Sequence[str], pattern: str | None) -> list[str]:
    if pattern is None:
        return list(names)
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"'{pattern}' is no regular expression: {error}", "data.group") from error
    found = [expression.search(name) for name in names]
    for name, match in zip(names, found, strict=True):
        if match is None:
            raise UserError(f"'{pattern}' finds nothing in the name {name}", "data.group")
    return [match[1] if expression.groups else match[0] for match in found if match]
