"""Which picture comes when: orders that follow from (seed, epoch) alone, shared out among the ranks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch.distributed
from torch.utils.data import Sampler

from densevision.structures import SampleKey


def rank_and_world_size() -> tuple[int, int]:
    """This process' place among those that train together; (0, 1) when it is alone."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The one source of chance of a training sample: the same for any worker, rank, batch size or resumption."""
    return np.random.default_rng((seed, epoch, index))


class EpochSampler(Sampler[SampleKey]):
    """Training order: a permutation drawn from (seed, epoch), of which every rank takes an equal share.

    What does not divide by ``world_size`` is left out, another part in every epoch.

    Args:
        size: number of samples in the data set.
        seed: of the experiment.
        shuffle: false keeps the data set's order.
        rank, world_size: which share is wanted.
    """

    def __init__(self, size: int, seed: int, shuffle: bool = True, rank: int = 0, world_size: int = 1) -> None:
        self.size, self.seed, self.shuffle = size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration yields; Lightning calls this."""
        self.epoch = epoch

    def resume(self, position: int) -> None:
        """Pass over the first ``position`` samples of this rank's share, in the next iteration only."""
        self.start = position

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch, also when the next one starts in the middle."""
        return self.size // self.world_size

    def __iter__(self) -> Iterator[SampleKey]:
        order = np.arange(self.size)
        if self.shuffle:
            # spawn_key keeps this stream apart from sample_rng's, which are padded with zeros
            order = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(self.epoch,))).permutation(order)
        share = order[self.rank : len(self) * self.world_size : self.world_size]
        start, self.start = self.start, 0
        return iter([SampleKey(self.epoch, index) for index in share[start:].tolist()])


class EvalSampler(Sampler[SampleKey]):
    """Evaluation order: every sample once over all ranks, in the data set's order, nothing padded or repeated."""

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        self.share = range(rank, size, world_size)

    def __len__(self) -> int:
        return len(self.share)

    def __iter__(self) -> Iterator[SampleKey]:
        return (SampleKey(0, index) for index in self.share)
