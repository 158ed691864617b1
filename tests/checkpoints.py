"""Checkpoints of untrained small networks, as a training run would have written them."""

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datamodules.cityscapes import CITYSCAPES
from densevision import __version__
from densevision.config import config_to_dict, load_config
from densevision.models import build_model, resolved
from densevision.structures import LabelMap

SMALL = ("model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35", "model.head.channels=16")


def checkpoint_of(overrides: Sequence[str] = (), label_map: LabelMap = CITYSCAPES) -> dict[str, Any]:
    """What a checkpoint file holds; the same arguments give the same weights, in a copy of one's own."""
    return deepcopy(_checkpoint_of(tuple(overrides), label_map))


@lru_cache
def _checkpoint_of(overrides: tuple[str, ...], label_map: LabelMap) -> dict[str, Any]:
    config = load_config("lraspp_v3_cityscapes", [*SMALL, *overrides]).config
    config.model = resolved(config.model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(config.model, label_map.num_classes)
        # with the statistics it begins with, an untrained network predicts one class everywhere
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.momentum = 1.0
        with torch.no_grad():
            model(torch.rand(4, 3, 64, 64) * 255)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    return {
        "state_dict": {**state, "loss.weight": torch.ones(label_map.num_classes)},
        "densevision": {
            "version": __version__,
            "config": config_to_dict(config),
            "label_map": label_map.to_dict(),
        },
    }


def write_checkpoint(path: Path, overrides: Sequence[str] = (), label_map: LabelMap = CITYSCAPES) -> Path:
    """Write :func:`checkpoint_of` and return its path."""
    torch.save(checkpoint_of(overrides, label_map), path)
    return path
