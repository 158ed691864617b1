"""What annotations say, whatever format they came in: packed columns, and one rule for what is wrong with boxes."""

from __future__ import annotations

import colorsys
import os
import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.packed import PackedStrings
from densevision.structures import DetectionTruth, LabelMap

MIN_SIDE = 0.999  # pixels; a box of one pixel is one, also after rounding
_FIRST = 3  # annotations that a note names


@dataclass(frozen=True, eq=False)
class Annotations:
    """What a split's annotations say, as columns: I pictures, and N boxes in the order of their pictures.

    source: where they come from, for messages. files: I names below the folder of pictures. image_ids: (I,) int64.
    sizes: (I, 2) int64 (height, width) as annotated, 0 where nothing is said. starts: (I + 1,) int64, where each
    picture's boxes begin. boxes: (N, 4) float64 xywh pixels as annotated. labels: (N,) int64 class indices. areas: (N,)
    float64. crowd: (N,) bool. annotation_ids: (N,) int64. notes: what was found wrong on the way, counted.
    labelled: false where the source has pictures only. own_ids: the ids are the source's, and not just numbers.
    voc: the format is VOC's, whose difficult objects stand as crowds and whose own figures are wanted, too.
    """

    source: str
    files: PackedStrings
    image_ids: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    annotation_ids: np.ndarray
    notes: Counter[str]
    labelled: bool = True
    own_ids: bool = True
    voc: bool = False

    def subset(self, indices: np.ndarray) -> Annotations:
        """Those of some pictures, in the order of ``indices``."""
        counts = np.diff(self.starts)[indices]
        starts = np.concatenate([[0], np.cumsum(counts)])
        rows = np.arange(starts[-1]) + np.repeat(self.starts[indices] - starts[:-1], counts)
        pictures = {name: getattr(self, name)[indices] for name in ("image_ids", "sizes")}
        boxes = {name: getattr(self, name)[rows] for name in ("boxes", "labels", "areas", "crowd", "annotation_ids")}
        files = PackedStrings(self.files[index] for index in indices.tolist())
        return replace(self, files=files, starts=starts, **pictures, **boxes)

    def truth(self, label_map: LabelMap) -> DetectionTruth:
        """The columns that detections are judged by; nothing is left out or clipped, as in COCO's evaluation."""
        return DetectionTruth(
            image_ids=self.image_ids,
            box_image_ids=np.repeat(self.image_ids, np.diff(self.starts)),
            category_ids=np.asarray(label_map.ids)[self.labels],
            annotation_ids=self.annotation_ids,
            boxes=self.boxes,
            areas=self.areas,
            crowd=self.crowd,
            voc=self.voc,
        )


def numbered_annotations(
    source: str,
    files: Sequence[str],
    sizes: np.ndarray,
    counts: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    notes: Counter[str],
    crowd: np.ndarray | None = None,
    voc: bool = False,
) -> Annotations:
    """Annotations of a format that numbers neither pictures nor boxes: both are counted from 1.

    Args:
        counts: (I,) boxes of each picture. Others: as of :class:`Annotations`.
    """
    return Annotations(
        source=source,
        files=PackedStrings(files),
        image_ids=np.arange(1, len(files) + 1),
        sizes=sizes.astype(np.int64),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes,
        labels=labels.astype(np.int64),
        areas=np.maximum(boxes[:, 2], 0) * np.maximum(boxes[:, 3], 0),
        crowd=np.zeros(len(boxes), bool) if crowd is None else crowd,
        annotation_ids=np.arange(1, len(boxes) + 1),
        notes=notes,
        own_ids=False,
        voc=voc,
    )


def pictures_only(source: str, files: Sequence[str], image_ids: np.ndarray | None = None) -> Annotations:
    """Pictures without annotations, counted from 1 where they have no ids."""
    nothing, size = np.zeros(len(files), np.int64), np.zeros((len(files), 2))
    none = numbered_annotations(source, files, size, nothing, np.zeros((0, 4)), nothing[:0], Counter())
    return replace(none, image_ids=none.image_ids if image_ids is None else image_ids, labelled=False)


def name_fault(file: str) -> str:
    """Why ``file`` is no name of a file below a folder; "" where it is one."""
    if posixpath.isabs(file) or posixpath.normpath(file).split("/")[0] == "..":
        return "leads out of the folder of pictures"
    try:
        possible = file.strip("./") != "" and file[-1] != "/" and b"\0" not in file.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        possible = False
    return "" if possible else "is one that no file can have"


def missing_files(folder: Path, files: Sequence[str]) -> list[int]:
    """Indices of the files that are not there.

    One listing a folder: on a network's file system, a question a file takes minutes.
    """
    listed: dict[str, set[str]] = {}
    missing = []
    for index, file in enumerate(files):
        parent, name = os.path.split(file)
        if parent not in listed:
            try:
                listed[parent] = set(os.listdir(folder / parent))
            except (OSError, ValueError):  # ValueError: a name that no file can have
                listed[parent] = set()
        if name not in listed[parent]:
            missing.append(index)
    return missing


def usable_boxes(boxes: np.ndarray, crowd: np.ndarray, height: Any, width: Any) -> tuple[np.ndarray, np.ndarray]:
    """What can be learnt from: boxes clipped to their pictures, and which of them are left.

    Args:
        boxes: (N, 4) float64 xywh pixels.
        crowd: (N,) bool; a crowd is no single object.
        height, width: of the picture, or (N,) of each box's.

    Returns:
        (N, 4) float32 xyxy inside the picture, and (N,) bool: no crowd, and at least a pixel wide and high before and
        after clipping.
    """
    sides, corners = boxes[:, 2:], boxes.copy()
    corners[:, 2:] += corners[:, :2]
    corners = corners.clip(0, np.array([width, height] * 2, float).T)
    large = np.minimum(sides, corners[:, 2:] - corners[:, :2]) >= MIN_SIDE
    return corners.astype(np.float32), ~crowd & large.all(axis=1)


def box_notes(annotations: Annotations, sizes: np.ndarray) -> Counter[str]:
    """What is to be said about boxes that are left out or changed, counted, with the first annotation ids or pictures.

    Args:
        annotations: of the split.
        sizes: (I, 2) (height, width) of the pictures, 0 where it is not known.
    """
    heights, widths = np.repeat(np.where(sizes > 0, sizes, np.inf), np.diff(annotations.starts), axis=0).T
    boxes, keep = usable_boxes(annotations.boxes, annotations.crowd, heights, widths)
    flat = ~annotations.crowd & (annotations.boxes[:, 2:] < MIN_SIDE).any(axis=1)
    outside = ~annotations.crowd & ~flat & ~keep
    corners = annotations.boxes.copy()
    corners[:, 2:] += corners[:, :2]
    clipped = keep & (np.abs(corners - boxes) > 1).any(axis=1)
    kinds = {
        "less than a pixel wide or high, left out of training": flat,
        "wholly outside their pictures, left out of training": outside,
        "reaching beyond their pictures, clipped": clipped,
    }
    notes: Counter[str] = Counter()
    for what, which in kinds.items():
        if not which.any():
            continue
        if annotations.own_ids:
            kind, named = "annotation ids", annotations.annotation_ids[which].tolist()
        else:
            pictures = np.searchsorted(annotations.starts, np.flatnonzero(which), side="right") - 1
            kind, named = "in", [annotations.files[picture] for picture in np.unique(pictures).tolist()]
        first = ", ".join(map(str, named[:_FIRST])) + (", ..." if len(named) > _FIRST else "")
        notes[f"of {len(boxes)} boxes: {what} ({kind} {first})"] = int(which.sum())
    if not keep.any():
        notes["boxes to learn from"] = 0
    return notes


def distinct_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """``count`` RGB colours, neighbours far apart, all different up to some thousands."""
    golden = 0.61803398875  # this share of the circle on, a hue lies in the widest gap that is left
    colors = []
    for k in range(count):
        rgb = colorsys.hsv_to_rgb(k * golden % 1, (0.9, 0.6, 0.75)[k % 3], (1.0, 0.75, 0.9, 0.6)[k // 3 % 4])
        colors.append((round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])))
    return tuple(colors)
