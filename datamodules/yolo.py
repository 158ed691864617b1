"""YOLO's format: a yaml file that names folders and classes, and a text file with the boxes of each picture.

A line is ``class x y width height``, the box's centre and size as shares of the picture; or ``class x1 y1 x2 y2 ...``,
an outline, of which the bounding box is taken. The text file of ``images/a/b.jpg`` is ``labels/a/b.txt``; a picture
without one shows nothing but background.
"""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from datamodules.annotations import Annotations, distinct_colors, name_fault, numbered_annotations
from datamodules.detection import DetectionDataModule
from densevision.config.lookup import unknown_name
from densevision.errors import UserError
from densevision.io import IMAGE_SUFFIXES, stored_size
from densevision.structures import LabelMap

_FURTHEST = 2.0  # shares beyond are pixels, or mistakes


class YoloDataModule(DetectionDataModule):
    """The data set of the yaml file ``data.root``, or of the one in the folder ``data.root``."""

    def read_annotations(self, split: str, training: bool) -> tuple[Path, Annotations, LabelMap]:
        """The data set's folder, the annotations of a split and their classes.

        Raises:
            UserError: no such file, folder or split, or boxes that cannot be meant; names file and line.
        """
        file = find_yaml(self.data.root)
        content = _read_yaml(file)
        label_map = read_names(file, content.get("names"), content.get("nc"))
        base = file.parent
        stated = content.get("path")
        if isinstance(stated, str) and os.path.isdir(base / stated):
            base /= stated  # else a path of the machine that the file was written on
        self.root = Path(os.path.normpath(base))
        splits = {name: value for name, value in content.items() if name in ("train", "val", "test") and value}
        if split not in splits:
            raise UserError(f"{file}: {unknown_name('split', split, splits)}")
        pictures = find_pictures(self.root, file, splits[split])
        annotations = read_boxes(f"{file}, split '{split}'", self.root, pictures, label_map)
        annotations.notes.update(_left_out(self.root, pictures))
        return self.root, annotations, label_map


def find_yaml(root: str | None) -> Path:
    """The yaml file that ``root`` is or holds.

    Raises:
        UserError: it is neither, or holds several.
    """
    if root is None:
        raise UserError("name the yaml file of the data set, or its folder: data.root=FILE", "data.root")
    path = Path(root).expanduser()
    if os.path.isfile(path):
        return path
    found = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if os.path.isdir(path) else []
    if len(found) != 1:
        there = f"holds {len(found)} yaml files" if os.path.isdir(path) else "does not exist"
        raise UserError(f"{path} {there}: name the one that describes the data set", "data.root")
    return found[0]


def read_names(file: Path, names: Any, count: Any = None) -> LabelMap:
    """The classes: a list, or a mapping from number to name; ``count`` of them, where that is stated.

    Raises:
        UserError: neither, a name that is none or there twice, or another count.
    """
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(type(key) is int and key >= 0 for key in names):
        raise UserError(f"{file} has no 'names': a list of class names, or a mapping from number to name")
    ids = sorted(names)
    if count is not None and count not in (len(ids), ids[-1] + 1):
        raise UserError(f"{file} says nc: {reprlib.repr(count)} and gives {len(ids)} names: correct one of them")
    for number in ids:
        if type(names[number]) not in (str, int, float):  # yaml reads no, yes and null as something else
            raise UserError(
                f"{file}: the name of class {number} is {reprlib.repr(names[number])}; a text is expected, in quotes "
                "if it is a word with a meaning in yaml"
            )
    texts = [str(names[number]) for number in ids]
    twice = [name for name, count in Counter(texts).items() if count > 1]
    if twice:
        raise UserError(f"{file} names the class {reprlib.repr(twice[0])} twice")
    return LabelMap(tuple(ids), tuple(texts), distinct_colors(len(ids)))


def find_pictures(base: Path, file: Path, entries: Any) -> list[str]:
    """The pictures of a split below ``base``, sorted: of a folder, a text file that lists them, or a list of these.

    Raises:
        UserError: a folder or list is not there, or there are no pictures.
    """
    found: list[str] = []
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, str):
            raise UserError(f"{file}: {reprlib.repr(entry)} is neither a folder nor a list of pictures")
        place = base / entry
        inside = base / entry.removeprefix("../")
        if entry.startswith("../") and os.path.exists(inside):  # as Roboflow writes of what lies beside the file
            place = inside
        if os.path.isdir(place):  # unlike Path's, False for what can be no name
            files = (Path(folder, name) for folder, _, names in os.walk(place) for name in names if name[0] != ".")
            found += [os.path.relpath(path, base) for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
        elif os.path.isfile(place) and place.suffix == ".txt":
            try:
                lines = place.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            except OSError as error:
                raise UserError(f"{place} cannot be read: {error.strerror}") from error
            found += [_below(base, line.strip()) for line in lines if line.strip()]
        else:
            raise UserError(f"{file} names {place}, which is neither a folder nor a list of pictures")
    if not found:
        raise UserError(f"{file}: no pictures in {reprlib.repr(entries)}")
    faulty = [path for path in found if name_fault(path)]
    if faulty:
        count = f" ({len(faulty)} such entries)" if len(faulty) > 1 else ""
        raise UserError(f"{file} lists {faulty[0]!a}, which {name_fault(faulty[0])}{count}")
    return sorted(set(found))


def _below(base: Path, path: str) -> str:
    """A listed path as one below the data set's folder, if it lies there."""
    for folder in (os.path.abspath(base), os.path.realpath(base)):
        if path.startswith(f"{folder}{os.sep}"):
            return os.path.normpath(os.path.relpath(path, folder))
    return os.path.normpath(path)


def _left_out(base: Path, pictures: Sequence[str]) -> Counter[str]:
    """Text files without a picture beside those of the pictures, and pictures that share one, counted."""
    shared = len(pictures) - len({_label_file(file) for file in pictures})
    notes = Counter({f"of {len(pictures)} pictures: with the text file of another of the same name": shared})
    for folder in sorted({os.path.dirname(file) for file in pictures}):
        labels = os.path.dirname(_label_file(f"{folder}/a" if folder else "a"))
        if labels == folder or not os.path.isdir(base / labels) or not os.path.isdir(base / folder):
            continue  # lists may lie beside pictures, too
        parts = map(os.path.splitext, os.listdir(base / folder))
        known = {"classes", *(stem for stem, suffix in parts if suffix.lower() in IMAGE_SUFFIXES)}
        texts = [name for name in os.listdir(base / labels) if name.endswith(".txt")]
        alone = sorted(name for name in texts if os.path.splitext(name)[0] not in known)
        if alone:
            named = f"{alone[0][:60]!a}{', ...' if len(alone) > 1 else ''}"
            notes[f"of {len(texts)} text files in {labels}: without a picture, left out ({named})"] = len(alone)
    return +notes


def read_boxes(source: str, base: Path, pictures: Sequence[str], label_map: LabelMap) -> Annotations:
    """Read the text files of all pictures into columns.

    Raises:
        UserError: a line is none, or names an unknown class; names file and line.
    """
    index_of = {number: index for index, number in enumerate(label_map.ids)}
    with ThreadPoolExecutor(16) as threads:
        # a picture that cannot be read has no size; whoever reads it says what is the matter
        sizes = np.array([size or (0, 0) for size in threads.map(stored_size, (base / file for file in pictures))])
        tables = list(threads.map(lambda file: _read_table(base / _label_file(file), index_of), pictures))
    notes: Counter[str] = Counter()
    unique = [np.unique(table, axis=0) for table in tables]
    repeated = sum(map(len, tables)) - sum(map(len, unique))
    if repeated:
        notes[f"of {sum(map(len, tables))} boxes: written twice, counted once"] = repeated
    counts = np.array([len(table) for table in unique])
    rows = np.concatenate(unique)
    heights, widths = np.repeat(sizes, counts, axis=0).T
    boxes = np.stack([rows[:, 1] - rows[:, 3] / 2, rows[:, 2] - rows[:, 4] / 2, rows[:, 3], rows[:, 4]], axis=1)
    boxes *= np.stack([widths, heights, widths, heights], axis=1)
    return numbered_annotations(source, pictures, sizes, counts, boxes, rows[:, 0], notes)


def _label_file(picture: str) -> str:
    """``images/a/b.jpg`` -> ``labels/a/b.txt``: the last folder called images counts."""
    folders = os.path.dirname(picture).split("/")
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return os.path.join(*folders, os.path.splitext(os.path.basename(picture))[0] + ".txt")


def _read_table(path: Path, index_of: dict[int, int]) -> np.ndarray:
    """(N, 5) float64: class index, centre x, centre y, width, height."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return np.zeros((0, 5))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    rows = [_row(path, number, line.split(), index_of) for number, line in enumerate(lines, 1) if line.strip()]
    return np.array(rows).reshape(-1, 5)


def _row(path: Path, line: int, words: Sequence[str], index_of: dict[int, int]) -> list[float]:
    where = f"{path}, line {line}"
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != 5 and (len(numbers) < 7 or len(numbers) % 2 == 0):
        raise UserError(
            f"{where}: expected 'class x y width height' or 'class x1 y1 x2 y2 x3 y3 ...', got '{_short(words)}'"
        )
    if not all(abs(number) <= _FURTHEST for number in numbers[1:]):  # NaN too
        raise UserError(f"{where}: expected shares of the picture's sides, 0 to 1, got '{_short(words)}'")
    if numbers[0] not in index_of:
        known = f"{min(index_of)} to {max(index_of)}"
        raise UserError(f"{where}: class {words[0]} is none of those that the data set names ({known})")
    index = float(index_of[int(numbers[0])])
    if len(numbers) == 5:
        return [index, *numbers[1:]]
    x, y = numbers[1::2], numbers[2::2]
    return [index, (min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)]


def _short(words: Iterable[str]) -> str:
    text = " ".join(words)
    return text if len(text) < 60 else f"{text[:57]}..."


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (
        OSError,
        ValueError,
        RecursionError,
        yaml.YAMLError,
    ) as error:  # ValueError: of dates
        raise UserError(f"{file} cannot be read as yaml: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is not YOLO's format: expected 'train', 'val' and 'names'")
    return content
