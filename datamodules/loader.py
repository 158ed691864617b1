"""The one DataLoader of all formats."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.samplers import EpochSampler
from densevision.errors import UserError
from densevision.structures import SampleKey

_NO_MORE = object()
_HELD_BACK = {signal.SIGTERM} if hasattr(signal, "sigwaitinfo") else set()


class Loader(DataLoader):
    """A DataLoader out of whose workers a UserError comes as it was raised.

    torch rebuilds a worker's exception around the text of its traceback. So a worker does not raise a UserError but
    sends it in place of its batch, and it is raised here, where the commands print its sentence.

    Attributes:
        source: the data set as it was given.
        waited: seconds that batches were waited for, since the loader was made.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler[SampleKey] | Sequence[SampleKey],
        batch_size: int,
        num_workers: int,
        collate: Callable[[Sequence[Any]], Any],
        drop_last: bool = False,
    ) -> None:
        self.source: Any = dataset
        self.waited = 0.0
        # more than one worker a core is slower, and changes no sample
        num_workers = min(
            num_workers, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else num_workers
        )
        super().__init__(
            _SendErrors(dataset),
            batch_size=batch_size,
            sampler=sampler,
            num_workers=num_workers,
            collate_fn=_PassErrors(collate),
            drop_last=drop_last,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            worker_init_fn=_begin if num_workers > 0 else None,
            generator=torch.Generator(),  # or every iteration would draw from the generator that the model uses
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        with _signals_held_back():
            batches = super().__iter__()  # starts the workers
        for batch in self._timed(batches):
            if isinstance(batch, UserError):
                # let the workers go now: the error's traceback keeps this loader alive, and left to the garbage
                # collector their end comes in an order that takes 5 seconds a worker
                self._iterator = None
                raise batch
            yield batch

    def _timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            began = time.perf_counter()
            batch = next(batches, _NO_MORE)
            self.waited += time.perf_counter() - began
            if batch is _NO_MORE:
                return
            yield batch


class TrainLoader(Loader):
    """A Loader over an EpochSampler that can go on in the middle of an epoch; Lightning asks for its state."""

    sampler: EpochSampler

    def __init__(self, dataset: Dataset, sampler: EpochSampler, *args: Any, **kwargs: Any) -> None:
        super().__init__(dataset, sampler, *args, **kwargs)
        self._delivered = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        assert self.batch_size is not None
        self._delivered = self.sampler.start // self.batch_size
        for batch in super().__iter__():
            self._delivered += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches of this epoch that were handed out, whatever the workers have prepared beyond."""
        return {"delivered": self._delivered % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration pass over what was handed out; the epoch comes from ``set_epoch``."""
        assert self.batch_size is not None
        self.sampler.resume(state["delivered"] * self.batch_size)


class EvalLoader(Loader):
    """A Loader that gives a process without a picture one batch, None, so that it takes part in the collectives."""

    def __len__(self) -> int:
        return max(1, super().__len__())

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return super().__iter__() if super().__len__() else iter([None])


def _begin(worker: int) -> None:
    cv2.setNumThreads(0)  # workers share the cores among them; OpenCV would start a pool in each
    if _HELD_BACK:
        threading.Thread(target=_end_when_told, daemon=True).start()


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let what is started here, with all its threads, leave SIGTERM to :func:`_end_when_told`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK) if _HELD_BACK else None
    try:
        yield
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_when_told() -> None:
    """Heed a SIGTERM from the worker's own trainer alone. One that a whole job gets (``scancel``, preemption, a lost
    process under torchrun) asks the trainer to save, and until it has, it needs its workers."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


@dataclass
class _SendErrors(Dataset):
    dataset: Any

    def __getitem__(self, key: SampleKey) -> Any:
        try:
            return self.dataset[key]
        except UserError as error:
            return error

    def __len__(self) -> int:
        return len(self.dataset)


@dataclass
class _PassErrors:
    collate: Callable[[Sequence[Any]], Any]

    def __call__(self, samples: Sequence[Any]) -> Any:
        for sample in samples:
            if isinstance(sample, UserError):
                return sample
        try:
            return self.collate(samples)
        except UserError as error:
            return error
