"""Checkpoints that are whole or not there: the last, the one before it, and the best."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from densevision.errors import UserError
from densevision.io import atomic_write

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a neighbouring file and renames it, so that a killed process leaves no half checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:
            with atomic_write(path) as temporary:
                torch.save(checkpoint, temporary)
        except (UserError, RuntimeError) as error:  # torch's writer has no OSError for a full disk
            raise UserError(f"{error}; the checkpoint before it is whole") from error


class Checkpoints(Checkpoint):
    """Keeps ``last.ckpt``, ``previous.ckpt`` and ``best.ckpt`` in ``folder``.

    Saved after each evaluation (so also at the end), and every ``every`` steps between. The best is the first with
    the greatest ``task.evaluation[task.monitor]``; a value that is not a number counts as the least.

    An interrupt (Ctrl-C) lets the step end and saves before it stops the training, a second one stops at once; of
    several processes each stops at once, since they would not stop at the same step.

    Lightning's ModelCheckpoint is not used: its ``save_last`` is not the last when the metric worsens.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder = folder
        self.every = every
        self.best: float | None = None
        self.best_step = 0
        self.interrupted = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let a first interrupt wait for a whole step and its checkpoint; a second one stops at once."""
        alone = trainer.world_size == 1 and threading.current_thread() is threading.main_thread()
        if alone and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_interrupt)

    def _on_interrupt(self, number: int, frame: Any) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop = trainer.fit_loop
        due = (self.interrupted or trainer.global_step % self.every == 0) and not loop._should_accumulate()
        # a checkpoint before an evaluation would, resumed, take it for done
        if due and not loop.epoch_loop._should_check_val_fx(loop._data_fetcher):  # type: ignore[arg-type]
            self._save_last(trainer)
            self._stop_if_interrupted(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        task: Any = pl_module
        value = task.evaluation.get(task.monitor, math.nan)
        score = -math.inf if math.isnan(value) else value
        better = self.best is None or score > self.best
        if better:
            self.best, self.best_step = score, trainer.global_step
        self._save_last(trainer)
        if better and trainer.is_global_zero:
            _replace_by_copy(self.folder / LAST, self.folder / BEST)
        self._stop_if_interrupted(trainer)

    def _stop_if_interrupted(self, trainer: pl.Trainer) -> None:
        if self.interrupted and not trainer.should_stop:  # a run at its end may end
            raise KeyboardInterrupt

    def _save_last(self, trainer: pl.Trainer) -> None:
        last = self.folder / LAST
        if trainer.is_global_zero and last.exists():
            _replace_by_copy(last, self.folder / PREVIOUS)
        trainer.save_checkpoint(last)


def _replace_by_copy(source: Path, target: Path) -> None:
    """Let ``target`` name the file that ``source`` names now; ``source`` may later be renamed over."""
    temporary = target.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, temporary)
    temporary.replace(target)
