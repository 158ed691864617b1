"""Checkpoints that are whole or not there: the last, the one before it, and the best."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from densevision.errors import Stopped, UserError
from densevision.io import atomic_write
from densevision.training.stopping import LateNumbers, StopSignals, ballot, elected

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
NEXT = "next.ckpt"  # while a save lasts; after a kill it may stay, and the next save writes over it


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a neighbouring file and renames it, so that a killed process leaves no half checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with atomic_write(path) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # torch's writer does not say what the system said
                free = shutil.disk_usage(temporary.parent).free / 2**20
                full = f"the disk is full ({free:.1f} MiB are free)"
                reason = full if free < 1 else f"{str(error).splitlines()[0]}, with {free:.0f} MiB free on the disk"
                raise UserError(f"{path} cannot be written: {reason}") from error


class Checkpoints(Checkpoint):
    """Keeps ``last.ckpt``, ``previous.ckpt`` and ``best.ckpt`` in ``folder``, each a file of its own.

    Saved after each evaluation (so also at the end), and every ``every`` steps between. The best is the first with
    the greatest ``task.evaluation[task.monitor]``; a value that is not a number counts as the least. Wherever a save is
    cut off, the last checkpoint or the one before it is whole, and going on from it writes what is missing.

    A signal that asks to stop (Ctrl-C, SIGTERM, or SIGUSR1, by which SLURM tells that the time is nearly over) lets the
    step end, and an evaluation that belongs to it, saves and raises :class:`densevision.errors.Stopped`. Of several
    processes all stop at the same step by the same signal, whichever got it.

    Lightning's ModelCheckpoint is not used: its ``save_last`` is not the last when the metric worsens.
    """

    def __init__(self, folder: Path, every: int, signals: StopSignals) -> None:
        self.folder = folder
        self.every = every
        self.signals = signals
        self.best: float | None = None
        self.best_step = 0
        self._last_is_whole = False
        self._votes = LateNumbers()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.signals.listen()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_is_whole = trainer.ckpt_path == self.folder / LAST  # it has been read; another may be damaged
        # Lightning does so only where it sets up the loader after reading the checkpoint; counting the steps of epochs
        # sets it up before, and the epoch would begin again at its first pictures
        trainer.fit_loop._load_combined_loader_states()
        self.signals.listen()  # Lightning's own handler of SIGTERM sends messages from within whatever is interrupted

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        task: Any = pl_module
        task.asks_to_stop = self.signals.received

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop = trainer.fit_loop
        if loop._should_accumulate():
            return
        task: Any = pl_module
        stop = self.signals.received
        if trainer.world_size > 1:
            stop = elected(self._votes.exchange(task.stop_votes))  # of the step before: nobody waits for the device
        due = stop is not None or trainer.global_step % self.every == 0
        # a checkpoint before an evaluation would, resumed, take it for done
        if due and not loop.epoch_loop._should_check_val_fx(loop._data_fetcher):  # type: ignore[arg-type]
            self._save(trainer)
            self._stop(trainer, stop)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        task: Any = pl_module
        value = task.evaluation.get(task.monitor, math.nan)
        score = -math.inf if math.isnan(value) else value
        better = self.best is None or score > self.best
        if better:
            self.best, self.best_step = score, trainer.global_step
        self._save(trainer, better)
        votes = ballot(self.signals.received, task.step_totals)
        if trainer.world_size > 1:
            dist.all_reduce(votes)
        self._stop(trainer, elected(votes.tolist()))

    def _stop(self, trainer: pl.Trainer, number: int | None) -> None:
        if number is not None and not trainer.should_stop:  # a run at its end may end
            raise Stopped(number)

    def _save(self, trainer: pl.Trainer, is_best: bool = False) -> None:
        try:
            self._write(trainer, is_best)
        except UserError as error:
            before = any((self.folder / name).exists() for name in (LAST, PREVIOUS))
            left = "the checkpoint before it is whole" if before else "there is no checkpoint before it"
            raise UserError(f"{error}; {left}") from error

    def _write(self, trainer: pl.Trainer, is_best: bool) -> None:
        new, last = self.folder / NEXT, self.folder / LAST
        trainer.save_checkpoint(new)
        if not trainer.is_global_zero:
            return
        if is_best:  # first: a last checkpoint that knows of a better one without its file would never write it
            with atomic_write(self.folder / BEST) as temporary:
                shutil.copyfile(new, temporary)
        if self._last_is_whole:
            last.replace(self.folder / PREVIOUS)
        new.replace(last)
        self._last_is_whole = True
