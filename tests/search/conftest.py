"""Searches without data: scores that are functions of the table."""

import math
from functools import partial

import pytest
import torch

from densevision.backbones import BACKBONES, architecture_to_dict
from densevision.config.schema import Config
from densevision.models import build_model
from densevision.search.costs import madds_cost
from densevision.search.trials import Outcome, TrialStore, run_trial


def segmenter(architecture):
    config = Config()
    config.model.backbone.arch, config.model.head.name = architecture_to_dict(architecture), "lraspp"
    return build_model(config.model, 5)


@pytest.fixture
def seed():
    return BACKBONES["mobilenet_v3_small"](width_mult=0.5, output_stride=16)


@pytest.fixture
def cost():
    return madds_cost(segmenter, (64, 64))


class Landscape:
    """A trial that scores by the table and counts how often it was asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, architecture, inherited, steps, seed):
        self.calls += 1
        widths = [math.log(block.expansion) * (1 + i % 3) for i, block in enumerate(architecture.blocks)]
        return Outcome(sum(widths) / 100, weights={"step": torch.tensor(float(steps))})


@pytest.fixture
def landscape():
    return Landscape()


def store_in(folder, trial):
    """A store whose trials run here, one after another."""

    def execute(files):
        for file in files:
            run_trial(file, lambda setting: trial)

    return TrialStore(folder, {"setting": "test"}, execute)


@pytest.fixture
def make_store(tmp_path):
    return partial(store_in, tmp_path / "trials")
