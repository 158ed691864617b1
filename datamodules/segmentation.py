"""Pictures with label maps, whatever folders they lie in."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from datamodules.check import Evidence, ItemReport, pixel_digest
from datamodules.collate import planes
from datamodules.pairs import Pair, Pairs
from datamodules.samplers import sample_rng
from datamodules.store import Shelf, Store, with_size
from datamodules.stored_picture import Picture, whole
from datamodules.transforms import EvalTransform, TrainTransform
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.io import exif_orientation, read_image, read_label, resize_image, resize_label
from densevision.structures import IGNORE_INDEX, LabelMap, SampleKey, SegmentationSample

IMPOSSIBLE = 254  # what an id becomes that neither a class nor ignored has

LIST_ALL = ". List all such files with tools/check_data.py"


class SegmentationDataset(Dataset[SegmentationSample]):
    """The pictures of one split.

    Args:
        pairs: the files.
        label_map: what the numbers in the label files mean; 255 in a file always means "ignore".
        transform: a TrainTransform needs labels; an EvalTransform takes what there is.
        seed: of the experiment; a training sample follows from (seed, epoch, index) alone.

    Attributes:
        meaning: differs between data sets that make different indices of one file.
        left_out: what lies beside the pictures and labels and is not read, counted and worded as notes.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        label_map: LabelMap,
        transform: TrainTransform | EvalTransform,
        seed: int = 0,
    ) -> None:
        self.pairs, self.label_map, self.transform, self.seed = Pairs(pairs), label_map, transform, seed
        self.lookup_table = np.full(256, IMPOSSIBLE, np.uint8)
        self.lookup_table[[*[i for i in label_map.ignored_ids if i >= 0], IGNORE_INDEX]] = IGNORE_INDEX
        self.lookup_table[list(label_map.ids)] = np.arange(label_map.num_classes)
        self.meaning = zlib.crc32(self.lookup_table.data)
        self.left_out: Counter[str] = Counter()
        self.stored_images: Shelf | None = None
        self.stored_labels: Shelf | None = None

    @property
    def has_labels(self) -> bool:
        """Whether any picture has its label file."""
        return bool(self.pairs.labelled.any())

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: SampleKey) -> SegmentationSample:
        """Read and transform one picture.

        Raises:
            UserError: a file cannot be read, sizes differ, or the label holds an id that cannot be.
        """
        pair = self.pairs[key.index]
        image, size = self._image(key.index)
        label: Picture | None = None
        if pair.labelled:
            label, label_size = self._label(key.index)
            _check_sizes(pair, size, label_size)
        if isinstance(self.transform, EvalTransform):
            picture, indices = self.transform(whole(image), None if label is None else whole(label))
        else:
            if label is None:
                raise _missing([pair], 1)
            picture, indices = self.transform(image, label, sample_rng(self.seed, key.epoch, key.index))
        sample = SegmentationSample(image=planes(picture), name=pair.name, size=size)
        if indices is not None:
            sample["label"] = torch.from_numpy(indices)
        return sample

    @property
    def names(self) -> Sequence[str]:
        """Of the pictures."""
        return self.pairs.names

    def label_columns(self) -> list[np.ndarray]:
        """What is known of the labels without reading them."""
        return [self.lookup_table, self.pairs.labelled]

    def source_files(self, index: int) -> list[Path]:
        """The files of a picture that are there."""
        pair = self.pairs[index]
        return [pair.image, *([pair.label] if pair.labelled else [])]

    def subset(self, indices: np.ndarray) -> SegmentationDataset:
        """Keep these pictures only; return self."""
        self.pairs = Pairs([self.pairs[index] for index in indices.tolist()])
        return self

    def use_store(self, store: Store, cache_side: int | None = None) -> SegmentationDataset:
        """Read from ``store`` from now on, which is filled first; return self.

        What is stored is what the transform would make of a whole picture: at ``image_size`` where that is set.

        Args:
            store: of the data set.
            cache_side: of no use here: labels cannot be shrunk without loss.

        Raises:
            UserError: a file cannot be read or stored.
        """
        self.stored_images = store.build(self.pairs.images, f"picture {self.transform.image_size}", self._resized_image)
        if self.pairs.labelled.all():
            variant = f"label {self.meaning:08x} {self._label_size}"
            self.stored_labels = store.build(self.pairs.labels, variant, self._resized_label)
        return self

    @property
    def _label_size(self) -> Sequence[int] | None:
        """What label maps are resized to: in evaluation they keep their size."""
        return self.transform.image_size if isinstance(self.transform, TrainTransform) else None

    def _resized_image(self, path: Path) -> tuple[np.ndarray, tuple[int, int]]:
        image, size = with_size(read_image(path))
        return (image if self.transform.image_size is None else resize_image(image, self.transform.image_size)), size

    def _resized_label(self, path: Path) -> tuple[np.ndarray, tuple[int, int]]:
        label, size = with_size(self.read_indices(path))
        return (label if self._label_size is None else resize_label(label, self._label_size)), size

    def _image(self, index: int) -> tuple[Picture, tuple[int, int]]:
        """The picture, which may be stored resized, and its own size."""
        if self.stored_images is not None:
            return self.stored_images[index]
        return with_size(read_image(self.pairs.images[index]))

    def _label(self, index: int) -> tuple[Picture, tuple[int, int]]:
        if self.stored_labels is not None:
            return self.stored_labels[index]
        return with_size(self.read_indices(self.pairs.labels[index]))

    def read_indices(self, file: str | Path) -> np.ndarray:
        """A label map as (H, W) uint8 class indices with IGNORE_INDEX.

        Raises:
            UserError: it cannot be read or holds an id that cannot be; names the file and the ids.
        """
        indices = self.indices_as_stored(file)
        if (indices == IMPOSSIBLE).any():
            raise UserError(self.complaint(file, indices == IMPOSSIBLE))
        return indices

    def indices_as_stored(self, file: str | Path) -> np.ndarray:
        """As :meth:`read_indices`, with IMPOSSIBLE where the file holds what no class has."""
        return cv2.LUT(read_label(file), self.lookup_table)

    def complaint(self, file: str | Path, wrong: np.ndarray) -> str:
        """The sentence about a file that holds what no class has, at the pixels ``wrong``, (H, W) bool."""
        found = [str(i) for i in np.unique(read_label(file)[wrong])]
        known = np.flatnonzero(self.lookup_table[:IGNORE_INDEX] != IMPOSSIBLE)
        return (
            f"{file} holds the label {'ids' if len(found) > 1 else 'id'} {', '.join(found)}; "
            f"known ids are {_ranges(known.tolist())}, and 255 is ignored{LIST_ALL}"
        )

    def require_files(self, labels: bool) -> SegmentationDataset:
        """Return self if every picture has its label file, where ``labels`` says that it needs one.

        Raises:
            UserError: some have not; names the first, the path looked for, and how many there are.
        """
        missing = [pair for pair in self.pairs if labels and not pair.labelled]
        if missing:
            raise _missing(missing, len(self))
        return self

    def class_pixel_counts(self) -> np.ndarray:
        """(K,) int64: the labelled pixels of each class in the stored label maps."""
        with ThreadPoolExecutor() as threads:
            return sum(
                threads.map(self._count, self.pairs.labels), start=np.zeros(self.label_map.num_classes, np.int64)
            )

    def _count(self, file: str) -> np.ndarray:
        counts = np.bincount(self.read_indices(file).ravel(), minlength=self.label_map.num_classes)
        return counts[: self.label_map.num_classes]

    def notes(self) -> Counter[str]:
        """What was left out; all else there is to say is about single files."""
        return Counter(self.left_out)

    def check(self, index: int) -> ItemReport:
        """Read the files of one picture as they are stored and collect all that is wrong with them."""
        pair = self.pairs[index]
        report = ItemReport(name=pair.name)
        image, label = None, None
        try:
            image = read_image(pair.image)
            report.size, report.digest = (image.shape[0], image.shape[1]), pixel_digest(image)
        except UserError as error:
            report.errors.append(str(error))
        try:
            if not pair.labelled:
                raise _missing([pair], 1)
            label = self.read_indices(pair.label)
            counts = np.bincount(label.ravel(), minlength=256)
            report.class_counts = counts[: self.label_map.num_classes]
            if counts[IGNORE_INDEX] == label.size:
                report.notes.append("label maps without a single labelled pixel")
        except UserError as error:
            report.errors.append(str(error).removesuffix(LIST_ALL))
        if image is not None and label is not None:
            try:
                _check_sizes(pair, image.shape[:2], label.shape[:2])
            except UserError as error:
                report.errors.append(str(error))
        if exif_orientation(pair.image) != 1:
            report.notes.append("pictures with an EXIF orientation, which is ignored: labels must match stored pixels")
        return report

    def evidence(self, index: int) -> Evidence:
        """The picture and its label as far as they can be read."""
        pair, image, label = self.pairs[index], None, None
        with suppress(UserError):
            image = read_image(pair.image)
        with suppress(UserError):
            label = self.indices_as_stored(pair.label)
        return Evidence(image, label, wrong=None if label is None else label == IMPOSSIBLE)


def transform_for(data: DataConfig, training: bool) -> TrainTransform | EvalTransform:
    """What the configuration makes of pictures and label maps."""
    if not training:
        return EvalTransform(data.image_size)
    return TrainTransform(
        data.image_size, data.crop_size, data.scale_range, data.scale_step, data.flip, data.photometric
    )


def _check_sizes(pair: Pair, image: tuple[int, ...], label: tuple[int, ...]) -> None:
    if image != label:
        raise UserError(
            f"{pair.image} is {image[0]}x{image[1]} and its label {pair.label} is {label[0]}x{label[1]} "
            "(height x width); they must be equal"
        )


def _missing(pairs: Sequence[Pair], total: int) -> UserError:
    count = "" if total == 1 else f" ({len(pairs)} of {total} pictures have no label)"
    return UserError(f"{pairs[0].image} has no label: looked for {pairs[0].label}{count}")


def _ranges(numbers: Sequence[int]) -> str:
    """``[0, 1, 2, 5]`` as ``0..2, 5``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)
