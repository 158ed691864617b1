"""Orders: all of (seed, epoch), shared out without repeats, resumable in the middle."""

import pytest

from datamodules.samplers import EpochSampler, EvalSampler, sample_rng
from densevision.structures import SampleKey


def order(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return [key.index for key in sampler]


def test_an_epoch_is_a_permutation_of_seed_and_epoch():
    assert sorted(order(EpochSampler(50, seed=1))) == list(range(50))
    assert order(EpochSampler(50, seed=1), 3) == order(EpochSampler(50, seed=1), 3)
    assert order(EpochSampler(50, seed=1), 3) != order(EpochSampler(50, seed=1), 4)
    assert order(EpochSampler(50, seed=1), 3) != order(EpochSampler(50, seed=2), 3)
    assert order(EpochSampler(50, seed=1, shuffle=False), 3) == list(range(50))


def test_keys_carry_the_epoch():
    sampler = EpochSampler(3, seed=0)
    sampler.set_epoch(5)
    assert {key.epoch for key in sampler} == {5}
    assert list(EvalSampler(2)) == [SampleKey(0, 0), SampleKey(0, 1)]


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_an_epoch_equally_and_without_overlap(world_size):
    shares = [EpochSampler(11, 0, rank=rank, world_size=world_size) for rank in range(world_size)]
    indices = [order(share, 2) for share in shares]
    assert all(len(part) == len(share) == 11 // world_size for part, share in zip(indices, shares, strict=True))
    assert len({index for part in indices for index in part}) == 11 // world_size * world_size


@pytest.mark.parametrize("world_size", [1, 2, 3, 12])
def test_evaluation_sees_everything_once(world_size):
    shares = [EvalSampler(11, rank, world_size) for rank in range(world_size)]
    assert sorted(key.index for share in shares for key in share) == list(range(11))
    assert sum(map(len, shares)) == 11


def test_an_epoch_resumes_in_the_middle_once():
    sampler, whole = EpochSampler(10, seed=3), order(EpochSampler(10, seed=3), 1)
    sampler.resume(4)
    assert order(sampler, 1) == whole[4:]
    assert len(sampler) == 10
    assert order(sampler, 1) == whole


def test_every_sample_has_its_own_chance():
    draws = {sample_rng(*key).random() for key in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (2**40, 0, 0)]}
    assert len(draws) == 5
    assert sample_rng(7, 1, 2).random() == sample_rng(7, 1, 2).random()
