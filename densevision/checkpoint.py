"""Read a checkpoint file: tensors and plain values, nothing that runs code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from densevision.errors import UserError


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The dictionary stored at ``path``, on the CPU, loaded under ``weights_only=True``.

    Raises:
        UserError: no such file, empty, damaged, or holding more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is not a whole checkpoint of tensors and plain values ({reason})") from error
    if not isinstance(stored, dict):
        raise UserError(f"{path} holds a {type(stored).__name__}; a checkpoint holds named values")
    return stored


def read_densevision_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of this project: with ``state_dict`` and the ``densevision`` part (version, config, label_map).

    Raises:
        UserError: as :func:`read_checkpoint`, or the file is no checkpoint of densevision.
    """
    stored = read_checkpoint(path)
    if not isinstance(stored.get("densevision"), dict) or "state_dict" not in stored:
        raise UserError(f"{path} is no checkpoint of densevision; a bare state dict goes to model.backbone.pretrained")
    return stored
