"""What travels between the parts: batches, targets, and the names of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
from torch import Tensor

from densevision.errors import UserError

IGNORE_INDEX = 255


@dataclass(frozen=True)
class SampleKey:
    """What a sampler asks a dataset for; a sample depends on (seed, epoch, index) and nothing else."""

    epoch: int
    index: int


class ClassificationSample(TypedDict):
    """One picture of one class.

    image: (3, H, W) uint8, RGB. label: class index. name: the picture's path below the data set's folder. size: the
    stored picture's (height, width).
    """

    image: Tensor
    label: int
    name: str
    size: tuple[int, int]


class ClassificationBatch(TypedDict):
    """images: (B, 3, H, W) uint8. labels: (B,) int64. names, sizes: B entries as in ClassificationSample."""

    images: Tensor
    labels: Tensor
    names: list[str]
    sizes: list[tuple[int, int]]


class SegmentationSample(TypedDict):
    """One picture with its labels.

    image: (3, H, W) uint8, RGB. label: (h, w) uint8 class indices, IGNORE_INDEX where nothing is said; absent
    for a split without labels. In training h, w = H, W; in evaluation the label keeps its full resolution.
    name: stem of the picture's file, unique in its split. size: the stored picture's (height, width).
    """

    image: Tensor
    label: NotRequired[Tensor]
    name: str
    size: tuple[int, int]


class SegmentationBatch(TypedDict):
    """images: (B, 3, H, W) uint8. labels: (B, h, w) uint8. names, sizes: B entries as in SegmentationSample."""

    images: Tensor
    labels: NotRequired[Tensor]
    names: list[str]
    sizes: list[tuple[int, int]]


class DetectionSample(TypedDict):
    """One picture with its boxes.

    image: (3, H, W) uint8, RGB. boxes: (N, 4) float32 xyxy in pixels of that image; N may be 0. labels: (N,) int64
    class indices 0..num_classes-1; a background is never counted. Crowds are no training targets. Both are absent for
    a split without annotations. name: the picture's file name, unique in its split. image_id: the data set's own
    number of the picture. size: the stored picture's (height, width).
    """

    image: Tensor
    boxes: NotRequired[Tensor]
    labels: NotRequired[Tensor]
    name: str
    image_id: int
    size: tuple[int, int]


class DetectionBatch(TypedDict):
    """images: (B, 3, H, W) uint8; all pictures are resized to one size, their aspect not kept.

    boxes, labels, names, image_ids, sizes: B entries as in DetectionSample.
    """

    images: Tensor
    boxes: NotRequired[list[Tensor]]
    labels: NotRequired[list[Tensor]]
    names: list[str]
    image_ids: list[int]
    sizes: list[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class DetectionTruth:
    """What the detections in a split are judged by: the N annotations as columns, as the data set's file has them.

    image_ids: (I,) int64, all pictures of the split, also those without an annotation. box_image_ids, category_ids,
    annotation_ids: (N,) int64, the data set's own numbers. boxes: (N, 4) float64 xywh in stored pixels, not clipped.
    areas: (N,) float64 pixels, of the object's outline where the file says it. crowd: (N,) bool. voc: VOC's own figures
    are wanted, too; its difficult objects are the crowds.
    """

    image_ids: np.ndarray
    box_image_ids: np.ndarray
    category_ids: np.ndarray
    annotation_ids: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    voc: bool = False


@dataclass(frozen=True)
class LabelMap:
    """The classes of a data set: dataset id <-> index 0..num_classes-1 <-> name <-> colour.

    ids: the id that the data set's files use, by index. names, colors: likewise; colours are RGB 0..255.
    ignored_ids: ids that may stand in label files and mean IGNORE_INDEX.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignored_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.names) == len(self.colors):
            raise ValueError("a LabelMap needs one id, one name and one colour a class")
        for name in self.names:
            if not name.isascii() and name != name.encode("utf-8", "ignore").decode():
                raise UserError(f"the class name {name!a} holds half a character, which no file can: name it anew")

    @property
    def num_classes(self) -> int:
        """Number of classes; never counts a background."""
        return len(self.ids)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for checkpoints and json."""
        return {
            "ids": list(self.ids),
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "ignored_ids": list(self.ignored_ids),
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> LabelMap:
        """The inverse of :meth:`to_dict`."""
        return cls(
            ids=tuple(stored["ids"]),
            names=tuple(stored["names"]),
            colors=tuple((int(r), int(g), int(b)) for r, g, b in stored["colors"]),
            ignored_ids=tuple(stored["ignored_ids"]),
        )
