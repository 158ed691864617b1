"""Statistics of batch normalisation that belong to the weights that are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_LAG = 0.05  # greatest share of its beginning that a statistic may have at the end of a run


class BatchNormRecalibration(pl.Callback):
    """Before each evaluation of a training run, estimates the running statistics anew from training batches.

    The running averages of training lag behind the weights: with the published momentum of 0.003 a short run is judged
    by the statistics of its first steps, and averaged weights (:class:`densevision.training.ema.EMA`) never had any.
    The new statistics are what is judged and what the checkpoint after the evaluation holds. What is learnt stays
    the same to the bit, as training normalises by its own batches. The batches are augmented as in training and
    follow from (seed, step) alone; they are passes beside the training, not counted as its pictures.

    Args:
        batches: how many of each process; at most one pass over the training split is made.
    """

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        task: Any = pl_module
        loader = trainer.datamodule.statistics_dataloader(trainer.global_step, self.batches)  # type: ignore[attr-defined]

        def forward(batch: Any) -> None:
            batch = trainer.strategy.batch_to_device(batch)
            with trainer.precision_plugin.forward_context():
                task.model(batch["images"])

        recalibrate(task.model, forward, loader)


def note_lag(model: nn.Module, batches: int) -> str | None:
    """A sentence where training's own running averages would be judged too early; None where they would not.

    They move by the momentum with each batch, so after few batches they are mostly the zeros and ones that they began
    with. Those that came with pretrained weights are left out: they are of pictures.
    """
    norms: list[Any] = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms if norm.momentum is not None and not norm.running_mean.any()]
    left = (1 - min(momenta, default=1.0)) ** batches
    if left <= _LAG:
        return None
    return (
        f"with a momentum of {min(momenta):g}, {left:.0%} of what batch normalisation began with is left in its "
        f"statistics after {batches} training batches, and evaluations say little of what was learnt: "
        "trainer.bn_recalibration=40 estimates them anew"
    )


@torch.no_grad()
def recalibrate(model: nn.Module, forward: Callable[[Any], None], batches: Iterable[Any]) -> None:
    """Set the running statistics of every batch normalisation to the plain mean over ``batches``.

    Every batch weighs the same: the mean of the batches' means, and of their unbiased variances, over the batches of
    all processes. All other layers work as in evaluation, so nothing is drawn. Source: Wu and Johnson, Rethinking
    "Batch" in BatchNorm (2021), section 3 (PreciseBN), with the batches' own variances.

    Args:
        model: left in the modes it came in; its batch counters stay.
        forward: passes one batch through ``model``.
        batches: at least one, or nothing is changed; in a distributed run as many in every process.
    """
    norms: list[Any] = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    seen = 0
    try:
        for batch in batches:
            for norm in norms if seen == 0 else ():
                norm.reset_running_stats()
                norm.momentum = None  # torch's word for the plain average over the batches since the reset
                norm.train()
            forward(batch)
            seen += 1
    finally:
        for norm, momentum, counter in kept:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(counter)
        for module, training in modes.items():
            module.training = training
    if seen and dist.is_available() and dist.is_initialized():
        for norm in norms:
            _average_over_processes(norm.running_mean)
            _average_over_processes(norm.running_var)


def _average_over_processes(statistic: Tensor) -> None:
    dist.all_reduce(statistic)
    statistic /= dist.get_world_size()
