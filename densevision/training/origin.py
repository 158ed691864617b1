"""Where a run comes from: code, libraries, machine, data and model, in ``origin.json`` and in W&B's configuration."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import lightning
import torch

import densevision
from densevision.complexity import measure
from densevision.io import write_json
from densevision.structures import SampleKey

ORIGIN = "origin.json"


def describe_origin(task: Any, datamodule: Any) -> dict[str, Any]:
    """What a run came from, for json.

    Args:
        task: the task, its model built.
        datamodule: set up for training.

    Returns:
        ``code`` (:func:`code_version`), ``libraries``, ``device``, ``monitor`` (the score that chooses the best),
        ``classes`` (names and colours), ``data`` (of each split the number of pictures and a fingerprint) and ``model``
        (``parameters``, ``paper_madds`` and ``conv_madds`` for the ``image_size`` of the first validation picture).
    """
    image = datamodule.val_dataset[SampleKey(0, 0)]["image"]
    image_size = (image.shape[-2], image.shape[-1])
    complexity = measure(task.model, image_size, dense=task.config.task == "segmentation")
    labels = task.label_map
    return {
        "code": code_version(),
        "libraries": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": lightning.__version__,
        },
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "monitor": task.monitor,
        "classes": {"names": list(labels.names), "colors": [list(color) for color in labels.colors]},
        "data": datamodule.fingerprints(),
        "model": {
            "parameters": complexity.params,
            "paper_madds": complexity.paper_madds,
            "conv_madds": complexity.conv_madds,
            "image_size": list(image_size),
        },
    }


def code_version() -> dict[str, Any]:
    """``version`` of the package, and where it lies in a git checkout of its own ``commit`` and ``changed``: whether a
    tracked file differs from it."""
    version: dict[str, Any] = {"version": densevision.__version__, "commit": None, "changed": None}
    home = Path(densevision.__file__).parent.parent
    top = _git(home, "rev-parse", "--show-toplevel")
    # installed into somebody else's checkout, that one's commit says nothing
    if top is not None and Path(top).resolve() == home.resolve():
        version["commit"] = _git(home, "rev-parse", "HEAD")
        version["changed"] = bool(_git(home, "status", "--porcelain", "--untracked-files=no"))
    return version


def write_origin(run_dir: Path, origin: dict[str, Any]) -> str | None:
    """Write ``origin.json``; a sentence where an earlier one, of which this run is the continuation, had other data."""
    file = run_dir / ORIGIN
    try:
        before = json.loads(file.read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError):
        before = origin["data"]
    write_json(file, origin)
    if before == origin["data"]:
        return None
    return "the data are no longer those that this run began with (their fingerprints differ)"


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
