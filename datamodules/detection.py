"""Pictures with boxes, whatever format they come in."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from datamodules.annotations import Annotations, box_notes, missing_files, usable_boxes
from datamodules.base import DataModule
from datamodules.box_report import BoxReport, report_boxes
from datamodules.check import Evidence, ItemReport, Progress, SplitReport, pixel_digest
from datamodules.collate import collate_detection, planes
from datamodules.detection_transforms import DetectionEvalTransform, DetectionTrainTransform
from datamodules.packed import PackedStrings
from datamodules.samplers import sample_rng
from datamodules.store import Shelf, Store, read_resized, read_shrunk
from datamodules.stored_picture import whole
from densevision.errors import UserError
from densevision.io import exif_orientation, read_image, stored_size
from densevision.structures import DetectionSample, DetectionTruth, LabelMap, SampleKey

_SIZES_AT_START = 1000  # pictures whose headers are read before training; check_data reads all


class DetectionDataset(Dataset[DetectionSample]):
    """The pictures of one split with their boxes.

    The boxes of a sample are what can be learnt from; :attr:`truth` is what detections are judged by.

    Args:
        folder: where the pictures lie.
        annotations: of the split.
        label_map: the classes.
        transform: for training or for evaluation.
        seed: of the experiment; a training sample follows from (seed, epoch, index) alone.
    """

    def __init__(
        self,
        folder: Path,
        annotations: Annotations,
        label_map: LabelMap,
        transform: DetectionTrainTransform | DetectionEvalTransform,
        seed: int = 0,
    ) -> None:
        self.folder, self.annotations, self.label_map = folder, annotations, label_map
        self.transform, self.seed = transform, seed
        self.stored: Shelf | None = None

    @property
    def has_labels(self) -> bool:
        """Whether the split has annotations."""
        return self.annotations.labelled

    @property
    def truth(self) -> DetectionTruth | None:
        """What detections in this split are judged by; None without annotations."""
        return self.annotations.truth(self.label_map) if self.has_labels else None

    def __len__(self) -> int:
        return len(self.annotations.files)

    def path(self, index: int) -> Path:
        """The file of a picture."""
        return self.folder / self.annotations.files[index]

    def __getitem__(self, key: SampleKey) -> DetectionSample:
        """Read and transform one picture; its file's size counts, whatever the annotations say.

        Raises:
            UserError: the file cannot be read.
        """
        image, size = read_shrunk(self.path(key.index)) if self.stored is None else self.stored[key.index]
        boxes, labels = self._usable(key.index, size)
        if image.shape[:2] != size:  # stored smaller
            boxes = boxes * np.divide(image.shape[:2], size).astype(np.float32)[[1, 0, 1, 0]]
        if isinstance(self.transform, DetectionEvalTransform):
            picture, boxes = self.transform(whole(image), boxes)
        else:
            picture, boxes, labels = self.transform(image, boxes, labels, sample_rng(self.seed, key.epoch, key.index))
        sample = DetectionSample(
            image=planes(picture),
            name=self.annotations.files[key.index],
            image_id=int(self.annotations.image_ids[key.index]),
            size=size,
        )
        if self.has_labels:
            sample["boxes"], sample["labels"] = torch.from_numpy(boxes), torch.from_numpy(labels)
        return sample

    @property
    def names(self) -> Sequence[str]:
        """Of the pictures."""
        return self.annotations.files

    def label_columns(self) -> list[np.ndarray]:
        """What the annotations say, column by column."""
        known = self.annotations
        return [known.starts, known.boxes, known.labels, known.crowd]

    def source_files(self, index: int) -> list[Path]:
        """The file of a picture."""
        return [self.path(index)]

    def subset(self, indices: np.ndarray) -> DetectionDataset:
        """Keep these pictures only; return self."""
        self.annotations = self.annotations.subset(indices)
        return self

    def use_store(self, store: Store, cache_side: int | None) -> DetectionDataset:
        """Read from ``store`` from now on, which is filled first; return self.

        Args:
            store: of the data set.
            cache_side: store training pictures shrunk to this shorter side; None as they are. Pictures for
                evaluation are stored as the model sees them.

        Raises:
            UserError: a picture cannot be read or stored.
        """
        paths = PackedStrings(os.path.join(self.folder, file) for file in self.annotations.files)
        if isinstance(self.transform, DetectionEvalTransform):
            read = partial(read_resized, size=self.transform.image_size)
            self.stored = store.build(paths, f"picture {self.transform.image_size}", read)
        else:
            self.stored = store.build(paths, f"picture {cache_side}", partial(read_shrunk, side=cache_side))
        return self

    def _usable(self, index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        own = slice(*self.annotations.starts[index : index + 2])
        boxes, keep = usable_boxes(self.annotations.boxes[own], self.annotations.crowd[own], *size)
        return boxes[keep], self.annotations.labels[own][keep]

    def require_files(self, labels: bool) -> DetectionDataset:
        """Return self if every picture is there and, where ``labels`` says so, annotated.

        Raises:
            UserError: pictures are missing (names the first and how many), or all annotations.
        """
        source = self.annotations.source
        if labels and not self.has_labels:
            raise UserError(f"{source} has pictures without annotations: nothing can be learnt or judged by it")
        missing = missing_files(self.folder, self.annotations.files)
        if missing:
            raise UserError(
                f"{self.path(missing[0])} does not exist: {len(missing)} of the {len(self)} pictures of {source} are "
                f"missing in {self.folder}"
            )
        return self

    def notes(self, at_most: int | None = None) -> Counter[str]:
        """What is to be said about the boxes, counted; none of it stops training.

        Args:
            at_most: pictures whose headers are read to compare sizes, evenly spread; None for all.
        """
        notes = Counter(self.annotations.notes)
        annotated = self.annotations.sizes
        looked_at = np.unique(np.linspace(0, len(self) - 1, min(len(self), at_most or len(self))).astype(int))
        sizes = self._sizes(looked_at)
        differing = int((annotated.all(axis=1) & (sizes != annotated).any(axis=1)).sum())
        if differing:
            what = "of another size than annotated, so the file's own is used"
            notes[f"of {len(looked_at)} pictures looked at: {what}"] = differing
        if self.has_labels:
            notes.update(box_notes(self.annotations, sizes))
        return notes

    def check(self, index: int) -> ItemReport:
        """Read one picture as it is stored; :meth:`notes` has all that needs no reading."""
        path = self.path(index)
        report = ItemReport(name=self.annotations.files[index])
        try:
            image = read_image(path)
        except UserError as error:
            report.errors.append(str(error))
            return report
        report.size, report.digest = (image.shape[0], image.shape[1]), pixel_digest(image)
        _, labels = self._usable(index, report.size)
        wrong = self._stated(index, report.size)[2]
        if wrong.any():
            report.remarks.append(f"{int(wrong.sum())} of {len(wrong)} boxes are clipped or left out")
        report.class_counts = np.bincount(labels, minlength=self.label_map.num_classes)
        if self.has_labels and not len(labels):
            report.notes.append("pictures without a box, which teach what is background")
        if exif_orientation(path) != 1:
            report.notes.append("pictures with an EXIF orientation, which is ignored: boxes must match stored pixels")
        return report

    def evidence(self, index: int) -> Evidence:
        """The picture with its boxes as stated."""
        try:
            image = read_image(self.path(index))
        except UserError:
            return Evidence(None)
        return Evidence(image, None, *self._stated(index, (image.shape[0], image.shape[1])))

    def _stated(self, index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, 4) xyxy as stated, (N,) class indices, and (N,) whether a box is clipped or left out, crowds apart."""
        own = slice(*self.annotations.starts[index : index + 2])
        stated = self.annotations.boxes[own].copy()
        stated[:, 2:] += stated[:, :2]
        boxes, keep = usable_boxes(self.annotations.boxes[own], self.annotations.crowd[own], *size)
        wrong = ~self.annotations.crowd[own] & (~keep | (np.abs(stated - boxes) > 1).any(axis=1))
        return stated, self.annotations.labels[own], wrong

    def box_report(self) -> BoxReport:
        """Sizes and numbers of the boxes that can be learnt from."""
        return report_boxes(self.annotations, self._sizes(np.arange(len(self))))

    def _sizes(self, looked_at: np.ndarray) -> np.ndarray:
        """(I, 2) int64 (height, width): as stored for the pictures that are looked at, else as annotated."""
        sizes = self.annotations.sizes.copy()
        with ThreadPoolExecutor() as threads:
            stored = threads.map(stored_size, map(self.path, looked_at.tolist()))
            for index, size in zip(looked_at.tolist(), stored, strict=True):
                sizes[index] = sizes[index] if size is None else size
        return sizes


class DetectionDataModule(DataModule):
    """What the formats with boxes share; a format reads its annotations."""

    collate = staticmethod(collate_detection)
    counted = "box"
    one_size = True

    @abstractmethod
    def read_annotations(self, split: str, training: bool) -> tuple[Path, Annotations, LabelMap]:
        """The folder of a split's pictures, its annotations and their classes; the pictures are not looked at."""

    def read_split(self, split: str, training: bool) -> DetectionDataset:
        """The pictures of a split with their boxes.

        Raises:
            UserError: the annotations cannot be read, or list other classes than an earlier split's.
        """
        if self.data.image_size is None:
            raise UserError("a detector sees all pictures at one size: set data.image_size", key="data.image_size")
        folder, annotations, label_map = self.read_annotations(split, training)
        known = getattr(self, "label_map", label_map)
        if (known.ids, known.names) != (label_map.ids, label_map.names):
            raise UserError(
                f"{annotations.source} lists other classes than the other split: {_classes(label_map)}; there "
                f"{_classes(known)}"
            )
        self.label_map = label_map
        data = self.data
        transform: DetectionTrainTransform | DetectionEvalTransform = DetectionEvalTransform(data.image_size)
        if training:
            transform = DetectionTrainTransform(
                data.image_size, data.augment, data.flip, data.vertical_flip, data.photometric
            )
        return DetectionDataset(folder, annotations, label_map, transform, self.seed)

    def early_notes(self, dataset: DetectionDataset) -> tuple[str, Counter[str]]:
        """What is to be said of the annotations."""
        return dataset.annotations.source, dataset.notes(_SIZES_AT_START)

    def check_split(self, split: str, dataset: DetectionDataset, progress: Progress | None) -> SplitReport:
        """Read every file of a split, and look at its boxes."""
        report = super().check_split(split, dataset, progress)
        report.boxes = dataset.box_report() if dataset.has_labels else None
        return report


def _classes(label_map: LabelMap) -> str:
    listed = [f"{number} {name}" for number, name in zip(label_map.ids, label_map.names, strict=True)]
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
