"""An exponential moving average of the weights, which is judged and stored in place of the weights themselves."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer

_PREFIX = "model."  # of the model's weights among those of its task


class EMA(pl.Callback):
    """Averages the model's weights and statistics after every step of the optimiser.

    The n-th step (from 0) moves the average by ``1 - min(decay, (1 + n) / (10 + n))`` towards the weights, so that a
    short run averages over its own length. The average begins with the weights after the first step: the initial ones
    are never in it, and before the first step there is none.

    Evaluation sees the average. In a checkpoint ``state_dict`` is the average, so that whoever loads it has what was
    judged, and this callback's state holds the weights that training goes on with.

    Lightning's EMAWeightAveraging is not used: it averages the task's counters with the weights, has no warm-up, and
    evaluates and exports the initial weights where it starts later than it is evaluated.

    Args:
        decay: weight of the old average, 0..1.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average: dict[str, Tensor] = {}
        self._own: dict[str, Tensor] | None = None  # the weights of training, while the model holds the average

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        task: Any = pl_module
        model: nn.Module = task.model
        own = model.state_dict()
        self.average = {name: value.to(own[name].device) for name, value in self.average.items()}

        def update(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            self.update(model)
            task.averaged = True

        self._hook = trainer.optimizers[0].register_step_post_hook(update)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights that the model has now; whole numbers are copied."""
        own = model.state_dict()
        if not self.average:
            self.average = {name: value.clone() for name, value in own.items()}
        else:
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            floating = [name for name, value in own.items() if value.is_floating_point()]
            torch._foreach_lerp_([self.average[n] for n in floating], [own[n] for n in floating], 1 - decay)
            for name in own.keys() - set(floating):
                self.average[name].copy_(own[name])
        self.updates += 1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and self.average:
            task: Any = pl_module
            self._own = _copy(task.model.state_dict())
            task.model.load_state_dict(self.average)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._own is not None:
            task: Any = pl_module
            self.average = _copy(task.model.state_dict())  # with the statistics that it was judged with
            task.model.load_state_dict(self._own)
            self._own = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._hook.remove()
        if self.average:
            task: Any = pl_module
            task.model.load_state_dict(self.average)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self.average:
            return
        assert self._own is None, "checkpoints are saved after on_validation_end"
        state = checkpoint["state_dict"]
        own = {name: state[_PREFIX + name] for name in self.average}
        checkpoint["callbacks"][self.state_key] = {"updates": self.updates, "own": own}
        checkpoint["state_dict"] = {**state, **{_PREFIX + name: value for name, value in self.average.items()}}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        stored = checkpoint["callbacks"].get(self.state_key)
        if stored is None:
            return
        task: Any = pl_module
        self.updates = stored["updates"]
        self.average = {name: checkpoint["state_dict"][_PREFIX + name].clone() for name in stored["own"]}
        task.model.load_state_dict(stored["own"])
        task.averaged = True


@torch.inference_mode(False)  # evaluation runs in inference mode, whose tensors could not be updated afterwards
def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}
