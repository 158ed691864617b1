"""Read a whole data set and collect what is wrong with it, whatever its format."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from datamodules.box_report import BoxReport
from densevision.structures import LabelMap

# (items, their number, what is done) -> the same items; draws progress
Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]
_SHOWN = 20  # errors of a split that the text lists
_NAMED = 5  # classes that a note names


@dataclass
class ItemReport:
    """What one item of a data set turned out to be.

    errors: sentences, each a reason why training or evaluation would stop. notes: what may be meant so, worded so
    that equal ones can be counted. remarks: what is counted elsewhere and worth a picture. size: (height, width), None
    if unreadable. class_counts: (K,) pixels or boxes. digest: of the pixels, see :func:`pixel_digest`.
    """

    name: str
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    class_counts: np.ndarray | None = None
    digest: bytes | None = None


@dataclass(frozen=True)
class Evidence:
    """What can be drawn of an item with which something is the matter.

    image: (H, W, 3) uint8 RGB, None if unreadable. label: (h, w) uint8 class indices. boxes: (N, 4) xyxy pixels as
    stated, labels: (N,) their class indices. wrong: (h, w) or (N,) bool, where something is wrong.
    """

    image: np.ndarray | None
    label: np.ndarray | None = None
    boxes: np.ndarray | None = None
    labels: np.ndarray | None = None
    wrong: np.ndarray | None = None


def pixel_digest(image: np.ndarray) -> bytes:
    """Equal for pictures that are equal pixel for pixel, whatever their files are."""
    pixels = np.ascontiguousarray(image)
    return hashlib.blake2b(pixels.data, digest_size=16, salt=repr(pixels.shape).encode()[:16]).digest()


class Checkable(Protocol):
    """A data set that can be checked.

    ``check(index)`` reads one item as stored and never raises a UserError; ``notes()`` says what is to be said about
    the split as a whole, counted and worded as an item's notes. There may be ``evidence(index)``, an Evidence.
    """

    def __len__(self) -> int: ...

    def notes(self) -> Counter[str]: ...

    def check(self, index: int) -> ItemReport: ...


@dataclass
class SplitReport:
    """What a split turned out to be: the items' reports added up.

    sizes: (height, width) to number of pictures. class_counts, class_items: (K,) pixels (or boxes) of each class,
    and items that have any. boxes: their sizes, where the split has boxes. digests: of pixels, to the first item that
    has them. repeated: items that equal an earlier one, with its name. problems: indices of the items with which
    something is the matter, and what. evidence: of an item, where the format has any.
    """

    split: str
    items: int = 0
    errors: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    class_counts: np.ndarray | None = None
    class_items: np.ndarray | None = None
    boxes: BoxReport | None = None
    digests: dict[bytes, str] = field(default_factory=dict)
    repeated: list[tuple[str, str]] = field(default_factory=list)
    problems: dict[int, list[str]] = field(default_factory=dict)
    evidence: Callable[[int], Evidence] | None = None

    def add(self, item: ItemReport) -> None:
        """Take in the next item."""
        if item.errors or item.notes or item.remarks:
            self.problems[self.items] = item.errors + item.notes + item.remarks
        if item.digest is not None and (first := self.digests.setdefault(item.digest, item.name)) != item.name:
            self.repeated.append((item.name, first))
        self.items += 1
        self.errors += item.errors
        self.notes.update(item.notes)
        if item.size is not None:
            self.sizes[item.size] += 1
        if item.class_counts is not None:
            counts = item.class_counts.astype(np.int64)
            self.class_counts = counts if self.class_counts is None else self.class_counts + counts
            present = (counts > 0).astype(np.int64)
            self.class_items = present if self.class_items is None else self.class_items + present

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain values for json; ``names`` of the classes."""
        counts, items = self._counts(len(names))
        return {
            "split": self.split,
            "items": self.items,
            "errors": self.errors,
            "notes": dict(self.notes),
            "repeated": self.repeated,
            "sizes": {_size(size): count for size, count in self.sizes.most_common()},
            "classes": {
                name: {"count": int(count), "items": int(having)}
                for name, count, having in zip(names, counts, items, strict=True)
            },
            **({"boxes": self.boxes.to_dict()} if self.boxes else {}),
        }

    def _counts(self, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
        nothing = np.zeros(num_classes, np.int64)
        if self.class_counts is None or self.class_items is None:
            return nothing, nothing
        return self.class_counts, self.class_items

    def shares(self, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
        """(K,) share of each class among all counts, in percent, and (K,) items that have it."""
        counts, items = self._counts(num_classes)
        return 100 * counts / max(1, counts.sum()), items


def check_dataset(split: str, dataset: Checkable, progress: Progress | None = None) -> SplitReport:
    """Read every item of a data set, in parallel, and add up what is found.

    Threads do: decoding releases Python's lock.
    """
    report = SplitReport(split, evidence=getattr(dataset, "evidence", None))
    with ThreadPoolExecutor() as threads:
        items: Iterable[ItemReport] = threads.map(dataset.check, range(len(dataset)))
        for item in progress(items, len(dataset), split) if progress else items:
            report.add(item)
    report.notes.update(dataset.notes())
    if report.repeated:
        report.notes[f"pictures occur a second time, pixel for pixel{_first_of(report.repeated)}"] = len(
            report.repeated
        )
    return report


def note_leaks(train: SplitReport, val: SplitReport) -> list[tuple[str, str]]:
    """Pictures of ``val`` that ``train`` has too, with their names there; noted in ``val``.

    One split that is both trained on and judged by is meant so, and said as that.
    """
    if train.split == val.split:
        val.notes["split that is trained on, too: its scores say nothing about new pictures"] = 1
        return []
    leaks = [(name, train.digests[digest]) for digest, name in val.digests.items() if digest in train.digests]
    if leaks:
        val.notes[f"pictures are in the training split too, pixel for pixel{_first_of(leaks)}"] = len(leaks)
    return leaks


def note_empty_classes(train: SplitReport, label_map: LabelMap, counted: str) -> None:
    """Note the classes of which nothing can be learnt, as the training split has not one ``counted`` of them."""
    if train.class_counts is None:
        return
    names = [name for name, count in zip(label_map.names, train.class_counts, strict=True) if count == 0]
    if names:
        more = ", ..." if len(names) > _NAMED else ""
        train.notes[f"classes without a single {counted} ({', '.join(names[:_NAMED])}{more})"] = len(names)


def _first_of(pairs: Sequence[tuple[str, str]]) -> str:
    return f" ({'; '.join(f'{one} = {other}' for one, other in pairs[:3])}{'; ...' if len(pairs) > 3 else ''})"


@dataclass
class DataReport:
    """Both splits, and what is wrong with them together or with the configuration for them.

    splits: by their use, "train" and "val". leaks: validation pictures that equal a training one, and its name.
    """

    label_map: LabelMap
    splits: dict[str, SplitReport]
    errors: list[str] = field(default_factory=list)
    leaks: list[tuple[str, str]] = field(default_factory=list)

    @property
    def can_train(self) -> bool:
        """Whether training can start and will not stop at a file."""
        return not self.errors and not any(report.errors for report in self.splits.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        names = self.label_map.names
        return {
            "can_train": self.can_train,
            "errors": self.errors,
            "leaks": self.leaks,
            "splits": {use: report.to_dict(names) for use, report in self.splits.items()},
        }

    def lines(self) -> Iterator[str]:
        """The report as a short text."""
        for use, report in self.splits.items():
            sizes = ", ".join(f"{count} of {_size(size)}" for size, count in report.sizes.most_common(3))
            more = f" and {len(report.sizes) - 3} more sizes" if len(report.sizes) > 3 else ""
            yield f"{use}: {report.items} pictures in split '{report.split}' (height x width: {sizes or 'none'}{more})"
            yield from (f"  {line}" for line in report.boxes.lines()) if report.boxes else ()
        yield ""
        yield from self._class_lines()
        for use, report in self.splits.items():
            yield from (f"{use}: note: {count} {note}" for note, count in report.notes.items())
            yield from (f"{use}: error: {error}" for error in report.errors[:_SHOWN])
            if len(report.errors) > _SHOWN:
                yield f"{use}: ... and {len(report.errors) - _SHOWN} more errors (--json lists all)"
        yield from (f"error: {error}" for error in self.errors)
        count = len(self.errors) + sum(len(report.errors) for report in self.splits.values())
        yield "nothing is wrong: training can start" if count == 0 else f"errors: {count}; training cannot start"

    def _class_lines(self) -> Iterator[str]:
        names = self.label_map.names
        width = max(map(len, names))
        columns = {use: report.shares(len(names)) for use, report in self.splits.items()}
        yield f"{'class':{width}}" + "".join(f"  {use + ' %':>8} {'pictures':>8}" for use in columns)
        for index, name in enumerate(names):
            cells = (f"  {share[index]:8.3f} {items[index]:8}" for share, items in columns.values())
            yield f"{name:{width}}" + "".join(cells)
        yield ""


def errors_for_batches(report: SplitReport, batch_size: int, uniform: bool, what: str) -> list[str]:
    """The error, if any, that pictures of several sizes cannot share batches.

    Args:
        report: of the split.
        batch_size: as configured.
        uniform: the configuration brings all pictures to one size.
        what: to set, for the message.
    """
    if uniform or batch_size == 1 or len(report.sizes) < 2:
        return []
    return [f"split '{report.split}' has pictures of {len(report.sizes)} sizes, which cannot share a batch; set {what}"]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
