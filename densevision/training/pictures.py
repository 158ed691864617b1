"""The same few pictures of the validation split, drawn as the training goes, and the charts of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.trainer.states import TrainerFn

from densevision.io import write_jpeg, write_json, write_png
from densevision.structures import SampleKey
from densevision.training.exhibits import ShownPicture
from densevision.visualize import grid

LATEST = "latest"
_LONGEST = 1024  # pixels of the longer side in ``latest``


class FixedPictures(pl.Callback):
    """Draws ``count`` pictures, evenly spread over the validation split, every ``every`` evaluations and at the last.

    Writes ``folder/step_NNNNNNNN.png``, one row a picture, and its parts to ``folder/latest``, where
    ``pictures.json`` names them; hands pictures and charts to W&B. What they show is the task's own
    ``show_prediction(sample)`` and ``charts()``.
    """

    def __init__(self, folder: Path, count: int, every: int | None) -> None:
        self.folder = folder
        self.count = count
        self.every = every
        self.evaluations = 0

    def state_dict(self) -> dict[str, Any]:
        return {"evaluations": self.evaluations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.evaluations = state_dict["evaluations"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self.evaluations += 1
        due = self.every is not None and self.evaluations % self.every == 0
        if not (due or trainer.should_stop) or not trainer.is_global_zero:
            return
        dataset = trainer.datamodule.val_dataset  # type: ignore[attr-defined]
        indices = np.linspace(0, len(dataset) - 1, min(self.count, len(dataset))).round().astype(int)
        task: Any = pl_module
        shown = [task.show_prediction(dataset[SampleKey(0, int(index))]) for index in indices]
        write_png(self.folder / f"step_{trainer.global_step:08d}.png", grid([[one.drawing] for one in shown]))
        write_parts(self.folder / LATEST, shown, trainer.global_step)
        loggers: list[Any] = trainer.loggers
        for logger in loggers:
            logger.log_exhibits(shown, task.charts(), task.label_map, trainer.global_step)


def write_parts(folder: Path, shown: list[ShownPicture], step: int) -> None:
    """Write the panels as ``NN_<panel>.jpg``, no longer than 1024 pixels, and ``pictures.json`` that lists them."""
    listed = []
    for number, one in enumerate(shown):
        panels = {name: f"{number:02}_{name}.jpg" for name in one.panels}
        for name, panel in one.panels.items():
            scale = _LONGEST / max(panel.shape)
            small = cv2.resize(panel, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else panel
            write_jpeg(folder / panels[name], small)
        listed.append({"name": one.name, "panels": panels})
    write_json(folder / "pictures.json", {"step": step, "pictures": listed})
