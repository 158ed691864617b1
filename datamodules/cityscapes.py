"""Cityscapes, in the directory tree that its archives unpack to.

``leftImg8bit/<split>/<city>/<stem>_leftImg8bit.png`` with ``gtFine/<split>/<city>/<stem>_gtFine_labelIds.png``, or
``gtCoarse`` in both places. The labels are the raw ids 0..33; nothing has to be converted first.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from datamodules.base import DataModule
from datamodules.collate import collate_segmentation
from datamodules.pairs import Pair
from datamodules.segmentation import SegmentationDataset, transform_for
from densevision.config.lookup import unknown_name
from densevision.errors import UserError
from densevision.paths import is_folder, names_in
from densevision.structures import LabelMap

ENVIRONMENT_VARIABLE = "CITYSCAPES_DATASET"  # cityscapesScripts' own
_PICTURE = "_leftImg8bit.png"
_log = logging.getLogger(__name__)

# cityscapesScripts, helpers/labels.py: the labels that are evaluated, by trainId
_CLASSES = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
CITYSCAPES = LabelMap(
    ids=tuple(number for number, _, _ in _CLASSES),
    names=tuple(name for _, name, _ in _CLASSES),
    colors=tuple(color for _, _, color in _CLASSES),
    ignored_ids=(-1, *sorted(set(range(34)) - {number for number, _, _ in _CLASSES})),
)


class CityscapesDataModule(DataModule):
    """Cityscapes below ``data.root``, or where $CITYSCAPES_DATASET says.

    ``data.annotations`` is what is trained on. Evaluation is by gtFine, as the official one is, also after training
    on gtCoarse; only where a split has no gtFine is it by gtCoarse, which is said.
    """

    label_map = CITYSCAPES
    collate = staticmethod(collate_segmentation)

    def read_split(self, split: str, training: bool) -> SegmentationDataset:
        """The pictures of a split and where their labels are to be.

        Raises:
            UserError: no data set, an unknown split or city, or no pictures.
        """
        self.root = root = find_root(self.data.root)
        annotations = self.data.annotations
        if not training and annotations == "gtCoarse":
            if is_folder(root / "gtFine" / split):
                annotations = "gtFine"
            else:
                _log.warning("%s is not there: '%s' is judged by gtCoarse", root / "gtFine" / split, split)
        cities, key = None, None
        if training:
            cities, key = self.data.train_cities, "data.train_cities"
        elif split == self.data.val_split:
            cities, key = self.data.val_cities, "data.val_cities"
        elif split == self.data.train_split:
            cities, key = self.data.train_cities, "data.train_cities"
        pairs = find_pairs(root, split, annotations, cities, key)
        return SegmentationDataset(pairs, CITYSCAPES, transform_for(self.data, training), self.seed)


def find_root(root: str | None) -> Path:
    """The folder that holds ``leftImg8bit``: ``root`` if given, else what the environment names.

    Raises:
        UserError: it is not there; says where it looked, how to get Cityscapes, and how to do without.
    """
    named = root if root is not None else os.environ.get(ENVIRONMENT_VARIABLE)
    if named is None:
        looked = f"data.root is not set, nor is the environment variable {ENVIRONMENT_VARIABLE}"
    else:
        folder = Path(named).expanduser()
        if is_folder(folder / "leftImg8bit"):
            return folder
        source = "data.root" if root is not None else ENVIRONMENT_VARIABLE
        looked = f"{source} names {folder.absolute()}, " + (
            "which has no folder leftImg8bit" if is_folder(folder) else "which does not exist"
        )
    raise UserError(
        f"no Cityscapes data set: {looked}.\n"
        "  To get it: register at https://www.cityscapes-dataset.com, download leftImg8bit_trainvaltest.zip and\n"
        "  gtFine_trainvaltest.zip, unpack both into one folder, and name it with data.root=FOLDER or\n"
        f"  export {ENVIRONMENT_VARIABLE}=FOLDER.\n"
        "  To try it without: 'make demo' draws street scenes in the same layout and trains on them.",
        key="data.root" if root is not None else None,
    )


def find_pairs(
    root: Path, split: str, annotations: str, cities: Iterable[str] | None = None, key: str | None = None
) -> list[Pair]:
    """The pictures of a split, sorted, each with the place of its label.

    Args:
        root: the folder with ``leftImg8bit``.
        split: a folder in it.
        annotations: gtFine or gtCoarse.
        cities: only these; None for all.
        key: the configuration key that named the cities.

    Raises:
        UserError: an unknown split or city, or no pictures.
    """
    pictures = root / "leftImg8bit"
    if not is_folder(pictures / split):
        raise UserError(f"{pictures}: {unknown_name('split', split, names_in(pictures, folders_only=True))}")
    there = names_in(pictures / split, folders_only=True)
    if cities is not None and not list(cities):
        raise UserError("no city is named; null takes all", key=key)
    for city in cities or ():
        if city not in there:
            raise UserError(f"{pictures / split}: {unknown_name('city', city, there)}", key)
    pairs = []
    for city in there if cities is None else sorted(set(cities)):
        labels = root / annotations / split / city
        # one listing a city: a question a file takes minutes on a network's file system
        stored = set(names_in(labels)) if is_folder(labels) else set()
        for file in names_in(pictures / split / city):
            if file.endswith(_PICTURE) and not file.startswith("."):
                stem = file.removesuffix(_PICTURE)
                label = f"{stem}_{annotations}_labelIds.png"
                image = pictures / split / city / file
                pairs.append(Pair(f"{stem}_leftImg8bit", image, labels / label, label in stored))
    if not pairs:
        raise UserError(f"no pictures in {pictures / split}: looked for CITY/*{_PICTURE}")
    return pairs
