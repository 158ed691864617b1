"""What a run writes while it goes: metrics.jsonl, W&B, and the lines or the bar that a person sees."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from densevision.errors import Stopped, UserError
from densevision.training.step_times import StepTimes, peak_memory_mib


class RunLog(pl.Callback):
    """Writes loss, learning rate and images/s every ``every`` steps, and each evaluation.

    A line of ``metrics.jsonl`` has ``step``, ``epoch``, ``images_seen`` (training pictures of all processes so far,
    repeats counted), ``seconds`` since this process began to train, and either
    ``train/loss``, ``train/lr``, ``train/images_per_second`` and ``train/data_wait`` (the share of the time waited for
    batches: what faster data would save) or the values of an evaluation (null where a class does not occur). The device
    is waited for on written steps only. Every 50th step has a line of its own: ``step/data``, ``step/forward``,
    ``step/backward``, ``step/optimizer`` (with the exchange of the gradients' counts and the average) and
    ``step/logging`` in milliseconds, and ``step/peak_memory_mib``; the exchange of gradients is in backward. Also ends
    the training with an evaluation.
    """

    def __init__(self, file: Path, every: int, console: Console) -> None:
        self.file = file
        self.every = every
        self.console = console
        self.progress: Progress | None = None
        self.total_steps = 0
        self.images_seen = 0

    def state_dict(self) -> dict[str, Any]:
        return {"images_seen": self.images_seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.images_seen = state_dict["images_seen"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.total_steps = int(trainer.estimated_stepping_batches)
        self._began = self._window_began = time.perf_counter()
        self._first_step = trainer.global_step
        self._waited = self._waited_before = self._waited_for_data(trainer)
        self._times = StepTimes()
        self._images = 0
        if trainer.is_global_zero and self.console.is_terminal:
            self.progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"),
                console=self.console,
            )
            self._bar = self.progress.add_task(
                "train", total=self.total_steps, values="", completed=trainer.global_step
            )
            self.progress.start()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # the scheduler has moved on when the step is written
        self._lr = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        waited = self._waited_for_data(trainer)
        self._times.begin_batch(trainer.global_step + 1, waited - self._waited_before)
        self._waited_before = waited

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Any) -> None:
        self._times.end("forward")

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._times.end("backward")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._times.end("optimizer")
        self._log_step(trainer, pl_module, len(batch["images"]) * trainer.world_size)
        if trainer.fit_loop._should_accumulate():
            return
        self._times.end("logging")
        times = self._times.take()
        if times is not None:
            peak = peak_memory_mib()
            self._write(trainer, {**times, "peak_memory_mib": peak}, prefix="step/")
            if trainer.is_global_zero and self.progress is None:
                parts = "  ".join(f"{name} {value:.1f}" for name, value in times.items())
                self._say(f"step {trainer.global_step}/{self.total_steps}  ms: {parts}  peak memory {peak:.0f} MiB")

    def _log_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, images: int) -> None:
        self._images += images
        self.images_seen += images
        step = trainer.global_step
        if trainer.fit_loop._should_accumulate():
            return
        if step >= self.total_steps:
            trainer.should_stop = True  # makes Lightning evaluate now, whatever val_every says
        if self.progress is not None:
            self.progress.update(self._bar, completed=step)
        if step % self.every and step < self.total_steps:
            return
        task: Any = pl_module
        loss = task.take_loss()
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {step}: lower optim.lr, warm up longer (optim.warmup_steps) or bound the "
                "gradient (optim.clip_norm)"
            )
        now, waited = time.perf_counter(), self._waited_for_data(trainer)
        values = {
            "loss": loss,
            "lr": self._lr,
            "images_per_second": self._images / (now - self._window_began),
            "data_wait": (waited - self._waited) / (now - self._window_began),
        }
        self._window_began, self._images, self._waited = now, 0, waited
        self._write(trainer, values, prefix="train/")
        text = f"loss {loss:.4f}  lr {values['lr']:.2e}  {values['images_per_second']:.1f} images/s"
        if self.progress is not None:
            self.progress.update(self._bar, values=text)
        elif trainer.is_global_zero:
            remaining = (now - self._began) / max(1, step - self._first_step) * (self.total_steps - step)
            self._say(f"step {step}/{self.total_steps}  {text}  eta {_clock(remaining)}")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluation_began = time.perf_counter()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.progress is not None:
            total = trainer.num_val_batches[0]
            self.progress.update(self._bar, values=f"evaluating {batch_idx + 1}/{total}")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        pause = time.perf_counter() - self._evaluation_began
        self._window_began += pause  # evaluation is not training time
        self._began += pause
        task: Any = pl_module
        self._write(trainer, task.evaluation, prefix="val/")
        if trainer.is_global_zero:
            headline = f"{task.monitor} {task.evaluation[task.monitor]:.4f}"
            self._say(f"step {trainer.global_step}/{self.total_steps}  {headline}  ({pause:.1f} s)")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_bar()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop_bar()
        if isinstance(exception, KeyboardInterrupt | Stopped) and trainer.is_global_zero:
            saved = (self.file.parent / "checkpoints" / "last.ckpt").exists()
            then = "the same command goes on from the last checkpoint" if saved else "there is no checkpoint yet"
            self._say(f"interrupted at step {trainer.global_step}; {then}")

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)  # a line stays one, also in a file

    @staticmethod
    def _waited_for_data(trainer: pl.Trainer) -> float:
        """Seconds so far, as the loaders of this project count them."""
        return getattr(trainer.train_dataloader, "waited", 0.0)

    def _stop_bar(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def _write(self, trainer: pl.Trainer, values: dict[str, float], prefix: str) -> None:
        if not trainer.is_global_zero:
            return
        named = {f"{prefix}{key}": None if math.isnan(value) else value for key, value in values.items()}
        seconds = round(time.perf_counter() - self._began, 3)
        place = {"step": trainer.global_step, "epoch": trainer.current_epoch, "images_seen": self.images_seen}
        line = {**place, "seconds": seconds, **named}
        try:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:  # a full disk
            raise UserError(f"{self.file} cannot be written: {error.strerror or error}") from error
        for logger in trainer.loggers:
            values = {k: v for k, v in named.items() if v is not None}
            logger.log_metrics({**values, "images_seen": self.images_seen}, step=trainer.global_step)


class EvaluationBar(pl.Callback):
    """A bar over the batches of an evaluation, on a terminal."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("evaluate"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and self.progress.console.is_terminal:
            self._bar = self.progress.add_task("evaluate", total=trainer.num_val_batches[0])
            self.progress.start()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.progress.live.is_started:
            self.progress.advance(self._bar)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.progress.stop()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
