"""What the predictors of all tasks share: pictures in, results out, files written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

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

    def drawn(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the prediction on the picture, of the same size for all pictures of one size."""

    def to_dict(self) -> dict[str, Any]:
        """The prediction in values that JSON has."""

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

    def predict_batch(self, pictures: Sequence[np.ndarray]) -> list[Any]:
        """The results of several pictures of one shape, (H, W, 3) uint8 RGB, in one pass where the model can."""
        return [self.predict(picture) for picture in pictures]

    def predict_many(
        self, paths: Iterable[str | Path], batch_size: int = 1
    ) -> Iterator[tuple[Path, Result | UserError]]:
        """Each file with its result, in the given order; with the error where a file cannot be read.

        Args:
            batch_size: how many consecutive pictures of one shape are predicted in one pass.
        """
        waiting: list[tuple[Path, np.ndarray]] = []
        for path in map(Path, paths):
            try:
                picture = read_image(path)
            except UserError as error:
                yield from self._predict_all(waiting)
                waiting = []
                yield path, error
                continue
            if waiting and (len(waiting) == batch_size or waiting[0][1].shape != picture.shape):
                yield from self._predict_all(waiting)
                waiting = []
            waiting.append((path, picture))
        yield from self._predict_all(waiting)

    def _predict_all(self, waiting: list[tuple[Path, np.ndarray]]) -> Iterator[tuple[Path, Result | UserError]]:
        paths, pictures = [path for path, _ in waiting], [picture for _, picture in waiting]
        try:
            yield from zip(paths, self.predict_batch(pictures) if pictures else [], strict=True)
        except UserError as error:  # of a size that the file does not take, which all of them have
            yield from ((path, error) for path in paths)


class NetworkPredictor(Predictor):
    """A model in evaluation mode, in PyTorch.

    Attributes:
        model: the plain nn.Module. device: where it is.
    """

    def __init__(self, model: nn.Module, config: Config, label_map: LabelMap, device: torch.device) -> None:
        super().__init__(config, label_map)
        self.model = model.to(device).eval()
        self.device = device

    def _images(self, pictures: Iterable[np.ndarray]) -> torch.Tensor:
        """(B, 3, H, W) of B pictures (H, W, 3), on the device."""
        return torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2).to(self.device)


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
