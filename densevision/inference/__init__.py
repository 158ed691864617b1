"""From a model's file to predictions: ``densevision.load("best.ckpt").predict("street.jpg").save("classes.png")``.

A checkpoint is run by PyTorch, an exported file by its runtime; the results are of the same types. A task has its
Predictor and its result type in ``PREDICTORS``; what the commands need of a result is Result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from densevision.checkpoint import read_densevision_checkpoint, stored_config, stored_label_map
from densevision.errors import UserError
from densevision.export import is_exported, open_file, optimised
from densevision.inference.base import NetworkPredictor, Predictor, Result
from densevision.inference.classification import ClassificationPredictor, ClassificationResult
from densevision.inference.detection import DetectionPredictor, DetectionResult
from densevision.inference.exported import ExportedPredictor, FileNetwork
from densevision.inference.rebuild import model_from_checkpoint
from densevision.inference.segmentation import SegmentationPredictor, SegmentationResult

__all__ = [
    "PREDICTORS",
    "ClassificationPredictor",
    "ClassificationResult",
    "DetectionPredictor",
    "DetectionResult",
    "ExportedPredictor",
    "FileNetwork",
    "NetworkPredictor",
    "Predictor",
    "Result",
    "SegmentationPredictor",
    "SegmentationResult",
    "load",
    "model_from_checkpoint",
]

PREDICTORS: dict[str, type[NetworkPredictor]] = {
    "segmentation": SegmentationPredictor,
    "detection": DetectionPredictor,
    "classification": ClassificationPredictor,
}


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    optimize: bool = False,
    overrides: Sequence[str] = (),
) -> Predictor:
    """A model, ready to predict; needs nothing but the file.

    Args:
        path: a checkpoint, or a file that ``densevision export`` wrote; its suffix tells.
        device: where a checkpoint's model runs; exported files run on the CPU.
        optimize: of a checkpoint: fold batch normalisation, keep channels last, and round class maps as
            ``evaluation.exact=false`` does. Predictions then differ where two classes agree to the last bits, and the
            model can no longer be trained.
        overrides: of a checkpoint's configuration, such as ``["evaluation.flip=true", "evaluation.mode=slide"]``.

    Raises:
        UserError: no such file, no whole checkpoint or exported file of densevision, weights that do not fit their
            configuration, a runtime that is not installed, or a device that is not there.
    """
    target = _device(device)
    if is_exported(path):
        if target.type != "cpu":
            raise UserError(f"{path} is an exported file, which runs on the CPU; {device} can run its checkpoint")
        if overrides:
            raise UserError(f"{path} sees a picture once and whole; {overrides[0]} is for its checkpoint")
        return ExportedPredictor(open_file(path), str(path))
    stored = read_densevision_checkpoint(path)
    loaded = stored_config(stored, str(path), overrides)
    config = loaded.config
    views = [word for word in overrides if word.startswith("evaluation.")]
    if views and config.task != "segmentation":
        raise UserError(f"{path} ({config.task}) sees a picture once and whole; {views[0]} is for segmentation")
    model = model_from_checkpoint(stored, str(path))
    if optimize:
        model = optimised(model).to(memory_format=torch.channels_last)
        config.evaluation.exact = False
    with loaded.blaming_origin():
        return PREDICTORS[config.task](model, config, stored_label_map(stored, str(path)), target)


def _device(device: str | torch.device) -> torch.device:
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"no device '{device}' here; cpu always works, cuda with an NVIDIA GPU ({reason})") from error
    return target
