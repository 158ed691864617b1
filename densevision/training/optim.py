"""Optimiser, its parameter groups, and the course of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from densevision.config.schema import OptimConfig
from densevision.training.muon import Muon
from densevision.training.rmsprop import TensorFlowRMSprop


def build_optimizer(model: nn.Module, optim: OptimConfig) -> Optimizer:
    """The optimiser over all trainable parameters of ``model``.

    Biases and normalisation parameters never decay; depthwise convolutions by ``optim.decay_depthwise``. What lies
    in ``model.backbone`` learns at ``lr * backbone_lr_mult``, Muon's matrices at ``muon_lr_mult`` times that. Groups
    are named ``backbone``, ``backbone_no_decay``, ``head`` and ``head_no_decay``, for Muon ``backbone_matrices`` too;
    empty ones are left out.
    """
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter, decays in _parameters(model, optim.decay_depthwise):
        part = "backbone" if name.startswith("backbone.") else "head"
        if optim.name == "muon" and part == "backbone" and is_matrix(parameter):
            part = "backbone_matrices"
        groups.setdefault(part if decays else f"{part}_no_decay", []).append(parameter)
    param_groups = [
        {
            "params": parameters,
            "name": name,
            "lr": optim.lr
            * (optim.backbone_lr_mult if name.startswith("backbone") else 1.0)
            * (optim.muon_lr_mult if name == "backbone_matrices" else 1.0),
            "weight_decay": 0.0 if name.endswith("_no_decay") else optim.weight_decay,
        }
        for name, parameters in groups.items()
    ]
    if optim.name == "sgd":
        return torch.optim.SGD(param_groups, lr=optim.lr, momentum=optim.momentum)
    if optim.name == "rmsprop":
        # decay .9 and eps 1e-3: the MobileNetV3 paper's recipe as timm trains it
        return TensorFlowRMSprop(param_groups, lr=optim.lr, momentum=optim.momentum, alpha=0.9, eps=1e-3)
    if optim.name == "muon":
        return Muon(
            [{**group, "matrices": group["name"] == "backbone_matrices"} for group in param_groups], lr=optim.lr
        )
    return torch.optim.AdamW(param_groups, lr=optim.lr)


def is_matrix(parameter: nn.Parameter) -> bool:
    """Whether it is the weight of a 1x1 convolution over several channels."""
    return parameter.ndim == 4 and parameter.shape[1] > 1 and parameter.shape[2:] == (1, 1)


def _parameters(model: nn.Module, decay_depthwise: bool) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """(name, parameter, whether it decays); a vector is a bias or belongs to a normalisation."""
    for prefix, module in model.named_modules():
        depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.requires_grad:
                yield name, parameter, parameter.ndim > 1 and (decay_depthwise or not depthwise)


def build_scheduler(optimizer: Optimizer, optim: OptimConfig, total_steps: int) -> LRScheduler:
    """The learning rate over ``total_steps`` optimiser steps, to be advanced after each.

    poly: (1 - t) ** power (DeepLab); cosine: to 0; exponential: by decay_rate every decay_steps (MobileNetV3);
    one_cycle: torch's, with its warm-up over the first 30 %; constant. All but one_cycle rise linearly over the first
    ``warmup_steps``.
    """
    if optim.schedule == "one_cycle":
        peaks = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, max_lr=peaks, total_steps=total_steps)

    def factor(step: int) -> float:
        if step < optim.warmup_steps:
            return optim.warmup_start + (1 - optim.warmup_start) * step / optim.warmup_steps
        progress = min(1.0, (step - optim.warmup_steps) / max(1, total_steps - optim.warmup_steps))
        if optim.schedule == "poly":
            return float((1 - progress) ** optim.power)
        if optim.schedule == "exponential":
            return float(optim.decay_rate ** ((step - optim.warmup_steps) // optim.decay_steps))
        if optim.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        return 1.0

    return LambdaLR(optimizer, factor)
