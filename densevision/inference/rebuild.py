"""The model of a checkpoint, built from nothing but what is stored in it."""

from __future__ import annotations

from typing import Any

import torch

from densevision.checkpoint import stored_config, stored_label_map
from densevision.classification import Classifier
from densevision.detection.ssdlite import SSDLite
from densevision.errors import UserError
from densevision.model_heads import check_head
from densevision.models import build_model
from densevision.quantize import quantized
from densevision.segmentation.segmenter import Segmenter

_PREFIX = "model."  # of the model's weights among those of the task that trained it


def model_from_checkpoint(stored: dict[str, Any], source: str) -> Segmenter | SSDLite | Classifier:
    """Rebuild the model of a checkpoint with its weights, on the CPU, in evaluation mode.

    Args:
        stored: what :func:`densevision.checkpoint.read_densevision_checkpoint` gave.
        source: the file, for messages.

    Raises:
        UserError: its configuration is not valid, or its weights do not fit it.
    """
    loaded, label_map = stored_config(stored, source), stored_label_map(stored, source)
    config = loaded.config
    with loaded.blaming_origin():
        check_head(config.task, config.model)
    model = build_model(config.model, label_map.num_classes, load_weights=False)
    if config.quantize.mode == "qat":
        model = quantized(model)
    weights = {k.removeprefix(_PREFIX): v for k, v in stored["state_dict"].items() if k.startswith(_PREFIX)}
    expected = model.state_dict()
    if missing := sorted(expected.keys() - weights.keys()):
        raise UserError(f"{source} lacks {len(missing)} of the model's weights, such as {missing[0]}")
    if unknown := sorted(weights.keys() - expected.keys()):
        raise UserError(f"{source} holds {len(unknown)} weights that its model has not, such as {unknown[0]}")
    other = {name: weights[name].shape for name in expected if weights[name].shape != expected[name].shape}
    if other:
        raise UserError(f"{source}: {_misfit(other, expected, label_map.num_classes)}")
    model.load_state_dict(weights)
    return model.eval()


def _misfit(other: dict[str, torch.Size], expected: dict[str, torch.Tensor], num_classes: int) -> str:
    """The sentence for weights of other shapes than the model's; a class count is called by its name."""
    counts = {shape[0] for shape in other.values() if shape}
    if len(counts) == 1 and all(expected[name].shape[0] == num_classes for name in other if expected[name].dim()):
        return f"its weights predict {counts.pop()} classes, its label map names {num_classes}"
    name, shape = next(iter(other.items()))
    return f"its weights do not fit its configuration: {name} is {tuple(shape)}, not {tuple(expected[name].shape)}"
