"""What a search's trial is: a network trained for a few steps by the task's own recipe, and judged."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console

from densevision.backbones import Architecture, architecture_to_dict
from densevision.config import Config, config_from_dict, config_to_dict
from densevision.config.search_schema import SearchRun
from densevision.errors import UserError
from densevision.experiment import build_datamodule, build_task, class_weights
from densevision.models import build_model, coco_ids
from densevision.search.slicing import slice_weights
from densevision.search.trials import Inherited, Outcome
from densevision.tasks.base import BaseTask
from densevision.training.recalibration import BatchNormRecalibration
from densevision.training.trainer import build_trainer, quiet_libraries

# search.objective -> what a trial's score is. A reward multiplies it, so that it must be positive and better when
# greater: a negative loss would not do
OBJECTIVES = {"score": "score", "loss": "exp(-loss)"}


def trial_setting(run: SearchRun) -> dict[str, Any]:
    """All that the outcome of a trial depends on but the network, as plain values; ``run.model`` must be resolved.

    Raises:
        UserError: the data is divided by ``data.val_fraction`` already.
    """
    config = config_to_dict(run)
    search = config.pop("search")
    data, defaults = config["data"], config_to_dict(SearchRun())
    if search["holdout"] is not None:
        if data["val_fraction"] is not None:
            raise UserError(
                "data.val_fraction divides the training pictures already; search.holdout=null judges on that part",
                key="search.holdout",
            )
        data["val_fraction"], data["val_split"] = search["holdout"], "held out of the training pictures"
    config["output_dir"], config["wandb"] = None, defaults["wandb"]
    config["trainer"] |= {"devices": 1, "num_nodes": 1, "resume": "never", "max_epochs": None}
    config["trainer"] |= {"max_steps": None, "val_every": None}
    config["model"]["backbone"]["arch"] = None
    return {"config": config, "objective": OBJECTIVES[search["objective"]]}


class TaskTrial:
    """Trains and judges networks by one setting: a :data:`densevision.search.trials.Trial`.

    Args:
        setting: as :func:`trial_setting` gives it.
    """

    def __init__(self, setting: Mapping[str, Any]) -> None:
        self.config = config_from_dict(dict(setting["config"]), "the trial").config
        self.objective = setting["objective"]
        self._class_weights: tuple[list[float] | None] | None = None  # of the same pictures in all trials

    def __call__(self, architecture: Architecture, inherited: Inherited | None, steps: int, seed: int) -> Outcome:
        began = time.perf_counter()
        quiet_libraries()
        config = deepcopy(self.config)
        config.seed = seed
        config.trainer.max_steps = config.trainer.val_every = steps or None
        config.model.backbone.arch = architecture_to_dict(architecture)
        datamodule = build_datamodule(config)
        datamodule.setup("fit")
        if self._class_weights is None:
            self._class_weights = (class_weights(config, datamodule),)
        (weights,) = self._class_weights
        pl.seed_everything(seed, workers=True, verbose=False)
        model = _model(config, datamodule.label_map, inherited)
        task = build_task(config, datamodule.label_map, weights, model)
        trainer = build_trainer(config, None, Console(quiet=True))
        if steps:
            if config.trainer.bn_recalibration:
                trainer.callbacks.append(BatchNormRecalibration(config.trainer.bn_recalibration))  # type: ignore[attr-defined]
            try:
                trainer.fit(task, datamodule=datamodule)
            except SystemExit:  # what Lightning makes of an interrupt
                raise KeyboardInterrupt from None
        else:
            trainer.validate(task, datamodule=datamodule, verbose=False)
        what, details = task.monitor, dict[str, Any](evaluation=task.evaluation)
        judged = float(task.evaluation[what]) if self.objective == "score" else _loss(task, datamodule)
        if self.objective != "score":
            what, details["loss"] = "the loss", judged
        if not math.isfinite(judged):
            raise UserError(
                f"{what} of a network is {judged} on the pictures that judge; either training diverged (lower "
                "optim.lr) or these pictures hold nothing that is annotated (see search.holdout)"
            )
        return Outcome(
            score=judged if self.objective == "score" else math.exp(-judged),
            weights={name: value.detach().cpu().clone() for name, value in task.model.state_dict().items()},
            details={**details, "seconds": round(time.perf_counter() - began, 2)},
        )


def _model(config: Config, label_map: Any, inherited: Inherited | None) -> Any:
    if inherited is None:
        return build_model(
            config.model, label_map.num_classes, class_ids=coco_ids(label_map) if config.model.pretrained else None
        )
    parent_config = deepcopy(config.model)
    parent_config.backbone.arch = architecture_to_dict(inherited.architecture)
    parent = build_model(parent_config, label_map.num_classes, load_weights=False)
    parent.load_state_dict(inherited.weights)
    model = build_model(config.model, label_map.num_classes, load_weights=False)
    model.load_state_dict(slice_weights(parent, model.backbone.architecture))
    return model


@torch.no_grad()
def _loss(task: BaseTask, datamodule: Any) -> float:
    """Mean loss over the pictures that judge, in evaluation mode."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task.to(device).eval()
    total = count = 0.0
    for batch in datamodule.val_dataloader():
        moved = pl.LightningDataModule.transfer_batch_to_device(datamodule, batch, device, 0)
        part, size = task.batch_loss(moved)
        total, count = total + float(part), count + float(size)
    return total / max(count, 1.0)
