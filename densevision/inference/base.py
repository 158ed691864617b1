"""What the predictors of all tasks share: pictures in, results out, files written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import nn

from densevision.config import Config
from densevision.errors import UserError
from densevision.io import atomic_write, read_image, write_png
from densevision.structures import LabelMap


class Result(Protocol):
    """What a prediction of any task can do."""

    @property
    def summary(self) -> str:
        """The prediction in a few words, for a line of a terminal."""

    def save(self, path: str | Path) -> None:
        """Draw the prediction on the picture and write that."""

    def write(self, folder: Path, name: str) -> None:
        """Write everything there is to keep, as files of ``folder`` that begin with ``name``."""


class Predictor:
    """Takes pictures of any kind and size.

    Attributes:
        config: as stored with the model. label_map: the classes.
    """

    def __init__(self, config: Config, label_map: LabelMap) -> None:
        self.config = config
        self.label_map = label_map

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


class NetworkPredictor(Predictor):
    """A model in evaluation mode, in PyTorch.

    Attributes:
        model: the plain nn.Module. device: where it is.
    """

    def __init__(self, model: nn.Module, config: Config, label_map: LabelMap, device: torch.device) -> None:
        super().__init__(config, label_map)
        self.model = model.to(device).eval()
        self.device = device


def rgb(picture: str | Path | np.ndarray | Image.Image) -> np.ndarray:
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


def write_picture(path: Path, picture: np.ndarray) -> None:
    if path.suffix.lower() == ".png":
        write_png(path, picture)  # several times as fast as PIL's
        return
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise UserError(f"{path}: '{path.suffix}' is no picture format; name it .png or .jpg")
    with atomic_write(path) as partial:
        Image.fromarray(picture).save(partial)
