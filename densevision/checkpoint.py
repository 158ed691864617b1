"""Read a checkpoint file: tensors and plain values, nothing that runs code."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from densevision.config import LoadedConfig, config_from_dict
from densevision.errors import UserError
from densevision.paths import is_file
from densevision.structures import LabelMap


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The dictionary stored at ``path``, on the CPU, loaded under ``weights_only=True``.

    Raises:
        UserError: no such file, empty, damaged, or holding more than tensors and plain values.
    """
    path = Path(path)
    if not is_file(path):
        raise UserError(f"no checkpoint at {path}")
    try:
        _check_sums(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        reason = str(error).split("\n")[0].split(". ")[0] or type(error).__name__
        raise UserError(f"{path} is not a whole checkpoint of tensors and plain values: {reason}") from error
    if not isinstance(stored, dict):
        raise UserError(f"{path} holds a {type(stored).__name__}; a checkpoint holds named values")
    return stored


def _check_sums(path: Path) -> None:
    """Compare the checksums that torch writes into its files and does not compare itself; older formats have none."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if archive.testzip():
            raise zipfile.BadZipFile("a checksum in it is wrong")


def read_densevision_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of this project: with ``state_dict`` and the ``densevision`` part (version, config, label_map).

    Raises:
        UserError: as :func:`read_checkpoint`, or the file is no checkpoint of densevision.
    """
    stored = read_checkpoint(path)
    if not isinstance(stored.get("densevision"), dict) or "state_dict" not in stored:
        raise UserError(f"{path} is no checkpoint of densevision; a bare state dict goes to model.backbone.pretrained")
    weights = stored["state_dict"]
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"{path} holds no named weights; it is damaged or from another version of densevision")
    stored_config(stored, str(path))
    stored_label_map(stored, str(path))
    return stored


def stored_config(stored: dict[str, Any], source: str, overrides: Sequence[str] = ()) -> LoadedConfig:
    """The configuration of a checkpoint, with overrides on top; ``source`` names the file in messages.

    Raises:
        UserError: there is none, or a key or value in it or in an override is wrong.
    """
    values = stored["densevision"].get("config")
    if not isinstance(values, dict):
        raise UserError(f"{source} holds no configuration; it is damaged or from another version of densevision")
    return config_from_dict(values, source, overrides)


def stored_label_map(stored: dict[str, Any], source: str) -> LabelMap:
    """The classes of a checkpoint.

    Raises:
        UserError: there are none.
    """
    try:
        return LabelMap.from_dict(stored["densevision"]["label_map"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source} holds no list of classes; it is damaged or from another version") from error
