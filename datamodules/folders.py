"""Folders of pictures with folders of masks: the simplest form of data for segmentation.

``images/train/a.jpg`` with ``masks/train/a.png``, or whatever ``data.images`` and ``data.masks`` say. Masks are PNG (or
another format without loss) and hold a class a pixel: as a value, grey or palette; or as a colour. Where the classes
have colours, a grey mask may hold either. If all the colours are grey, its values are colours, else numbers; unless
they are none of these and all of them are of the other kind.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from datamodules.base import DataModule
from datamodules.check import ItemReport
from datamodules.class_list import ClassList, read_classes
from datamodules.collate import collate_segmentation
from datamodules.pairs import Pair
from datamodules.segmentation import IMPOSSIBLE, LIST_ALL, SegmentationDataset, transform_for
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.io import IMAGE_SUFFIXES, read_image
from densevision.paths import is_folder, names_in
from densevision.structures import IGNORE_INDEX

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp")
_COLORS, _GREYS = ("P", "RGB", "RGBA", "LA"), ("L", "1")  # Pillow's modes; of 16 bits there are no masks
_SHOWN = 5


class FoldersDataModule(DataModule):
    """Pictures and masks in folders below ``data.root``."""

    collate = staticmethod(collate_segmentation)

    def read_split(self, split: str, training: bool) -> SegmentationDataset:
        """The pictures of a split and where their masks are to be.

        Raises:
            UserError: no such folders, no pictures, or classes that cannot be read.
        """
        data = self.data
        if data.root is None:
            raise UserError("name the folder of the data set: data.root=FOLDER", "data.root")
        self.root = Path(data.root).expanduser()
        if not is_folder(self.root):
            raise UserError(f"{self.root.absolute()} is no folder", "data.root")
        if "{split}" not in _images(data) and data.val_fraction is None and data.train_split != data.val_split:
            raise UserError(
                f"'{_images(data)}' is one folder for all: put {{split}} where '{data.train_split}' and "
                f"'{data.val_split}' stand, or hold some pictures out with data.val_fraction=0.2",
                "data.images",
            )
        classes = read_classes("classes.txt" if data.classes is None else data.classes, self.root, data.ignored_classes)
        self.label_map = classes.label_map
        pairs, left_out = find_pairs(self.root, data, split)
        dataset = FoldersDataset(pairs, classes, transform_for(data, training), self.seed)
        dataset.left_out = left_out
        return dataset


class FoldersDataset(SegmentationDataset):
    """Pictures with masks of values or of colours."""

    def __init__(self, pairs: list[Pair], classes: ClassList, *args: Any) -> None:
        super().__init__(pairs, classes.label_map, *args)
        self.colors = classes.colors
        if classes.colors is not None:
            self.by_color = np.full(2**24, IMPOSSIBLE, np.uint8)
            codes = _code(np.array(list(classes.colors)))
            self.by_color[codes] = self.lookup_table[list(classes.colors.values())]
            self.by_grey = self.by_color[_code(np.arange(256).repeat(3).reshape(-1, 3))]
            if self.by_grey[IGNORE_INDEX] == IMPOSSIBLE:  # white is no class's colour
                self.by_grey[IGNORE_INDEX] = IGNORE_INDEX
            self.all_grey = all(len({*color}) == 1 for color in classes.colors)
            self.meaning = zlib.crc32(b"greys may be colours" + codes.tobytes(), self.meaning)
        self.greys: dict[int, bool] = {}  # of the grey masks that were checked: whether they hold colours

    def indices_as_stored(self, file: str | Path) -> np.ndarray:
        """A mask as (H, W) uint8 class indices with IGNORE_INDEX, and IMPOSSIBLE where no class is.

        Raises:
            UserError: it cannot be read.
        """
        return self._read(file)[0]

    def _read(self, file: str | Path) -> tuple[np.ndarray, bool]:
        """As :meth:`indices_as_stored`, and whether the values are colours."""
        mode = None if self.colors is None else _mode(file)
        if mode in _COLORS:
            return self.by_color[_code(read_image(file).astype(np.int32))], True
        if mode not in _GREYS:
            return super().indices_as_stored(file), False
        readings = []
        for as_color in (self.all_grey, not self.all_grey):
            # of 1, 2 and 4 bits the numbers are as stored, and the greys those that are seen
            indices = (
                cv2.LUT(np.ascontiguousarray(read_image(file)[..., 0]), self.by_grey)
                if as_color
                else super().indices_as_stored(file)
            )
            readings.append((indices, as_color))
            if not (indices == IMPOSSIBLE).any():
                return readings[-1]
        return readings[0]

    def check(self, index: int) -> ItemReport:
        """Read the files of one picture, and remember how a grey mask was taken."""
        report, file = super().check(index), self.pairs.labels[index]
        if self.colors is not None and self.pairs.labelled[index] and _mode(file) in _GREYS:
            with suppress(UserError):
                self.greys[index] = self._read(file)[1]
        return report

    def notes(self) -> Counter[str]:
        """What was left out, and how the grey masks that were checked were taken."""
        words = {
            True: "whose values are the classes' colours",
            False: "whose values are numbers of classes, not colours",
        }
        return super().notes() + Counter(f"grey masks, {words[as_color]}" for as_color in self.greys.values())

    def complaint(self, file: str | Path, wrong: np.ndarray) -> str:
        """The sentence about a file that holds what no class has, at the pixels ``wrong``, (H, W) bool."""
        if self.colors is None or not self._read(file)[1]:
            return super().complaint(file, wrong)
        found = Counter(map(tuple, read_image(file)[wrong][:100_000].tolist())).most_common()
        named = ", ".join("({}, {}, {})".format(*color) for color, _ in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more colours" if len(found) > _SHOWN else ""
        return f"{file} holds the colours {named}{more} at {int(wrong.sum())} pixels, which no class has{LIST_ALL}"


def find_pairs(root: Path, data: DataConfig, split: str) -> tuple[list[Pair], Counter[str]]:
    """The pictures of a split, sorted, each with the place of its mask; and what is left out, counted.

    Raises:
        UserError: no such folder, no pictures in it, or two pictures of one name.
    """
    images = root / _images(data).replace("{split}", split)
    masks = root / (data.masks or "masks/{split}").replace("{split}", split)
    if not is_folder(images):
        beside = names_in(images.parent) if is_folder(images.parent) else []
        raise UserError(f"no folder {images} for split '{split}' (data.images); there are {', '.join(beside[:20])}")
    if images == masks and not data.mask_suffix:
        raise UserError(f"pictures and masks are both in {images}: tell masks by data.mask_suffix", "data.mask_suffix")
    files = [file for file in files_below(images) if images == masks or masks not in file.parents]
    mask_files = [file for file in files_below(masks) if masks not in images.parents or images not in file.parents]
    stored = by_stem(masks, mask_files, MASK_SUFFIXES)
    found = {
        stem: path
        for stem, path in by_stem(images, files, IMAGE_SUFFIXES).items()
        if images != masks or not stem.endswith(data.mask_suffix)
    }
    if not found:
        raise UserError(f"no pictures in {images}: looked for {', '.join(IMAGE_SUFFIXES)}")
    pairs = []
    for stem, path in sorted(found.items()):
        mask = stored.get(f"{stem}{data.mask_suffix}")
        expected = mask or masks / f"{stem}{data.mask_suffix}.png"
        pairs.append(Pair(stem.replace("/", "__"), path, expected, mask is not None))
    notes = unknown_files(images, files)
    own = {stem: path for stem, path in stored.items() if stem.endswith(data.mask_suffix)}
    alone = own.keys() - {f"{stem}{data.mask_suffix}" for stem in found}
    shared = "{split}" in _images(data) and "{split}" not in (data.masks or "{split}")  # with the other split
    if alone and not shared:
        notes[
            f"of {len(own)} masks in {masks}: without a picture, left out ({such_as(own[s] for s in sorted(alone))})"
        ] = len(alone)
    chosen = {*stored.values()}
    second = [file for file in mask_files if file.suffix.lower() in MASK_SUFFIXES and file not in chosen]
    if second:
        notes[f"masks in {masks}: of one name with another, left out ({such_as(second)})"] = len(second)
    return pairs, notes


def files_below(folder: Path) -> list[Path]:
    """All files, folder by folder, but for hidden ones; none where there is no folder."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder) if is_folder(folder) else ():
        folders.sort()
        found += [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
    return found


def by_stem(folder: Path, files: Sequence[Path], suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Place below the folder, without its suffix -> file, of all that have one of the suffixes, the first counting.

    Raises:
        UserError: two pictures have one name.
    """
    found: dict[str, Path] = {}
    known = [file for file in files if file.suffix.lower() in suffixes]
    for path in sorted(known, key=lambda file: suffixes.index(file.suffix.lower())):
        stem = _stem(folder, path)
        if stem in found and suffixes is IMAGE_SUFFIXES:
            raise UserError(f"{found[stem]} and {path} have one name: their labels cannot be told apart")
        found.setdefault(stem, path)
    return found


def unknown_files(folder: Path, files: Sequence[Path]) -> Counter[str]:
    """The note, if any, about files of a folder of pictures that are none by their suffixes."""
    others = [file for file in files if file.suffix.lower() not in IMAGE_SUFFIXES]
    if not others:
        return Counter()
    return Counter(
        {f"of {len(files)} files in {folder}: no pictures by name, left out ({such_as(others)})": len(others)}
    )


def such_as(files: Iterable[Path]) -> str:
    """The name of the first file, and that there are more."""
    names = [file.name for file in files]
    return ascii(names[0][:60])[1:-1] + (", ..." if len(names) > 1 else "")


def _images(data: DataConfig) -> str:
    return data.images or "images/{split}"


def _stem(folder: Path, file: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _mode(file: str | Path) -> str | None:
    """Pillow's word for what a mask holds; None of a JPEG and of what cannot be read: the reader of numbers says it."""
    try:
        with Image.open(file) as image:
            return None if image.format == "JPEG" else image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _code(colors: np.ndarray) -> np.ndarray:
    return colors[..., 0] * 65536 + colors[..., 1] * 256 + colors[..., 2]
