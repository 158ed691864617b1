"""From a checkpoint to predictions: ``densevision.load("best.ckpt").predict("street.jpg").save("street_classes.png")``.

A task has its Predictor and its result type in ``PREDICTORS``; what the commands need of a result is Result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import nn

from densevision.checkpoint import read_densevision_checkpoint, stored_config, stored_label_map
from densevision.config import Config
from densevision.detection.ssdlite import SSDLite
from densevision.errors import UserError
from densevision.io import atomic_write, read_image, resize_image, write_json, write_png
from densevision.models import build_model, build_postprocess
from densevision.segmentation.segmenter import Segmenter
from densevision.segmentation.views import see, views_from_config
from densevision.structures import LabelMap
from densevision.visualize import DRAWN_SCORE, draw_boxes, overlay

_PREFIX = "model."  # of the model's weights among those of the task that trained it


class Result(Protocol):
    """What a prediction of any task can do."""

    def save(self, path: str | Path) -> None:
        """Draw the prediction on the picture and write that."""

    def write(self, folder: Path, name: str) -> None:
        """Write everything there is to keep, as files of ``folder`` that begin with ``name``."""


class Predictor:
    """A model in evaluation mode that takes pictures of any kind and size.

    Attributes:
        model: the plain nn.Module. config: as stored in the checkpoint. label_map: the classes. device: where the
        model is.
    """

    def __init__(self, model: nn.Module, config: Config, label_map: LabelMap, device: torch.device) -> None:
        self.model = model.to(device).eval()
        self.config = config
        self.label_map = label_map
        self.device = device

    def predict(self, picture: str | Path | np.ndarray | Image.Image) -> Result:
        """Predict one picture.

        Args:
            picture: a file, read by the rules of :mod:`densevision.io`; or (H, W, 3) uint8 RGB, (H, W) uint8 grey;
                or a PIL picture of 8 bits, whose transparency is dropped.

        Raises:
            UserError: the file cannot be read.
            ValueError: an array or PIL picture of another kind.
        """
        raise NotImplementedError

    def predict_many(self, paths: Iterable[str | Path]) -> Iterator[tuple[Path, Result | UserError]]:
        """Each file with its result, in the given order; with the error where a file cannot be read."""
        for path in map(Path, paths):
            try:
                yield path, self.predict(path)
            except UserError as error:
                yield path, error


@dataclass(frozen=True)
class SegmentationResult:
    """One class a pixel.

    picture: (H, W, 3) uint8 RGB, as it was given. class_map: (H, W) uint8 class indices. label_map: the classes.
    """

    picture: np.ndarray
    class_map: np.ndarray
    label_map: LabelMap

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class index."""
        return self.label_map.names

    @property
    def colors(self) -> tuple[tuple[int, int, int], ...]:
        """The RGB colour of each class index."""
        return self.label_map.colors

    @property
    def shares(self) -> dict[str, float]:
        """Share of the picture by class name, 0..1, the largest first; classes that do not occur are left out."""
        pixels = np.bincount(self.class_map.ravel(), minlength=len(self.names))
        order = np.argsort(-pixels, kind="stable")
        return {self.names[k]: float(pixels[k] / self.class_map.size) for k in order if pixels[k]}

    @property
    def label_ids(self) -> np.ndarray:
        """(H, W) uint8: the data set's own ids, as its label files and evaluation server have them."""
        return np.array(self.label_map.ids, dtype=np.uint8)[self.class_map]

    def overlay(self) -> np.ndarray:
        """(H', W', 3) uint8 RGB: the classes drawn on the picture, with a legend below."""
        return overlay(self.picture, self.class_map, self.label_map)

    def save(self, path: str | Path) -> None:
        """Write :meth:`overlay` in the format of the file's suffix.

        Raises:
            UserError: the suffix is no picture format.
        """
        _write_picture(Path(path), self.overlay())

    def save_label_ids(self, path: str | Path) -> None:
        """Write :attr:`label_ids` as a grey PNG."""
        write_png(path, self.label_ids)

    def write(self, folder: Path, name: str) -> None:
        """``<name>.png``, the overlay, and ``<name>_labelIds.png``."""
        self.save(folder / f"{name}.png")
        self.save_label_ids(folder / f"{name}_labelIds.png")


class SegmentationPredictor(Predictor):
    """Predicts at ``data.image_size`` where the model was evaluated at one, else at the picture's own size.

    Views of it (windows, scales, mirrored) are those that the section ``evaluation`` of the configuration asks for.
    """

    model: Segmenter

    def __init__(self, model: nn.Module, config: Config, label_map: LabelMap, device: torch.device) -> None:
        super().__init__(model, config, label_map, device)
        self.views = views_from_config(config.evaluation, config.data.crop_size)

    @torch.inference_mode()
    def predict(self, picture: str | Path | np.ndarray | Image.Image) -> SegmentationResult:
        """As :meth:`Predictor.predict`; the class map has the picture's own size."""
        array = _rgb(picture)
        size = (array.shape[0], array.shape[1])
        seen = resize_image(array, self.config.data.image_size or size)
        images = torch.from_numpy(seen.copy()).permute(2, 0, 1)[None].to(self.device)
        classes = see(self.model, images, size, self.model.head.align_corners, self.views)
        return SegmentationResult(array, classes[0].cpu().numpy(), self.label_map)


@dataclass(frozen=True)
class DetectionResult:
    """Boxes in a picture, the best first.

    picture: (H, W, 3) uint8 RGB, as it was given. boxes: (N, 4) float32 xyxy in its pixels. scores: (N,) float32, 0..1.
    labels: (N,) int64 class indices. label_map: the classes.
    """

    picture: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    label_map: LabelMap

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each box's class."""
        return tuple(self.label_map.names[label] for label in self.labels)

    def overlay(self, min_score: float = DRAWN_SCORE) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the boxes of at least ``min_score`` drawn on the picture."""
        sure = self.scores >= min_score
        return draw_boxes(self.picture, self.boxes[sure], self.labels[sure], self.scores[sure], self.label_map)

    def save(self, path: str | Path) -> None:
        """Write :meth:`overlay` in the format of the file's suffix.

        Raises:
            UserError: the suffix is no picture format.
        """
        _write_picture(Path(path), self.overlay())

    def to_dict(self) -> dict[str, Any]:
        """For json: ``size`` (height, width) and every detection with class, dataset id, score and xyxy box."""
        ids = self.label_map.ids
        columns = (self.labels.tolist(), self.scores.tolist(), self.boxes.tolist())
        detections = [
            {"name": self.label_map.names[label], "category_id": ids[label], "score": score, "box": box}
            for label, score, box in zip(*columns, strict=True)
        ]
        return {"size": list(self.picture.shape[:2]), "detections": detections}

    def write(self, folder: Path, name: str) -> None:
        """``<name>.png``, the overlay, and ``<name>.json``, :meth:`to_dict`."""
        self.save(folder / f"{name}.png")
        write_json(folder / f"{name}.json", self.to_dict())


class DetectionPredictor(Predictor):
    """Predicts at ``data.image_size``, the aspect not kept, as the model was trained."""

    model: SSDLite

    def __init__(self, model: nn.Module, config: Config, label_map: LabelMap, device: torch.device) -> None:
        super().__init__(model, config, label_map, device)
        self.postprocess = build_postprocess(config.model.head)

    @torch.inference_mode()
    def predict(self, picture: str | Path | np.ndarray | Image.Image) -> DetectionResult:
        """As :meth:`Predictor.predict`; boxes are in the picture's own pixels."""
        array = _rgb(picture)
        height, width = self.config.data.image_size or array.shape[:2]
        resized = resize_image(array, (height, width))
        images = torch.from_numpy(resized.copy()).permute(2, 0, 1)[None].to(self.device)
        (found,) = self.postprocess(self.model(images), self.model.anchors((height, width)), (height, width))
        found = found.resized((height, width), (array.shape[0], array.shape[1]))
        boxes, scores, labels = (values.cpu().numpy() for values in (found.boxes, found.scores, found.labels))
        return DetectionResult(array, boxes, scores, labels, self.label_map)


PREDICTORS: dict[str, type[Predictor]] = {"segmentation": SegmentationPredictor, "detection": DetectionPredictor}


def load(path: str | Path, device: str | torch.device = "cpu") -> Predictor:
    """The model of a checkpoint, ready to predict; needs nothing but the file.

    Raises:
        UserError: no such file, no whole checkpoint of densevision, weights that do not fit their configuration,
            or a device that is not there.
    """
    target = _device(device)
    stored = read_densevision_checkpoint(path)
    config = stored_config(stored, str(path)).config
    if config.task not in PREDICTORS:
        raise UserError(f"{path} was trained for {config.task}; only {', '.join(PREDICTORS)} can be predicted")
    model = model_from_checkpoint(stored, str(path))
    return PREDICTORS[config.task](model, config, stored_label_map(stored, str(path)), target)


def model_from_checkpoint(stored: dict[str, Any], source: str) -> Segmenter | SSDLite:
    """Rebuild the model of a checkpoint with its weights, on the CPU, in evaluation mode.

    Args:
        stored: what :func:`densevision.checkpoint.read_densevision_checkpoint` gave.
        source: the file, for messages.

    Raises:
        UserError: its configuration is not valid, or its weights do not fit it.
    """
    config, label_map = stored_config(stored, source).config, stored_label_map(stored, source)
    model = build_model(config.model, label_map.num_classes, load_weights=False)
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


def _device(device: str | torch.device) -> torch.device:
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"no device '{device}' here; cpu always works, cuda with an NVIDIA GPU ({reason})") from error
    return target


def _rgb(picture: str | Path | np.ndarray | Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB of whatever was given."""
    if isinstance(picture, (str, Path)):
        return read_image(picture)
    if isinstance(picture, Image.Image):
        if picture.mode[0] in "IF":
            raise ValueError(f"a PIL picture of mode {picture.mode} has no 8-bit values; give the file instead")
        return np.array(picture.convert("RGB"))
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        raise ValueError(f"expected (H, W, 3) RGB or (H, W) grey in uint8, got {picture.shape} {picture.dtype}")
    if picture.size == 0:
        raise ValueError(f"a picture of {picture.shape} has no pixels")
    return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture


def _write_picture(path: Path, picture: np.ndarray) -> None:
    if path.suffix.lower() == ".png":
        write_png(path, picture)  # several times as fast as PIL's
        return
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise UserError(f"{path}: '{path.suffix}' is no picture format; name it .png or .jpg")
    with atomic_write(path) as partial:
        Image.fromarray(picture).save(partial)
