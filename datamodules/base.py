"""What the datamodules of all formats share: splits become loaders."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only

from datamodules.check import (
    DataReport,
    Progress,
    SplitReport,
    check_dataset,
    errors_for_batches,
    note_empty_classes,
    note_leaks,
)
from datamodules.fingerprint import fingerprint
from datamodules.loader import EvalLoader, Loader, TrainLoader
from datamodules.samplers import EpochSampler, EvalSampler, rank_and_world_size
from datamodules.splits import held_out
from datamodules.store import Store, store_folders
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.structures import LabelMap

_log = logging.getLogger("densevision")
MISSED = 0.05  # of the pictures to hold out, from which on it is said how many are
_STATISTICS_EPOCH = 2**31  # epochs that no training reaches


class DataModule(LightningDataModule):
    """Loaders over the splits of a data set; a format says how its splits are read.

    The samplers share out the data among the ranks themselves, so the trainer must not
    (``use_distributed_sampler=False``).

    Attributes:
        root: the folder of the data set; known after :meth:`read_split`.
        label_map: the classes; known after :meth:`setup` at the latest.
        train_dataset, val_dataset: the configured splits, after :meth:`setup`.
        counted: what a class is learnt from, in check's words; None where the splits say which classes lack it.
        one_size: in evaluation too, all that a batch needs is brought to one size.

    Args:
        data: the section ``data`` of the configuration.
        seed: of the experiment.
    """

    root: Path
    label_map: LabelMap
    collate: Callable[[Sequence[Any]], Any]
    counted: str | None = "labelled pixel"
    one_size = False

    def __init__(self, data: DataConfig, seed: int = 0) -> None:
        super().__init__()
        self.data, self.seed = data, seed
        self.train_dataset: Any = None
        self.val_dataset: Any = None
        self.share_note: Counter[str] = Counter()  # that another share is held out than was asked for

    @abstractmethod
    def read_split(self, split: str, training: bool) -> Any:
        """The data set of a split, its files looked up but not read; what is missing is the data set's to tell."""

    def read_part(self, split: str, training: bool) -> Any:
        """The pictures of a split; where ``data.val_fraction`` divides the training split, those of its part.

        Raises:
            UserError: as :meth:`read_split`, or the training split cannot be divided.
        """
        data = self.data
        if data.val_fraction is None or split not in (data.train_split, data.val_split):
            return self.read_split(split, training)
        if data.train_split == data.val_split:
            raise UserError(f"both parts of a divided split are called '{data.val_split}'", key="data.val_split")
        dataset = self.read_split(data.train_split, training)
        held = held_out(dataset.names, data.val_fraction, data.split_seed, data.group)
        wanted = round(data.val_fraction * len(held))
        if abs(held.sum() - wanted) > MISSED * wanted:
            what = f"held out where data.val_fraction asks for {wanted}, as groups stay whole"
            self.share_note = Counter({f"of {len(held)} pictures: {what}": int(held.sum())})
        return dataset.subset(np.flatnonzero(held if split == data.val_split else ~held))

    def setup(self, stage: str | None = None) -> None:
        """Look up the files of both splits (only those for evaluation with stage "validate").

        Raises:
            UserError: no data, an unknown split, or files that are missing: now, not after an hour.
        """
        if stage in (None, "fit") and self.train_dataset is None:
            dataset = self.read_part(self.data.train_split, training=True)
            self.train_dataset = self.ready(dataset, labels=True)
        if stage in (None, "fit", "validate") and self.val_dataset is None:
            dataset = self.read_part(self.data.val_split, training=False)
            for note, count in self.share_note.items():
                warn_once("%s: %d %s", self.root, count, note)
            self.val_dataset = self.ready(dataset, labels=True)

    def ready(self, dataset: Any, labels: bool) -> Any:
        """The data set, reading from the store that ``data.cache`` asks for; what is not stored yet is stored now.

        Args:
            dataset: of a split.
            labels: whether it needs them.

        Raises:
            UserError: files are missing or cannot be read, or the store cannot be written.
        """
        dataset.require_files(labels)
        source, notes = self.early_notes(dataset)
        for note, count in notes.items():
            warn_once("%s: %d %s", source, count, note)
        if self.data.cache == "none":
            return dataset
        folder, spare = store_folders(self.data.cache_dir, self.root)
        store = Store(folder, self.root, self.data.cache == "compressed", spare)
        return dataset.use_store(store, self.data.cache_side)

    def early_notes(self, dataset: Any) -> tuple[str, Counter[str]]:
        """What is logged of a split before it is used, counted, and where it comes from; none of it needs much time."""
        return str(self.root), dataset.notes()

    def train_dataloader(self) -> TrainLoader:
        """Batches of the training split, the last incomplete one of an epoch left out.

        Raises:
            UserError: the split does not fill one batch.
        """
        rank, world_size = rank_and_world_size()
        self.check_batch_size(world_size)
        sampler = EpochSampler(len(self.train_dataset), self.seed, rank=rank, world_size=world_size)
        return TrainLoader(
            self.train_dataset, sampler, self.data.batch_size, self.data.num_workers, type(self).collate, drop_last=True
        )

    def check_batch_size(self, world_size: int) -> None:
        """Raise a UserError if the training split does not fill one batch of every process."""
        self.setup("fit")
        check_batch_size(len(self.train_dataset), self.data, world_size)

    def statistics_dataloader(self, step: int, batches: int) -> Loader:
        """Training batches beside those that are learnt from, whose order and place they leave alone.

        Args:
            step: of the training; with the seed it decides the pictures and their augmentation.
            batches: of this process; no more than one pass over its share is given.
        """
        self.setup("fit")
        rank, world_size = rank_and_world_size()
        sampler = EpochSampler(len(self.train_dataset), self.seed, rank=rank, world_size=world_size)
        sampler.set_epoch(_STATISTICS_EPOCH + step)
        data = self.data
        keys = list(sampler)[: batches * data.batch_size]
        return Loader(self.train_dataset, keys, data.batch_size, data.num_workers, type(self).collate, drop_last=True)

    def val_dataloader(self) -> Loader:
        """Batches of the validation split, every picture once over all ranks."""
        self.setup("validate")
        return self._eval_loader(self.val_dataset)

    def eval_dataset(self, split: str) -> Any:
        """Any split as it is evaluated; one without labels gives samples without labels.

        Raises:
            UserError: an unknown split, or labels for some of its pictures only.
        """
        dataset = self.read_part(split, training=False)
        return self.ready(dataset, labels=dataset.has_labels)

    def eval_dataloader(self, split: str) -> Loader:
        """Batches of :meth:`eval_dataset`, every picture once over all ranks."""
        return self._eval_loader(self.eval_dataset(split))

    def class_pixel_counts(self) -> Any:
        """(K,) int64: the labelled pixels of each class in the training split."""
        self.setup("fit")
        return self.train_dataset.class_pixel_counts()

    def fingerprints(self) -> dict[str, dict[str, Any]]:
        """Of the ``train`` and ``val`` split the number of ``pictures`` and the ``fingerprint``."""
        self.setup("fit")
        splits = {"train": self.train_dataset, "val": self.val_dataset}
        return {use: {"pictures": len(split), "fingerprint": fingerprint(split)} for use, split in splits.items()}

    def check(self, progress: Progress | None = None) -> DataReport:
        """Read every file of both splits and collect all that is wrong.

        Raises:
            UserError: neither split can be looked up: there is nothing to read.
        """
        data = self.data
        splits = {"train": SplitReport(data.train_split), "val": SplitReport(data.val_split)}
        failures = []
        for use, split in splits.items():
            try:
                dataset = self.read_part(split.split, training=use == "train")
            except UserError as error:
                split.errors.append(str(error))
                failures.append(error)
            else:
                splits[use] = self.check_split(split.split, dataset, progress)
                try:
                    dataset.require_files(labels=True)
                except UserError as error:  # said of single files already, where it begins as their sentence
                    if not str(error).startswith(tuple(splits[use].errors)):
                        splits[use].errors.append(str(error))
        if len(failures) == len(splits):
            raise failures[0]
        splits["val"].notes.update(self.share_note)
        if self.counted is not None:
            note_empty_classes(splits["train"], self.label_map, self.counted)
        report = DataReport(self.label_map, splits, leaks=note_leaks(splits["train"], splits["val"]))
        if splits["train"].items:
            try:
                check_batch_size(splits["train"].items, data)
            except UserError as error:
                report.errors.append(str(error))
        fixed = data.image_size is not None or data.crop_size is not None
        report.errors += errors_for_batches(splits["train"], data.batch_size, fixed, "data.crop_size")
        if not self.one_size:
            report.errors += errors_for_batches(splits["val"], data.eval_batch_size, False, "data.eval_batch_size=1")
        return report

    def check_split(self, split: str, dataset: Any, progress: Progress | None) -> SplitReport:
        """Read every file of a split."""
        return check_dataset(split, dataset, progress)

    def _eval_loader(self, dataset: Any) -> Loader:
        sampler = EvalSampler(len(dataset), *rank_and_world_size())
        return EvalLoader(dataset, sampler, self.data.eval_batch_size, self.data.num_workers, type(self).collate)


@rank_zero_only
def warn_once(message: str, *values: Any) -> None:
    """A warning: one line, not one a process."""
    _log.warning(message, *values)


def check_batch_size(size: int, data: DataConfig, world_size: int = 1) -> None:
    """Raise a UserError if ``size`` training pictures do not fill one batch of every process."""
    if size < data.batch_size * world_size:
        processes = f" in each of {world_size} processes" if world_size > 1 else ""
        fitting = size // world_size
        change = f"set data.batch_size to {fitting}{' or less' * (fitting > 1)}" if fitting else "start fewer processes"
        raise UserError(
            f"the training split '{data.train_split}' has {size} picture{'s' * (size != 1)}, fewer than one batch of "
            f"{data.batch_size}{processes}; {change}",
            key="data.batch_size",
        )
