"""The keys of an architecture search: those of a training, and the section ``search``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from densevision.config.schema import Config, choice, number, values

_ACTS = ("relu", "relu6", "hswish")  # densevision/layers/conv.py


def _kernels(*default: int, least: int = 1) -> Any:
    return values(default, "an odd number from 1 to 31", lambda kernel: 1 <= kernel <= 31 and kernel % 2 == 1, least)


def _factors(*default: float, least: int = 1) -> Any:
    return values(default, "a factor between 0.05 and 10", lambda factor: 0.05 <= factor <= 10, least)


@dataclass
class SpaceConfig:
    """What a block of the platform-aware space may be (densevision/search/space.py)."""

    operators: list[str] = values(["sepconv", "mbconv3", "mbconv6"], "an operator", bool)  # and seed: as it is there
    kernels: list[int] = _kernels(3, 5)
    squeeze: list[float] = values([0.0, 0.25], "a share of the expansion from 0 to 1", lambda share: 0 <= share <= 1)
    skip: list[bool] = values([True, False], "true or false", lambda skip: True)
    widths: list[float] = _factors(0.75, 1.0, 1.25)  # times the seed's
    layers: list[int] = values([-1, 0, 1], "a number from -10 to 10", lambda more: -10 <= more <= 10)  # than the seed's


@dataclass
class SupernetConfig:
    """What is chosen in DMaskingNAS's supernet (densevision/search/mask_space.py), and how."""

    widths: list[float] = _factors(0.5, 0.75, 1.0)  # times the seed's
    # channels between a block's 1x1 convolutions, times those it reads; none: the factors above
    expansions: list[float] = _factors(least=0)
    kernels: list[int] = _kernels(least=0)  # kinds of a block are all combinations; none: the seed's
    squeeze: list[bool] = values([False, True], "true or false", lambda squeeze: True)
    acts: list[str] = values(["relu", "hswish"], f"one of {', '.join(_ACTS)}", lambda act: act in _ACTS)
    skip: bool = False  # whether blocks with a residual sum can go
    # subsampling of the picture, 1 among them; classification
    strides: list[int] = values([1], "a number from 1 to 8", lambda stride: 1 <= stride <= 8)
    step: int = number(8, 1)  # channels that widths are multiples of
    epochs: int = number(90, 1)
    warmup_epochs: int = number(1, 0)  # in which the choices stand still
    temperature: float = number(5.0, 1e-3)  # of the Gumbel-softmax at first, and its factor an epoch
    decay: float = number(0.956, 0.0, 1.0)
    theta_lr: float = number(0.01, 0.0)  # of the choices' Adam
    price: str = choice("log", "power")  # loss + strength * log(cost / target) | loss * (cost / target) ** strength
    strength: float = number(0.2, 0.0)


@dataclass
class SearchConfig:
    method: str = choice("netadapt", "controller", "evolution", "random", "dmasking")
    # score: the task's own (mIoU, mAP, top-1); loss: exp(-loss) on the same pictures, which ranks detectors that have
    # learnt for a few steps where their mAP does not
    objective: str = choice("score", "loss")
    # share of the training pictures that no trial learns from and all are judged on; null: the validation split, which
    # then judges nothing else
    holdout: float | None = number(0.2, 0.01, 0.9)
    # of the whole model on a picture of data.image_size: in millions; latency: milliseconds on one thread, the sum of
    # its parts as a table has them (densevision/latency_table.py)
    cost: str = choice("madds", "params", "latency")
    # latency: file of the table; null: this machine's own, in the user's cache. Parts that are not there are measured,
    # in ONNX Runtime; a file of another machine, a phone's, must hold all
    table: str | None = None
    write_parts: bool = False  # latency: every part is an ONNX file in parts/ too, to be measured on another machine
    target: Any = "0.7x"  # of the cost: a share of the seed's, or a number
    steps: int = number(200, 0)  # that a network is trained for to be judged
    # netadapt: steps that the seed is trained for first; least reduction of a round, as a share of the seed's cost
    seed_steps: int = number(200, 0)
    delta: float = number(0.01, 1e-4, 1.0)
    # the others: networks to judge; networks a round
    samples: int = number(64, 1)
    batch: int = number(8, 1)
    alpha: float = number(-0.07, -10.0, 0.0)  # exponent of cost / target in the reward up to the target
    beta: float = number(-0.07, -10.0, 0.0)  # and beyond it
    score_floor: float = number(0.0, 0.0, 1.0)  # taken off the score: what a network scores that has learnt nothing
    space: SpaceConfig = field(default_factory=SpaceConfig)
    supernet: SupernetConfig = field(default_factory=SupernetConfig)
    controller_lr: float = number(5e-3, 0.0)
    entropy: float = number(1e-3, 0.0)  # weight of the controller's bonus for variety
    population: int = number(16, 2)  # evolution: how many live; how many of them compete to be a parent
    tournament: int = number(4, 1)
    # the found network's training, with all of the training pictures: inherit begins with the weights that the search
    # left (netadapt), scratch as any network; none leaves it out
    retrain: str = choice("scratch", "inherit", "none")
    workers: int = number(1, 1)  # trials at a time
    launcher: str = choice("processes", "slurm")  # slurm: the trials of a round are a job array
    slurm: list[str] = field(default_factory=list)  # options of sbatch, such as --time=1:00:00


@dataclass
class SearchRun(Config):
    search: SearchConfig = field(default_factory=SearchConfig)
