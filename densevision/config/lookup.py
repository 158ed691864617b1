"""Find a name in a table, or say which names there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from densevision.errors import UserError

T = TypeVar("T")
_MOST_NAMES, _NEAREST = 40, 5  # that a sentence lists: all, or of more than those the nearest


def lookup(kind: str, name: str, table: Mapping[str, T], key: str | None = None) -> T:
    """Return ``table[name]``.

    Args:
        kind: what the table holds, for the message ("backbone").
        name: the name asked for.
        table: name to value.
        key: the configuration key that held the name.

    Raises:
        UserError: the name is not in the table; names the nearest right one and all known ones.
    """
    if name in table:
        return table[name]
    raise UserError(unknown_name(kind, name, table), key=key)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that is not known: ``unknown backbone 'x'; did you mean 'y'? known: ...``; of many that
    are known it says the nearest."""
    known = sorted(known)
    if len(known) <= _MOST_NAMES:
        return f"unknown {kind} '{name}'{suggestion(name, known)}; known: {', '.join(known)}"
    near = difflib.get_close_matches(name, known, n=_NEAREST, cutoff=0.0)
    return f"unknown {kind} '{name}'{suggestion(name, known)}; {len(known)} are known, the nearest: {', '.join(near)}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest of ``known``, or nothing when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
