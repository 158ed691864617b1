"""From a checkpoint to predictions: ``densevision.load("best.ckpt").predict("street.jpg").save("street_classes.png")``.

A task has its Predictor and its result type in ``PREDICTORS``; what the commands need of a result is Result.
"""

from __future__ import annotations

from pathlib import Path

import torch

from densevision.checkpoint import read_densevision_checkpoint, stored_config, stored_label_map
from densevision.errors import UserError
from densevision.inference.base import Predictor, Result
from densevision.inference.classification import ClassificationPredictor, ClassificationResult
from densevision.inference.detection import DetectionPredictor, DetectionResult
from densevision.inference.rebuild import model_from_checkpoint
from densevision.inference.segmentation import SegmentationPredictor, SegmentationResult

__all__ = [
    "PREDICTORS",
    "ClassificationPredictor",
    "ClassificationResult",
    "DetectionPredictor",
    "DetectionResult",
    "Predictor",
    "Result",
    "SegmentationPredictor",
    "SegmentationResult",
    "load",
    "model_from_checkpoint",
]

PREDICTORS: dict[str, type[Predictor]] = {
    "segmentation": SegmentationPredictor,
    "detection": DetectionPredictor,
    "classification": ClassificationPredictor,
}


def load(path: str | Path, device: str | torch.device = "cpu") -> Predictor:
    """The model of a checkpoint, ready to predict; needs nothing but the file.

    Raises:
        UserError: no such file, no whole checkpoint of densevision, weights that do not fit their configuration,
            or a device that is not there.
    """
    target = _device(device)
    stored = read_densevision_checkpoint(path)
    config = stored_config(stored, str(path)).config
    model = model_from_checkpoint(stored, str(path))
    return PREDICTORS[config.task](model, config, stored_label_map(stored, str(path)), target)


def _device(device: str | torch.device) -> torch.device:
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"no device '{device}' here; cpu always works, cuda with an NVIDIA GPU ({reason})") from error
    return target
