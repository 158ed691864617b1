"""Where a data set in VOC's layout has its files, and which pictures its lists name.

VOC's own: ``Annotations/a.xml``, ``JPEGImages/a.jpg``, ``SegmentationClass/a.png`` and ``ImageSets/Main/train.txt``.
Labelling tools leave parts of it away: no lists, another folder of pictures, or all in one folder.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.annotations import name_fault
from datamodules.folders import by_stem, files_below
from densevision.config.lookup import unknown_name
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.io import IMAGE_SUFFIXES
from densevision.paths import is_file, is_folder

# a class's list says of each picture whether it shows the class
_FLAGGED = re.compile(r"(\S+)\s+(?:-1|0|1)")


@dataclass(frozen=True)
class Layout:
    """What of VOC's layout is read. lists: folder in ImageSets. folders: where labels may lie. suffixes: of labels."""

    lists: str
    folders: tuple[str, ...]
    suffixes: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A picture of a split: its name, its file below the data set's folder, and where its label is to be."""

    name: str
    picture: str
    label: Path
    labelled: bool


def find_root(root: str | None) -> Path:
    """The folder of the data set.

    Raises:
        UserError: it is not named or not there; says how to get VOC.
    """
    folder = None if root is None else Path(root).expanduser()
    if folder is not None and is_folder(folder):
        return folder
    named = "data.root is not set" if folder is None else f"{folder.absolute()} is no folder"
    raise UserError(
        f"no VOC data set: {named}.\n"
        "  To get it: download VOCtrainval_06-Nov-2007.tar, VOCtest_06-Nov-2007.tar, VOCtrainval_11-May-2012.tar from\n"
        "  http://host.robots.ox.ac.uk/pascal/VOC, unpack them, and name the folder with data.root=VOCdevkit/VOC2007.",
        "data.root",
    )


def find_entries(
    root: Path, data: DataConfig, split: str, training: bool, layout: Layout
) -> tuple[list[Entry], Counter[str]]:
    """The pictures of a split, and what is to be said about them, counted.

    Raises:
        UserError: no such lists, a list that names nothing or leads out of its folder, or no labels at all.
    """
    entries, notes = [], Counter[str]()
    parts = _parts(root, data, split, training, layout.lists)
    for tree, list_file in parts:
        place, labels_at = _pictures_folder(tree, data, split), _first_folder(tree, layout.folders)
        pictures = by_stem(place, files_below(place), IMAGE_SUFFIXES)
        labels = by_stem(labels_at, files_below(labels_at), layout.suffixes)
        if list_file is None:
            names = sorted(labels)
            if not names:
                raise UserError(f"no {layout.suffixes[0][1:]} files in {labels_at}")
            alone = sum(name not in labels for name in pictures)
            if alone:
                notes[f"of {len(pictures)} pictures: without {layout.suffixes[0][1:]} file, left out"] += alone
        else:
            names = _read_list(list_file)
            unique = list(dict.fromkeys(names))
            if len(unique) < len(names):
                notes[f"of {len(names)} lines of {list_file}: a second time, counted once"] = len(names) - len(unique)
            names = unique
        prefix = f"{tree.name}/" if len(parts) > 1 else ""
        for name in names:
            picture = pictures.get(name, place / f"{name}.jpg")
            label = labels.get(name, labels_at / f"{name}{layout.suffixes[0]}")
            entries.append(Entry(prefix + name, os.path.relpath(picture, root), label, name in labels))
    return entries, notes


def find_tree(root: Path) -> Path:
    """The folder of VOC's folders: ``root``, or the one such folder in it; of another layout ``root``.

    Raises:
        UserError: there are several.
    """
    for places in ([root], root.glob("VOC*"), root.glob("VOCdevkit/VOC*")):
        trees = sorted(tree for tree in places if is_folder(tree / "JPEGImages"))
        if len(trees) > 1:
            raise UserError(
                f"{root} holds {', '.join(tree.name for tree in trees)}: name one as data.root, or their lists in "
                "data.train_list and data.val_list",
                "data.root",
            )
        if trees:
            return trees[0]
    return root


def _parts(root: Path, data: DataConfig, split: str, training: bool, lists: str) -> list[tuple[Path, Path | None]]:
    """The trees that a split takes pictures of, each with its list; None for all that are labelled."""
    key = "data.val_list" if split == data.val_split and not training else "data.train_list"
    named = data.val_list if key == "data.val_list" else data.train_list if split == data.train_split else None
    if named is not None:
        return [_named_list(root, text, key) for text in (named if isinstance(named, list) else [named])]
    tree = find_tree(root)
    folder = tree / "ImageSets" / lists
    if is_folder(folder):
        file = folder / f"{split}.txt"
        if not is_file(file):
            raise UserError(f"{folder}: {unknown_name('split', split, [f.stem for f in folder.glob('*.txt')])}")
        return [(tree, file)]
    if is_folder(tree / split):
        return [(tree / split, None)]
    if data.val_fraction is None and data.train_split != data.val_split:
        raise UserError(
            f"{tree} has neither ImageSets/{lists} nor a folder '{split}': name lists of pictures in data.train_list "
            "and data.val_list, or hold some pictures out with data.val_fraction=0.2",
            "data.val_fraction",
        )
    return [(tree, None)]


def _named_list(root: Path, text: object, key: str) -> tuple[Path, Path]:
    """A list and the tree it belongs to, the one whose ImageSets it lies in."""
    if not isinstance(text, str):
        raise UserError(f"expected a text file below data.root, or a list of such, got {text!r}", key)
    file = root / text
    if not is_file(file):
        file = find_tree(root) / text
    if not is_file(file):
        raise UserError(f"{file} does not exist: it is to list the pictures", key)
    above = [parent.parent for parent in file.parents if parent.name == "ImageSets"]
    return (above[0] if above else find_tree(root)), file


def _read_list(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    flagged = [_FLAGGED.fullmatch(name) for name in names]
    if all(flagged):
        names = [match[1] for match in flagged if match]
    if not names:
        raise UserError(f"{file} lists no pictures")
    names = [
        name[: -len(s)] if (s := Path(name).suffix).lower() in (*IMAGE_SUFFIXES, ".xml") else name for name in names
    ]
    for name in names:
        if fault := name_fault(name):
            raise UserError(f"{file}: the name {name[:60]!a} {fault}")
    return [os.path.normpath(name) for name in names]


def _pictures_folder(tree: Path, data: DataConfig, split: str) -> Path:
    named = ("JPEGImages", "images", ".") if data.images is None else (data.images.replace("{split}", split),)
    return _first_folder(tree, named, "data.images")


def _first_folder(tree: Path, names: Sequence[str], key: str | None = None) -> Path:
    """The first of these folders that is there."""
    for name in names:
        if is_folder(tree / name):
            return tree / name
    raise UserError(f"{tree} has no folder {' or '.join(names)}", key)
