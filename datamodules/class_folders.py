"""Pictures in a folder a class, as ImageNet unpacks: ``<root>/<split>/<class>/<picture>``."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import Dataset

from datamodules.annotations import distinct_colors
from datamodules.base import DataModule
from datamodules.check import Evidence, ItemReport, pixel_digest
from datamodules.collate import collate_classification, planes
from datamodules.folders import files_below, such_as
from datamodules.packed import PackedStrings
from datamodules.samplers import sample_rng
from datamodules.store import Shelf, Store, read_shrunk
from datamodules.stored_picture import whole
from densevision.config.lookup import unknown_name
from densevision.errors import UserError
from densevision.io import IMAGE_SUFFIXES, exif_orientation, list_images, read_image, resize_image, resize_middle
from densevision.paths import is_folder, names_in
from densevision.structures import ClassificationSample, LabelMap, SampleKey

_LOG_ASPECT = math.log(4 / 3)  # greatest, of width by height of a random crop (Inception's, torchvision's, timm's)
_TRIALS = 10  # crops drawn until one lies in the picture


class TrainCrop:
    """A random part of the picture at ``image_size``, perhaps mirrored.

    Args:
        image_size: (height, width).
        area: smallest and greatest share of the picture's area.
        flip: probability of a mirrored picture.
    """

    def __init__(self, image_size: Sequence[int], area: Sequence[float], flip: float) -> None:
        self.image_size, self.area, self.flip = image_size, area, flip

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(H, W, 3) uint8 -> (*image_size, 3)."""
        top, left, height, width = self._window(image.shape[0], image.shape[1], rng)
        image = resize_image(image[top : top + height, left : left + width], self.image_size)
        return cv2.flip(image, 1) if rng.random() < self.flip else image

    def _window(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        for _ in range(_TRIALS):
            area = height * width * rng.uniform(self.area[0], self.area[1])
            aspect = math.exp(rng.uniform(-_LOG_ASPECT, _LOG_ASPECT))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side


class EvalCrop:
    """The middle of the picture at ``image_size``; the crop's shorter side is ``share`` of the picture's."""

    def __init__(self, image_size: Sequence[int], share: float) -> None:
        self.image_size, self.share = image_size, share

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (*image_size, 3)."""
        return resize_middle(image, self.image_size, self.share)


class ClassFolderDataset(Dataset[ClassificationSample]):
    """The pictures of one split.

    Args:
        root: of the data set; the pictures are named by their path below it.
        files: the pictures. labels: their class indices.
        label_map: the classes.
        transform: for training or for evaluation.
        seed: of the experiment; a training sample follows from (seed, epoch, index) alone.
    """

    has_labels = True

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        labels: Sequence[int],
        label_map: LabelMap,
        transform: TrainCrop | EvalCrop,
        seed: int = 0,
    ) -> None:
        self.root, self.label_map, self.transform, self.seed = root, label_map, transform, seed
        self.files, self.labels = PackedStrings(map(str, files)), np.array(labels, np.int64)
        self.left_out: Counter[str] = Counter()
        self.stored: Shelf | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: SampleKey) -> ClassificationSample:
        """Read and transform one picture.

        Raises:
            UserError: the file cannot be read.
        """
        file = self.files[key.index]
        image = read_image(file) if self.stored is None else whole(self.stored[key.index][0])
        if isinstance(self.transform, TrainCrop):
            picture = self.transform(image, sample_rng(self.seed, key.epoch, key.index))
        else:
            picture = self.transform(image)
        return ClassificationSample(
            image=planes(picture),
            label=int(self.labels[key.index]),
            name=str(Path(file).relative_to(self.root)),
            size=(image.shape[0], image.shape[1]),
        )

    @property
    def names(self) -> list[str]:
        """Of the pictures, in their order: the paths below the data set's folder."""
        return [str(Path(file).relative_to(self.root)) for file in self.files]

    def label_columns(self) -> list[np.ndarray]:
        """The class of every picture."""
        return [self.labels]

    def source_files(self, index: int) -> list[Path]:
        """The file of a picture."""
        return [Path(self.files[index])]

    def subset(self, indices: np.ndarray) -> ClassFolderDataset:
        """Keep these pictures only; return self."""
        self.files = PackedStrings([self.files[index] for index in indices.tolist()])
        self.labels = self.labels[indices]
        return self

    def require_files(self, labels: bool) -> ClassFolderDataset:
        """Return self: a picture's folder is its label."""
        return self

    def use_store(self, store: Store, cache_side: int | None = None) -> ClassFolderDataset:
        """Read from ``store`` from now on, which is filled first with the whole pictures; return self."""
        self.stored = store.build(self.files, "picture", read_shrunk)
        return self

    def notes(self) -> Counter[str]:
        """What was left out, and the classes without a picture."""
        empty = np.bincount(self.labels, minlength=self.label_map.num_classes) == 0
        return self.left_out + Counter({"classes without a picture": int(empty.sum())})

    def check(self, index: int) -> ItemReport:
        """Read one picture as it is stored and collect all that is wrong with it."""
        file = self.files[index]
        report = ItemReport(name=str(Path(file).relative_to(self.root)))
        report.class_counts = np.bincount(self.labels[index : index + 1], minlength=self.label_map.num_classes)
        try:
            image, report.size = read_shrunk(Path(file))
            report.digest = pixel_digest(image)
        except UserError as error:
            report.errors.append(str(error))
        if exif_orientation(file) != 1:
            report.notes.append("pictures with an EXIF orientation, which is ignored")
        return report

    def evidence(self, index: int) -> Evidence:
        """The picture, if it can be read."""
        with suppress(UserError):
            return Evidence(read_image(self.files[index]))
        return Evidence(None)


class ClassFoldersDataModule(DataModule):
    """Class folders below ``data.root``. The classes are the folders of the training split, sorted by name."""

    collate = staticmethod(collate_classification)
    counted = None  # the split itself says it
    one_size = True
    num_classes: int | None = None  # of a format that always has as many

    def read_split(self, split: str, training: bool) -> ClassFolderDataset:
        """The pictures of a split.

        Raises:
            UserError: no data set, an unknown split, no pictures, or a folder that is no class.
        """
        data = self.data
        if data.root is None:
            raise UserError("say where the folders of the splits are", key="data.root")
        if data.image_size is None:
            raise UserError("classification needs one size for all pictures", key="data.image_size")
        self.root = root = Path(data.root).expanduser()
        names = _folders(root, data.train_split) if is_folder(root / data.train_split) else _folders(root, split)
        if self.num_classes not in (None, len(names)):
            raise UserError(f"{root / data.train_split} has {len(names)} class folders, not {self.num_classes}")
        count = len(names)
        self.label_map = LabelMap(ids=tuple(range(count)), names=tuple(names), colors=distinct_colors(count))
        files: list[Path] = []
        labels: list[int] = []
        for name in _folders(root, split):
            if name not in names:
                raise UserError(f"{root / split}: {unknown_name('class', name, names)}")
            found = list_images([root / split / name])
            files += found
            labels += [names.index(name)] * len(found)
        if not files:
            raise UserError(f"no pictures in {root / split}: looked for CLASS/PICTURE")
        transform = (
            TrainCrop(data.image_size, data.crop_area, data.flip)
            if training
            else EvalCrop(data.image_size, data.eval_crop)
        )
        dataset = ClassFolderDataset(root, files, labels, self.label_map, transform, self.seed)
        dataset.left_out = _left_out(root / split)
        return dataset


class ImageNetDataModule(ClassFoldersDataModule):
    """ImageNet's 1000 classes of ILSVRC 2012 as class folders, the validation pictures sorted into theirs too."""

    num_classes = 1000


def _left_out(folder: Path) -> Counter[str]:
    """What of a split's folder is not read, counted."""
    classes = [folder / name for name in _folders(folder.parent, folder.name)]
    beside = [folder / name for name in names_in(folder) if not name.startswith(".")]
    loose = [path for path in beside if path not in classes]
    unknown: list[Path] = []
    deeper: list[Path] = []
    for place in classes:
        for name in names_in(place):
            path = place / name
            if name[0] == "." or os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                continue
            if is_folder(path):
                deeper += files_below(path)
            else:
                unknown.append(path)
    kinds = {
        "no pictures by name, left out": unknown,
        "in folders within class folders, left out": deeper,
        "beside the class folders, left out": loose,
    }
    return Counter(
        {f"files in {folder}: {what} ({such_as(files)})": len(files) for what, files in kinds.items() if files}
    )


def _folders(root: Path, split: str) -> list[str]:
    folder = root / split
    if not is_folder(folder):
        known = names_in(root, folders_only=True) if is_folder(root) else []
        raise UserError(
            f"{folder} is no folder" + (f"; {root} has {', '.join(known[:8])}" if known else ""), "data.root"
        )
    return [name for name in names_in(folder, folders_only=True) if not name.startswith(".")]
