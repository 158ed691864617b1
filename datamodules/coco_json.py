"""COCO's annotation files: json becomes columns, and what cannot be meant an error that names it."""

from __future__ import annotations

import gc
import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.annotations import Annotations, PackedStrings, distinct_colors, name_fault
from densevision.errors import UserError
from densevision.structures import LabelMap

_WHOLE = {int: "a whole number"}
_NUMBER = {int: "a number", float: "a number"}
_SHOWN = 5
_ABSENT = object()


def read_coco(path: Path) -> tuple[Annotations, LabelMap]:
    """Read an annotation file into columns.

    Raises:
        UserError: it is missing, no whole json, of another shape, or holds what cannot be meant: categories or
            pictures twice, unknown categories, numbers that are none, pictures outside the folder.
    """
    content = _read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not COCO's format: it holds {_kind(content)}, not an object with 'images'")
    categories, images = _entries(path, content, "categories"), _entries(path, content, "images")
    if not categories or not images:
        raise UserError(f"{path} lists no {'images' if categories else 'categories'}")
    label_map = _label_map(path, categories)
    labelled = "annotations" in content
    entries = _entries(path, content, "annotations") if labelled else []
    image_ids = _ids(path, images, "images")
    files = _column(path, images, "images", "file_name", {str: "a file name"})
    _check_files(path, files)
    sides = [
        _column(path, images, "images", side, {**_NUMBER, type(None): ""}, default=None) for side in ("height", "width")
    ]
    sizes = _numbers(path, [[s or 0 for s in side] for side in sides], "sizes of pictures").T
    notes: Counter[str] = Counter()
    usable = np.isfinite(sizes) & (sizes >= 0) & (sizes < 2**31)
    if strange := int((~usable).any(axis=1).sum()):
        notes[f"of {len(files)} pictures: with a width or height that no picture has, so the file's own is used"] = (
            strange
        )
    often = Counter(map(posixpath.normpath, files))
    if again := len(files) - len(often):
        notes[f"of {len(files)} pictures: listed under another id, too ({often.most_common(1)[0][0]}, ...)"] = again
    order = np.argsort(image_ids)
    owners = _whole(path, _column(path, entries, "annotations", "image_id", _WHOLE), "image_id")
    places = order[np.minimum(np.searchsorted(image_ids[order], owners), len(order) - 1)]
    listed = image_ids[places] == owners
    if not listed.all():
        notes[f"of {len(entries)} annotations: of pictures that the file does not list, left out"] = int(
            (~listed).sum()
        )
    boxes, areas, crowd = _boxes(path, entries, notes)
    labels = _labels(path, entries, label_map)
    ids = _annotation_ids(entries, notes)
    kept = np.flatnonzero(listed)
    kept = kept[np.argsort(places[kept], kind="stable")]
    annotations = Annotations(
        source=str(path),
        files=PackedStrings(files),
        image_ids=image_ids,
        sizes=np.where(usable, sizes, 0).astype(np.int64),
        starts=np.concatenate([[0], np.cumsum(np.bincount(places[kept], minlength=len(images)))]),
        boxes=boxes[kept],
        labels=labels[kept],
        areas=areas[kept],
        crowd=crowd[kept],
        annotation_ids=ids[kept],
        notes=notes,
        labelled=labelled,
    )
    return annotations, label_map


def _read_json(path: Path) -> Any:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist (see data.root and data.*_annotations)") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not text:
        raise UserError(f"{path} is empty (0 bytes)")
    try:
        with _without_garbage_collection():
            return json.loads(text, object_hook=_without_outline)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not whole json: {error.msg} at character {error.pos} of {len(error.doc)} (line {error.lineno})"
        ) from error
    except RecursionError:
        raise UserError(f"{path} is not COCO's format: it is nested too deeply") from None
    except ValueError as error:  # bytes that are no text, numbers too long for Python
        raise UserError(f"{path} is not json: {error}") from error


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    """Boxes are all that is wanted, and outlines most of the file: kept till its end they take gigabytes."""
    entry.pop("segmentation", None)
    return entry


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Looking for cycles among the millions of new objects takes longer than reading them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _entries(path: Path, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of objects under a key of the file."""
    entries = content.get(key)
    if not isinstance(entries, list):
        found = f"'{key}' is {_kind(entries)}" if key in content else f"it has no '{key}'"
        raise UserError(f"{path} is not COCO's format: {found}; a list is expected")
    for position, entry in enumerate(entries):
        if type(entry) is not dict:
            raise UserError(f"{path}: {key}[{position}] is {_kind(entry)}, not an object")
    return entries


def _column(
    path: Path, entries: Sequence[dict[str, Any]], name: str, key: str, types: Mapping[Any, str], default: Any = _ABSENT
) -> list[Any]:
    """One value of every entry; ``default`` for those that lack it, which else is an error."""
    values = [entry.get(key, default) for entry in entries]
    if not set(map(type, values)) <= set(types):
        position = next(i for i, value in enumerate(values) if type(value) not in types)
        said = f"has no '{key}'" if values[position] is _ABSENT else f"has the {key} {_short(values[position])}"
        expected = next(iter(types.values()))
        raise UserError(f"{path}: {name}[{position}]{_named(entries[position])} {said}; {expected} is expected")
    return values


def _ids(path: Path, entries: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """(N,) int64: the ids, each once."""
    ids = _whole(path, _column(path, entries, name, "id", _WHOLE), "id")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise UserError(f"{path}: the ids of {name} must differ; repeated: {_some(unique[counts > 1])}")
    return ids


def _label_map(path: Path, categories: Sequence[dict[str, Any]]) -> LabelMap:
    ids = _ids(path, categories, "categories")
    names = _column(path, categories, "categories", "name", {str: "a name"})
    if odd := [name for name in names if not name.isprintable()]:
        raise UserError(f"{path}: the category name {_short(odd[0])} cannot be printed")
    order = np.argsort(ids).tolist()
    often = Counter(names)
    unique = [names[k] if often[names[k]] == 1 else f"{names[k]} ({ids[k]})" for k in order]
    return LabelMap(tuple(ids[order].tolist()), tuple(unique), distinct_colors(len(unique)))


def _labels(path: Path, entries: Sequence[dict[str, Any]], label_map: LabelMap) -> np.ndarray:
    """(N,) int64 class indices."""
    known = np.array(label_map.ids)
    categories = _whole(path, _column(path, entries, "annotations", "category_id", _WHOLE), "category_id")
    labels = np.minimum(np.searchsorted(known, categories), len(known) - 1)
    wrong = known[labels] != categories
    if wrong.any():
        raise UserError(
            f"{path}: {wrong.sum()} of {len(wrong)} annotations are of categories that it does not list: ids "
            f"{_some(np.unique(categories[wrong]))}; listed are {_some(known, 100)}"
        )
    return labels


def _boxes(
    path: Path, entries: Sequence[dict[str, Any]], notes: Counter[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 4) float64 xywh, (N,) float64 areas and (N,) bool crowds."""
    boxes = _column(path, entries, "annotations", "bbox", {list: "a list of four numbers"})
    right = set(map(len, boxes)) <= {4} and {type(value) for box in boxes for value in box} <= {int, float}
    if not right:
        position = next(i for i, b in enumerate(boxes) if len(b) != 4 or not {type(v) for v in b} <= {int, float})
        raise UserError(
            f"{path}: annotations[{position}]{_named(entries[position])} has the bbox {_short(boxes[position])}; "
            "a list of four numbers, [x, y, width, height], is expected"
        )
    numbers = _numbers(path, boxes, "boxes").reshape(-1, 4)
    _check_finite(path, entries, numbers, "a box")
    said = _column(path, entries, "annotations", "area", {**_NUMBER, type(None): ""}, default=None)
    areas = _numbers(path, [np.nan if area is None else area for area in said], "areas")
    given = np.array([area is not None for area in said], bool)
    _check_finite(path, entries, np.where(given, areas, 0.0)[:, None], "an area")
    negative = given & (areas < 0)
    if negative.any():
        notes[f"of {len(entries)} annotations: with an area below 0, so the box's is taken"] = int(negative.sum())
    areas = np.where(given & ~negative, areas, numbers[:, 2] * numbers[:, 3])
    flags = _column(path, entries, "annotations", "iscrowd", {int: "0 or 1", bool: "", float: "", type(None): ""}, 0)
    if wrong := [position for position, flag in enumerate(flags) if flag not in (0, 1, None)]:
        raise UserError(
            f"{path}: {len(wrong)} of {len(entries)} annotations have an iscrowd that is neither 0 nor 1: "
            f"annotations[{wrong[0]}]{_named(entries[wrong[0]])} has {_short(flags[wrong[0]])}"
        )
    return numbers, areas, np.array([bool(flag) for flag in flags], bool)


def _annotation_ids(entries: Sequence[dict[str, Any]], notes: Counter[str]) -> np.ndarray:
    """(N,) int64: as they are if they can tell the annotations apart, else 1, 2, ..."""
    ids: list[Any] = [entry.get("id") for entry in entries]
    if set(map(type, ids)) <= {int} and all(-(2**63) <= number < 2**63 for number in ids):
        repeated = len(ids) - len(set(ids))
        if not repeated:
            return np.array(ids, np.int64)
        notes[f"of {len(ids)} annotations: with the id of another, so all are numbered anew from 1"] = repeated
    elif any(number is not None for number in ids):
        faulty = sum(type(number) is not int or not -(2**63) <= number < 2**63 for number in ids)
        notes[f"of {len(ids)} annotations: with an id that is no whole number, so all are numbered anew from 1"] = (
            faulty
        )
    return np.arange(1, len(ids) + 1)


def _check_files(path: Path, files: Sequence[str]) -> None:
    for file in files:
        if fault := name_fault(file):
            raise UserError(f"{path}: the file_name {_short(file)} {fault}")


def _check_finite(path: Path, entries: Sequence[dict[str, Any]], numbers: np.ndarray, what: str) -> None:
    # beyond 2**31 a number is no place in a picture, and its square no area
    wrong = np.flatnonzero(~(np.abs(numbers) < (2.0**31 if what == "a box" else np.inf)).all(axis=1))
    if wrong.size:
        ids = [entries[position].get("id", f"at position {position}") for position in wrong[:_SHOWN].tolist()]
        more = ", ..." if wrong.size > _SHOWN else ""
        raise UserError(
            f"{path}: {wrong.size} of {len(entries)} annotations have {what} that is not finite or beyond all "
            f"pictures: annotation ids {', '.join(map(_short, ids))}{more}"
        )


def _numbers(path: Path, values: Sequence[Any], what: str) -> np.ndarray:
    try:
        return np.array(values, np.float64)
    except OverflowError:
        raise UserError(f"{path}: the {what} hold a number that is too large") from None


def _whole(path: Path, values: Sequence[int], what: str) -> np.ndarray:
    try:
        return np.array(values, np.int64)
    except OverflowError:
        raise UserError(f"{path}: the {what} {_short(max(values, key=abs))} is too large") from None


def _named(entry: dict[str, Any]) -> str:
    return f" (id {_short(entry['id'])})" if "id" in entry else ""


def _some(values: np.ndarray, shown: int = _SHOWN) -> str:
    return ", ".join(map(str, values[:shown].tolist())) + (", ..." if len(values) > shown else "")


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _kind(value: Any) -> str:
    kinds = {
        dict: "an object",
        list: "a list",
        str: "a text",
        int: "a number",
        float: "a number",
        bool: "true or false",
    }
    return kinds.get(type(value), "null")
