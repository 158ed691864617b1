"""What all tasks share: one way to divide the loss, to step, and to store a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

import densevision
from densevision.config.loader import config_to_dict
from densevision.config.schema import Config, OptimConfig
from densevision.structures import LabelMap
from densevision.training.compiled import compile_training
from densevision.training.exhibits import Chart, ShownPicture
from densevision.training.optim import build_optimizer, build_scheduler
from densevision.training.stopping import ballot

# A loss sum over millions of pixels would overflow half precision; a power of two scales it without rounding.
_LOSS_SCALE = 2.0**-20


class BaseTask(pl.LightningModule):
    """Trains ``model`` by ``loss`` and judges it; subclasses say how a batch is used.

    The loss is a sum and a count (valid pixels, or positives). Gradients of the sum are divided by the count over
    all processes and accumulated batches just before the step, so that neither changes what is learnt.

    Attributes:
        monitor: the value of ``evaluation`` that chooses the best checkpoint; greater is better.
        evaluation: the latest evaluation, name -> number, for logs and for choosing the best; empty before the first.
        report: the same as ``--json`` of the evaluation has it; empty after a further step.
        averaged: whether evaluations and checkpoints are of averaged weights (:class:`densevision.training.ema.EMA`).
        loss_sum, loss_count: of all processes since the training log last took them; the same in each of them.
        asks_to_stop: the signal by which this process wants the training to end after a step, if any.
        stop_votes: of all processes before the latest step (``stopping.ballot``); the same in each of them.
    """

    monitor = ""
    loss_sum: Tensor
    loss_count: Tensor
    step_totals: Tensor

    def __init__(self, model: nn.Module, loss: nn.Module, label_map: LabelMap, config: Config) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.label_map = label_map
        self.config = config
        self.evaluation: dict[str, float] = {}
        self.report: dict[str, Any] = {}
        self.averaged = False
        self.asks_to_stop: int | None = None
        for name in ("loss_sum", "loss_count"):
            self.register_buffer(name, torch.zeros(()))  # in the checkpoint: a resumed log goes on in its middle
        self.register_buffer("step_totals", torch.zeros(2), persistent=False)  # of this process; sum and count
        self.stop_votes = ballot(None, self.step_totals)

    @property
    def optim(self) -> OptimConfig:
        """The optimiser's part of the configuration."""
        return self.config.optim

    def batch_loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Sum and count of the loss over one batch; two scalars."""
        raise NotImplementedError

    def show_prediction(self, sample: Any) -> ShownPicture:
        """A sample of the validation split with what is predicted of it."""
        raise NotImplementedError

    def charts(self) -> dict[str, Chart]:
        """Of the latest evaluation, by name."""
        return {}

    def keep_predictions(self, where: Path) -> None:
        """Have the evaluations write what they predict to ``where``, in the form that the data set's judges take."""
        raise NotImplementedError

    def on_fit_start(self) -> None:
        if self.config.trainer.compile:
            compile_training(self.model)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Let the step's chance (dropout) follow from (seed, epoch, batch, process) alone, resumed or not."""
        place = (self.config.seed, self.current_epoch, batch_idx, self.global_rank)
        seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)
        # torch.manual_seed would note where it was called from, for each kind of device that is not there: 1 ms a step
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss sum, to be divided before the optimiser steps."""
        total, count = self.batch_loss(batch)
        self.step_totals += torch.stack([total.detach(), count.detach()])
        return total * _LOSS_SCALE

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the count of all processes and accumulated batches; runs before any clipping."""
        self.report = {}  # is of the weights before this step
        totals = torch.cat([self.step_totals, ballot(self.asks_to_stop, self.step_totals)])
        self.step_totals.zero_()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(totals)
        total, count, self.stop_votes = totals[0], totals[1], totals[2:]
        self.loss_sum += total
        self.loss_count += count
        # Lightning divided the loss by the accumulated batches, DDP the gradients by the processes
        undo = self.trainer.world_size * self.trainer.accumulate_grad_batches / _LOSS_SCALE
        factor = undo / count.clamp(min=1.0)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch._foreach_mul_(gradients, factor)

    def take_loss(self) -> float:
        """Mean loss of all processes since it was last taken; waits for the device."""
        mean = float(self.loss_sum / self.loss_count.clamp(min=1.0))
        self.loss_sum.zero_()
        self.loss_count.zero_()
        return mean

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.optim)
        scheduler = build_scheduler(optimizer, self.optim, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _judged(self) -> dict[str, Any]:
        """What an evaluation said of these very weights, as ``--json`` has it; empty where there was none."""
        if not self.report:
            return {}
        pictures = len(self.trainer.datamodule.val_dataset)  # type: ignore[attr-defined]
        return {"split": self.config.data.val_split, "pictures": pictures, **self.report}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add all that :func:`densevision.load` needs, as plain values."""
        checkpoint["densevision"] = {
            "version": densevision.__version__,
            "config": config_to_dict(self.config),
            "label_map": self.label_map.to_dict(),
            "evaluation": dict(self.evaluation),
            "judged": self._judged(),
            "averaged": self.averaged,
            "processes": self.trainer.world_size,
            "total_steps": int(self.trainer.estimated_stepping_batches),
        }
