"""COCO: a folder of pictures and a json file of annotations for each split.

Any file of that shape will do, whoever made it: ``area`` and ``iscrowd`` may be absent, ids may have gaps. What cannot
be meant is an error that names it; what can be left out is left out, counted and said.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from datamodules.annotations import Annotations, pictures_only
from datamodules.coco_json import read_coco
from datamodules.detection import DetectionDataModule
from densevision.config.lookup import unknown_name
from densevision.errors import UserError
from densevision.io import list_images
from densevision.paths import is_file, is_folder, is_there
from densevision.structures import LabelMap

ENVIRONMENT_VARIABLE = "COCO_DATASET"


class CocoDataModule(DetectionDataModule):
    """COCO's layout below ``data.root``, or where $COCO_DATASET says.

    ``data.train_split`` and ``data.val_split`` are the pictures and annotations that the keys name; any other split S
    is the folder S with ``annotations/instances_S.json`` or, without annotations, ``annotations/image_info_S.json``.
    """

    def read_annotations(self, split: str, training: bool) -> tuple[Path, Annotations, LabelMap]:
        """The folder of a split's pictures, its annotations and their classes; the pictures are not looked at.

        Raises:
            UserError: no data set, an unknown split, or a file that does not hold what it has to.
        """
        data = self.data
        self.root = root = find_root(data.root)
        annotations: str | None
        if split == data.train_split:
            images, annotations = data.train_images, data.train_annotations
        elif split == data.val_split:
            images, annotations = data.val_images, data.val_annotations
        else:
            images, annotations = _other_split(root, split, (data.train_split, data.val_split))
        folder = root / images
        if annotations is not None:
            return folder, *read_coco(root / annotations)
        label_map = read_coco(root / data.train_annotations)[1]
        return folder, _pictures_only(folder), label_map


def find_root(root: str | None) -> Path:
    """The folder of the data set: ``root`` if given, else what the environment names.

    Raises:
        UserError: it is not there; says where it looked, how to get COCO, and how to do without.
    """
    named = root if root is not None else os.environ.get(ENVIRONMENT_VARIABLE)
    if named is None:
        looked = f"data.root is not set, nor is the environment variable {ENVIRONMENT_VARIABLE}"
    else:
        folder = Path(named).expanduser()
        if is_folder(folder):
            return folder
        looked = f"{'data.root' if root is not None else ENVIRONMENT_VARIABLE} names {folder.absolute()}, "
        looked += "which is no folder" if is_there(folder) else "which does not exist"
    raise UserError(
        f"no COCO data set: {looked}.\n"
        "  To get it: download train2017.zip, val2017.zip and annotations_trainval2017.zip from\n"
        "  https://cocodataset.org/#download, unpack them into one folder, and name it with data.root=FOLDER or\n"
        f"  export {ENVIRONMENT_VARIABLE}=FOLDER. Data of your own in COCO's format: name its folders and files with\n"
        "  data.train_images, data.train_annotations, data.val_images and data.val_annotations.\n"
        "  To try it without: 'make demo TASK=detection' draws scenes in the same layout and trains on them.",
        key="data.root" if root is not None else None,
    )


def _pictures_only(folder: Path) -> Annotations:
    """The pictures of a folder without annotations; a file named by a number has that for its id, as in COCO."""
    if not is_folder(folder):
        raise UserError(f"{folder} is no folder of pictures (see data.root and data.*_images)")
    files = [file.name for file in list_images([folder])]
    stems = [file.rpartition(".")[0] for file in files]
    numbered = all(stem.isascii() and stem.isdigit() and len(stem) < 19 for stem in stems)
    ids = list(map(int, stems)) if numbered and len(set(map(int, stems))) == len(stems) else range(1, len(files) + 1)
    return pictures_only(str(folder), files, np.array(ids, np.int64))


def _other_split(root: Path, split: str, configured: tuple[str, str]) -> tuple[str, str]:
    folder = root / "annotations"
    for prefix in ("instances", "image_info"):
        if is_file(folder / f"{prefix}_{split}.json"):
            return split, f"annotations/{prefix}_{split}.json"
    there = [file.stem.removeprefix("instances_").removeprefix("image_info_") for file in folder.glob("*_*.json")]
    raise UserError(f"{folder}: {unknown_name('split', split, {*configured, *there})}")
