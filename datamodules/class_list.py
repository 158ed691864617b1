"""The classes of users' own data: a list in the configuration, or a text file."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.annotations import distinct_colors
from densevision.config.lookup import unknown_name
from densevision.errors import UserError
from densevision.structures import LabelMap

MAX_CLASSES = 254  # a label map has 8 bits, of which 254 and 255 are taken
_LINE = "a line is 'name', 'name, value' or 'name, red, green, blue'"


@dataclass(frozen=True)
class ClassList:
    """What masks hold: classes by value and, where given, by colour.

    label_map: of the classes that are learnt. colors: colour in the masks -> value; None where masks hold values only.
    """

    label_map: LabelMap
    colors: dict[tuple[int, int, int], int] | None


def read_classes(classes: Any, root: Path, ignored: Sequence[str]) -> ClassList:
    """Read the classes.

    Args:
        classes: names, whose values are 0, 1, ...; or a text file below ``root``: a line a class, ``name`` or
            ``name, value`` or ``name, red, green, blue``.
        root: of the data set.
        ignored: names of classes that are not learnt and not judged.

    Raises:
        UserError: no such file, lines of another shape, or names, values or colours twice.
    """
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        rows, source = [[name] for name in classes], "data.classes"
    elif isinstance(classes, str):
        source = str(root / classes)
        rows = _rows(root / classes)
    else:
        raise UserError(f"expected a list of names or a text file, got {classes!r}", "data.classes")
    names = [row[0] for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{source} names the class '{name}' twice", "data.classes")
    for name in ignored:
        if name not in names:
            raise UserError(unknown_name("class", name, names), "data.ignored_classes")
    widths = {len(row) for row in rows}
    if len(widths) != 1 or not widths <= {1, 2, 4}:
        raise UserError(f"{source}: {_LINE}, the same for all", "data.classes")
    numbers = [[_byte(source, text) for text in row[1:]] for row in rows]
    values = [row[0] for row in numbers] if widths == {2} else list(range(len(rows)))
    colors = {(r, g, b): value for (r, g, b), value in zip(numbers, values, strict=True)} if widths == {4} else None
    if len(set(values)) < len(rows) or (colors is not None and len(colors) < len(rows)):
        raise UserError(f"{source} gives two classes the same {'colour' if colors else 'value'}", "data.classes")
    learnt = [index for index, name in enumerate(names) if name not in ignored]
    if not 0 < len(learnt) <= MAX_CLASSES or max(values) > MAX_CLASSES - 1:
        raise UserError(
            f"{source} lists {len(learnt)} classes; 1 to {MAX_CLASSES}, with values below it, can be learnt",
            "data.classes",
        )
    shown = list(colors) if colors is not None else distinct_colors(len(rows))
    label_map = LabelMap(
        ids=tuple(values[index] for index in learnt),
        names=tuple(names[index] for index in learnt),
        colors=tuple(shown[index] for index in learnt),
        ignored_ids=tuple(values[index] for index in range(len(rows)) if index not in learnt),
    )
    return ClassList(label_map, colors)


def _rows(path: Path) -> list[list[str]]:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: the name has a NUL
        raise UserError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}. It lists the classes: {_LINE}; "
            "or give their names in data.classes=[background, cell]",
            "data.classes",
        ) from error
    rows = []
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        if line.strip() and not line.startswith(b"#"):
            rows.append(_row(f"{path}, line {number}", line))
    if rows and [cell.lower() for cell in rows[0]] in (["name", "r", "g", "b"], ["name", "value"]):
        rows = rows[1:]
    if not rows:
        raise UserError(f"{path} lists no classes: {_LINE}", "data.classes")
    return rows


def _row(where: str, line: bytes) -> list[str]:
    try:
        text = line.decode("utf-8")
        row = [cell.strip() for cell in next(csv.reader([text.replace("\t", ",")], strict=True))]
    except UnicodeDecodeError:
        raise UserError(f"{where}: {line!r:.60} is no text in UTF-8: save the file in it", "data.classes") from None
    except csv.Error as error:
        raise UserError(f"{where}: {text!r:.60} cannot be read ({error}); {_LINE}", "data.classes") from error
    if not row[0] or not "".join(row).isprintable():
        raise UserError(f"{where}: {text!r:.60} has no name that can be printed; {_LINE}", "data.classes")
    return row


def _byte(source: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= 255):
        raise UserError(f"{source}: expected a number from 0 to 255, got '{text[:60]}'; {_LINE}", "data.classes")
    return int(text)
