"""Pictures with label maps, whatever folders they lie in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from datamodules.check import ItemReport
from datamodules.samplers import sample_rng
from datamodules.transforms import EvalTransform, TrainTransform
from densevision.errors import UserError
from densevision.io import exif_orientation, read_image, read_label
from densevision.structures import IGNORE_INDEX, LabelMap, SampleKey, SegmentationSample

_IMPOSSIBLE = 254  # what an id becomes that neither a class nor ignored has

_LIST_ALL = ". List all such files with tools/check_data.py"


@dataclass(frozen=True)
class Pair:
    """A picture and where its label map is to be. name: unique in the split. labelled: the label file is there."""

    name: str
    image: Path
    label: Path
    labelled: bool


class SegmentationDataset(Dataset[SegmentationSample]):
    """The pictures of one split.

    Args:
        pairs: the files.
        label_map: what the numbers in the label files mean; 255 in a file always means "ignore".
        transform: a TrainTransform needs labels; an EvalTransform takes what there is.
        seed: of the experiment; a training sample follows from (seed, epoch, index) alone.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        label_map: LabelMap,
        transform: TrainTransform | EvalTransform,
        seed: int = 0,
    ) -> None:
        self.pairs, self.label_map, self.transform, self.seed = list(pairs), label_map, transform, seed
        self.lookup_table = np.full(256, _IMPOSSIBLE, np.uint8)
        self.lookup_table[[*[i for i in label_map.ignored_ids if i >= 0], IGNORE_INDEX]] = IGNORE_INDEX
        self.lookup_table[list(label_map.ids)] = np.arange(label_map.num_classes)

    @property
    def has_labels(self) -> bool:
        """Whether any picture has its label file."""
        return any(pair.labelled for pair in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: SampleKey) -> SegmentationSample:
        """Read and transform one picture.

        Raises:
            UserError: a file cannot be read, sizes differ, or the label holds an id that cannot be.
        """
        pair = self.pairs[key.index]
        image = read_image(pair.image)
        size = (image.shape[0], image.shape[1])
        label: np.ndarray | None = None
        if pair.labelled:
            label = self.read_indices(pair)
            _check_sizes(pair, image, label)
        if isinstance(self.transform, EvalTransform):
            image, label = self.transform(image, label)
        else:
            if label is None:
                raise _missing([pair], 1)
            image, label = self.transform(image, label, sample_rng(self.seed, key.epoch, key.index))
        sample = SegmentationSample(image=torch.from_numpy(image).permute(2, 0, 1), name=pair.name, size=size)
        if label is not None:
            sample["label"] = torch.from_numpy(label)
        return sample

    def read_indices(self, pair: Pair) -> np.ndarray:
        """The label map of a picture as (H, W) uint8 class indices with IGNORE_INDEX.

        Raises:
            UserError: it cannot be read or holds an id that cannot be; names the file and the ids.
        """
        raw = read_label(pair.label)
        indices = cv2.LUT(raw, self.lookup_table)
        if (indices == _IMPOSSIBLE).any():
            found = np.flatnonzero(np.bincount(raw.ravel(), minlength=256))
            wrong = [str(i) for i in found if self.lookup_table[i] == _IMPOSSIBLE]
            known = np.flatnonzero(self.lookup_table[:IGNORE_INDEX] != _IMPOSSIBLE)
            raise UserError(
                f"{pair.label} holds the label {'ids' if len(wrong) > 1 else 'id'} {', '.join(wrong)}; "
                f"known ids are {_ranges(known.tolist())}, and 255 is ignored{_LIST_ALL}"
            )
        return indices

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
            return sum(threads.map(self._count, self.pairs), start=np.zeros(self.label_map.num_classes, np.int64))

    def _count(self, pair: Pair) -> np.ndarray:
        counts = np.bincount(self.read_indices(pair).ravel(), minlength=self.label_map.num_classes)
        return counts[: self.label_map.num_classes]

    def notes(self) -> Counter[str]:
        """Nothing: all there is to say is about single files."""
        return Counter()

    def check(self, index: int) -> ItemReport:
        """Read the files of one picture as they are stored and collect all that is wrong with them."""
        pair = self.pairs[index]
        report = ItemReport(name=pair.name)
        image, label = None, None
        try:
            image = read_image(pair.image)
            report.size = (image.shape[0], image.shape[1])
        except UserError as error:
            report.errors.append(str(error))
        try:
            if not pair.labelled:
                raise _missing([pair], 1)
            label = self.read_indices(pair)
            counts = np.bincount(label.ravel(), minlength=256)
            report.class_counts = counts[: self.label_map.num_classes]
            if counts[IGNORE_INDEX] == label.size:
                report.notes.append("label maps without a single labelled pixel")
        except UserError as error:
            report.errors.append(str(error).removesuffix(_LIST_ALL))
        if image is not None and label is not None:
            try:
                _check_sizes(pair, image, label)
            except UserError as error:
                report.errors.append(str(error))
        if exif_orientation(pair.image) != 1:
            report.notes.append("pictures with an EXIF orientation, which is ignored: labels must match stored pixels")
        return report


def _check_sizes(pair: Pair, image: np.ndarray, label: np.ndarray) -> None:
    if image.shape[:2] != label.shape:
        raise UserError(
            f"{pair.image} is {image.shape[0]}x{image.shape[1]} and its label {pair.label} is "
            f"{label.shape[0]}x{label.shape[1]} (height x width); they must be equal"
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
