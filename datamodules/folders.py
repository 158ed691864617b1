"""Folders of pictures with folders of masks: the simplest form of data for segmentation.

``images/train/a.jpg`` with ``masks/train/a.png``, or whatever ``data.images`` and ``data.masks`` say. Masks are PNG (or
another format without loss) and hold a class a pixel: as a value, grey or palette; or as a colour.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.base import DataModule
from datamodules.class_list import ClassList, read_classes
from datamodules.collate import collate_segmentation
from datamodules.pairs import Pair
from datamodules.segmentation import IMPOSSIBLE, LIST_ALL, SegmentationDataset, transform_for
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.io import IMAGE_SUFFIXES, read_image
from densevision.paths import is_folder, names_in

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp")
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
        pairs = find_pairs(self.root, data, split)
        return FoldersDataset(pairs, classes, transform_for(data, training), self.seed)


class FoldersDataset(SegmentationDataset):
    """Pictures with masks of values or of colours."""

    def __init__(self, pairs: list[Pair], classes: ClassList, *args: Any) -> None:
        super().__init__(pairs, classes.label_map, *args)
        self.colors = classes.colors
        if classes.colors is not None:
            self.by_color = np.full(2**24, IMPOSSIBLE, np.uint8)
            codes = _code(np.array(list(classes.colors)))
            self.by_color[codes] = self.lookup_table[list(classes.colors.values())]
            self.meaning = zlib.crc32(codes.data, self.meaning)

    def indices_as_stored(self, file: str | Path) -> np.ndarray:
        """A mask as (H, W) uint8 class indices with IGNORE_INDEX, and IMPOSSIBLE where no class is.

        Raises:
            UserError: it cannot be read.
        """
        if self.colors is None or not _holds_colors(file):
            return super().indices_as_stored(file)
        return self.by_color[_code(read_image(file).astype(np.int32))]

    def complaint(self, file: str | Path, wrong: np.ndarray) -> str:
        """The sentence about a file that holds what no class has, at the pixels ``wrong``, (H, W) bool."""
        if self.colors is None or not _holds_colors(file):
            return super().complaint(file, wrong)
        found = Counter(map(tuple, read_image(file)[wrong][:100_000].tolist())).most_common()
        named = ", ".join("({}, {}, {})".format(*color) for color, _ in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more colours" if len(found) > _SHOWN else ""
        return f"{file} holds the colours {named}{more} at {int(wrong.sum())} pixels, which no class has{LIST_ALL}"


def find_pairs(root: Path, data: DataConfig, split: str) -> list[Pair]:
    """The pictures of a split, sorted, each with the place of its mask.

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
    stored = files_by_stem(masks, MASK_SUFFIXES)
    found = {
        stem: path
        for stem, path in files_by_stem(images, IMAGE_SUFFIXES).items()
        if (not stem.endswith(data.mask_suffix) if images == masks else masks not in path.parents)
    }
    if not found:
        raise UserError(f"no pictures in {images}: looked for {', '.join(IMAGE_SUFFIXES)}")
    pairs = []
    for stem, path in sorted(found.items()):
        mask = stored.get(f"{stem}{data.mask_suffix}")
        expected = mask or masks / f"{stem}{data.mask_suffix}.png"
        pairs.append(Pair(stem.replace("/", "__"), path, expected, mask is not None))
    return pairs


def files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Place below the folder, without its suffix -> file, of all that have one of the suffixes, the first counting.

    Raises:
        UserError: two pictures have one name.
    """
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder) if is_folder(folder) else ():
        folders.sort()
        for name in sorted(names, key=lambda name: (Path(name).stem, _rank(name, suffixes))):
            path = Path(parent, name)
            if path.suffix.lower() in suffixes and not name.startswith("."):
                stem = path.relative_to(folder).with_suffix("").as_posix()
                if stem in found and suffixes is IMAGE_SUFFIXES:
                    raise UserError(f"{found[stem]} and {path} have one name: their labels cannot be told apart")
                found.setdefault(stem, path)
    return found


def _images(data: DataConfig) -> str:
    return data.images or "images/{split}"


def _rank(name: str, suffixes: tuple[str, ...]) -> int:
    suffix = Path(name).suffix.lower()
    return suffixes.index(suffix) if suffix in suffixes else len(suffixes)


def _holds_colors(file: str | Path) -> bool:
    """Whether a mask is read by colour; what cannot be read at all, the reader of values says."""
    try:
        with Image.open(file) as image:
            return image.format != "JPEG" and image.mode in ("P", "RGB", "RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _code(colors: np.ndarray) -> np.ndarray:
    return colors[..., 0] * 65536 + colors[..., 1] * 256 + colors[..., 2]
