"""Pascal VOC: an xml file of boxes a picture, and palette files of masks, in VOC's folders or those of labelling tools.

Difficult objects are what COCO calls crowds: not learnt from, and neither a hit nor a miss in evaluation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from datamodules.annotations import Annotations, numbered_annotations, pictures_only
from datamodules.base import DataModule
from datamodules.class_list import read_classes
from datamodules.collate import collate_segmentation
from datamodules.detection import DetectionDataModule
from datamodules.folders import MASK_SUFFIXES, FoldersDataset
from datamodules.pairs import Pair
from datamodules.segmentation import SegmentationDataset, transform_for
from datamodules.voc_layout import Entry, Layout, find_entries, find_root
from datamodules.voc_xml import VocObjects, read_objects
from densevision.config.lookup import suggestion
from densevision.errors import UserError
from densevision.structures import LabelMap

BOXES = Layout("Main", ("Annotations", "annotations", "."), (".xml",))
MASKS = Layout("Segmentation", ("SegmentationClassPNG", "SegmentationClass"), MASK_SUFFIXES)
_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_LABELME_CLASSES = "class_names.txt"
_SHOWN = 3


def palette_color(index: int) -> tuple[int, int, int]:
    """The colour of a class in VOC's palette (VOCcode/VOClabelcolormap.m): its bits dealt out to red, green, blue."""
    bits = [(index >> bit) & 1 for bit in range(9)]
    red, green, blue = (sum(bits[channel + 3 * k] << (7 - k) for k in range(3)) for channel in range(3))
    return red, green, blue


VOC_MASKS = LabelMap(tuple(range(21)), _NAMES, tuple(map(palette_color, range(21))))
VOC = LabelMap(VOC_MASKS.ids[1:], VOC_MASKS.names[1:], VOC_MASKS.colors[1:])


class VocDataModule(DetectionDataModule):
    """The boxes of a data set in VOC's format below ``data.root``.

    Its classes are those of ``data.classes``; else VOC's twenty if there are no others, also written as "tv/monitor";
    else all that occur, by name.
    """

    def read_annotations(self, split: str, training: bool) -> tuple[Path, Annotations, LabelMap]:
        """The data set's folder, the annotations of a split and their classes.

        Raises:
            UserError: no such folder or split, missing or broken xml files, or unknown classes.
        """
        self.root = root = find_root(self.data.root)
        entries, notes = find_entries(root, self.data, split, training, BOXES)
        files = self._read(entries)
        label_map, index_of = self._classes(files, notes)
        source = f"{root}, split '{split}'"
        if not files:
            return root, pictures_only(source, [entry.picture for entry in entries]), label_map
        return root, columns(source, entries, files, index_of, notes), label_map

    def _read(self, entries: Sequence[Entry]) -> list[VocObjects]:
        """What the xml files say, each read once; an empty list where there are none at all.

        Raises:
            UserError: some are missing or broken; names the first and how many.
        """
        missing = [entry.label for entry in entries if not entry.labelled]
        if len(missing) == len(entries):
            return []
        if missing:
            raise UserError(f"{missing[0]} does not exist ({len(missing)} of {len(entries)} pictures have no xml file)")
        self._known: dict[Path, VocObjects] = getattr(self, "_known", {})
        with ThreadPoolExecutor(16) as threads:
            read = list(threads.map(_read_or_say, (e.label for e in entries if e.label not in self._known)))
        broken = [what for _, what in read if isinstance(what, UserError)]
        if broken:
            more = f" ({len(broken)} of {len(entries)} xml files cannot be taken)" if len(broken) > 1 else ""
            raise UserError(f"{broken[0]}{more}")
        self._known |= {path: what for path, what in read if isinstance(what, VocObjects)}
        return [self._known[entry.label] for entry in entries]

    def _classes(self, files: Sequence[VocObjects], notes: Counter[str]) -> tuple[LabelMap, dict[str, int]]:
        """The classes, and the index of every name in ``files``, except of those that are ignored."""
        data = self.data
        listed: Any = data.classes
        if listed is None:
            listed = sorted({name for file in (*files, *self._configured_files()) for name in file.names})
            official = {_letters(name): index for index, name in enumerate(VOC.names)}
            others = [name for name in listed if _letters(name) not in official]
            if not others and not data.ignored_classes:
                return VOC, {name: official[_letters(name)] for name in listed}
            if len(others) < len(listed):
                named = ", ".join(others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else "")
                notes[f"class names that VOC has not ({named}), so that all names that occur are the classes"] = len(
                    others
                )
        classes = read_classes(listed, self.root, data.ignored_classes).label_map
        for name in sorted({name for file in files for name in file.names} - {*classes.names, *data.ignored_classes}):
            near = suggestion(name, classes.names)
            raise UserError(f"{self.root} has objects '{name}', which data.classes does not list{near}", "data.classes")
        # numbered from 1, as masks number them, whose 0 is the background
        label_map = LabelMap(tuple(range(1, classes.num_classes + 1)), classes.names, classes.colors)
        return label_map, {name: index for index, name in enumerate(classes.names)}

    def _configured_files(self) -> Iterator[VocObjects]:
        """Those of both splits as far as they can be read, so that both have the same classes."""
        for split, training in ((self.data.train_split, True), (self.data.val_split, False)):
            with suppress(UserError):
                yield from self._read(find_entries(self.root, self.data, split, training, BOXES)[0])


class VocMasksDataModule(DataModule):
    """The masks of a data set in VOC's format below ``data.root``: a class's number a pixel, and 255 at borders.

    Its classes are those of ``data.classes``; else those that labelme wrote into class_names.txt; else VOC's, of which
    0 is the background.
    """

    collate = staticmethod(collate_segmentation)

    def read_split(self, split: str, training: bool) -> SegmentationDataset:
        """The pictures of a split and where their masks are to be.

        Raises:
            UserError: no such folder or split, or classes that cannot be read.
        """
        data = self.data
        self.root = root = find_root(data.root)
        layout = MASKS if data.masks is None else replace(MASKS, folders=(data.masks.replace("{split}", split),))
        entries, notes = find_entries(root, data, split, training, layout)
        listed: Any = data.classes
        if listed is None:
            by_labelme = entries[0].label.parent.parent / _LABELME_CLASSES
            listed = str(by_labelme.absolute()) if by_labelme.is_file() else list(VOC_MASKS.names)
        classes = read_classes(listed, root, data.ignored_classes)
        if classes.colors is None:
            colors = tuple(map(palette_color, classes.label_map.ids))
            classes = replace(classes, label_map=replace(classes.label_map, colors=colors))
        self.label_map = classes.label_map
        pairs = [Pair(e.name.replace("/", "__"), root / e.picture, e.label, e.labelled) for e in entries]
        dataset = FoldersDataset(pairs, classes, transform_for(data, training), self.seed)
        dataset.left_out = notes
        return dataset


def columns(
    source: str, entries: Sequence[Entry], files: Sequence[VocObjects], index_of: dict[str, int], notes: Counter[str]
) -> Annotations:
    """The objects of all pictures as columns; adds to ``notes`` what is to be said about them.

    Args:
        source: for messages.
        entries, files: of the pictures, one each.
        index_of: class name -> index; objects of other names are left out.
        notes: what was found on the way.
    """
    kept = [np.array([name in index_of for name in file.names], bool) for file in files]
    boxes = np.concatenate([file.boxes[keep] for file, keep in zip(files, kept, strict=True)])
    difficult = np.concatenate([file.difficult[keep] for file, keep in zip(files, kept, strict=True)])
    labels = [index_of[name] for file in files for name in file.names if name in index_of]
    total = sum(len(file.names) for file in files)
    counted = {
        f"of {total} objects: of classes that are ignored, left out": total - len(labels),
        f"of {total} objects: difficult, so not learnt from and neither a hit nor a miss": int(difficult.sum()),
        f"of {len(files)} xml files: naming another picture than their own name does, which counts": sum(
            PurePosixPath(file.filename).stem != stem and file.filename not in ("", stem)
            for file, stem in ((file, entry.label.stem) for file, entry in zip(files, entries, strict=True))
        ),
    }
    notes.update({note: count for note, count in counted.items() if count})
    return numbered_annotations(
        source,
        [entry.picture for entry in entries],
        sizes=np.array([file.size for file in files], np.int64),
        counts=np.array([int(keep.sum()) for keep in kept]),
        boxes=boxes,
        labels=np.array(labels, np.int64),
        crowd=difficult,
        notes=notes,
        voc=True,
    )


def _read_or_say(path: Path) -> tuple[Path, VocObjects | UserError]:
    try:
        return path, read_objects(path)
    except UserError as error:
        return path, error


def _letters(name: str) -> str:
    """``tv/monitor`` and ``TV Monitor`` as ``tvmonitor``."""
    return re.sub("[^a-z]", "", name.lower())
