"""The same few pictures of the validation split, drawn as the training goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.trainer.states import TrainerFn

from densevision.io import write_png
from densevision.structures import SampleKey
from densevision.visualize import grid


class FixedPictures(pl.Callback):
    """Draws ``count`` pictures, evenly spread over the validation split, every ``every`` evaluations and at the last.

    Writes ``folder/step_NNNNNNNN.png``, one row a picture, and hands the rows to W&B. What a row shows is the
    task's own ``draw_prediction(sample)``.
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
        samples = [dataset[SampleKey(0, int(index))] for index in indices]
        task: Any = pl_module
        rows = [task.draw_prediction(sample) for sample in samples]
        write_png(self.folder / f"step_{trainer.global_step:08d}.png", grid([[row] for row in rows]))
        loggers: list[Any] = trainer.loggers
        for logger in loggers:
            logger.log_image("val/pictures", rows, step=trainer.global_step, caption=[s["name"] for s in samples])
