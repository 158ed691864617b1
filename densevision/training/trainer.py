"""Lightning's trainer as a configuration wants it, over the processes that are there."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console

from densevision.config.schema import Config, TrainerConfig
from densevision.errors import UserError
from densevision.launch import meet_anew, started_processes
from densevision.training.checkpoints import AtomicCheckpointIO, Checkpoints
from densevision.training.ema import EMA
from densevision.training.pictures import FixedPictures
from densevision.training.processes import SyncNorm
from densevision.training.recalibration import BatchNormRecalibration
from densevision.training.resume import METRICS
from densevision.training.run_log import EvaluationBar, RunLog
from densevision.training.stopping import StopSignals


def build_trainer(
    config: Config, run_dir: Path | None, console: Console, signals: StopSignals | None = None
) -> pl.Trainer:
    """Lightning's trainer for training in ``run_dir``, or for evaluation alone where that is None.

    Args:
        signals: those that end a training; None where nobody sends any.

    Raises:
        UserError: a device, accelerator or number of nodes that is not there.
    """
    settings = config.trainer
    callbacks: list[pl.Callback] = [EvaluationBar(console)]
    if run_dir is not None:
        callbacks = [
            RunLog(run_dir / METRICS, settings.log_every, console),
            FixedPictures(run_dir / "pictures", settings.pictures, settings.pictures_every),
            Checkpoints(run_dir / "checkpoints", settings.checkpoint_every, signals or StopSignals()),
        ]
        if config.optim.ema_decay is not None:
            callbacks.append(EMA(config.optim.ema_decay))
        if settings.bn_recalibration:
            callbacks.append(BatchNormRecalibration(settings.bn_recalibration))  # of the average: after it
    devices, nodes = processes_of(settings)
    meet_anew()
    every = settings.val_every * settings.accumulate if settings.val_every else None  # Lightning counts batches
    try:
        return pl.Trainer(
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=nodes,
            precision=settings.precision,  # type: ignore[arg-type]
            max_steps=settings.max_steps or -1,
            max_epochs=settings.max_epochs or -1,
            val_check_interval=every,
            check_val_every_n_epoch=None if every else 1,
            accumulate_grad_batches=settings.accumulate,
            gradient_clip_val=config.optim.clip_norm,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the samplers of the datamodules know their share
            logger=False,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO(), *([SyncNorm()] if settings.sync_batchnorm else [])],
            default_root_dir=run_dir,
            log_every_n_steps=settings.log_every,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=run_dir is not None,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"these devices cannot be used (trainer.accelerator, devices, num_nodes): {reason}") from error


def processes_of(settings: TrainerConfig) -> tuple[int | str, int]:
    """Devices a node and nodes: those that torchrun or srun has started, else those configured.

    Raises:
        UserError: the configuration asks for others than were started, or for nodes and nobody has started them.
    """
    started = started_processes()
    if started is None:
        if settings.num_nodes > 1:
            raise UserError(
                "several nodes are started by torchrun or srun, one command on each; this process is alone",
                key="trainer.num_nodes",
            )
        return settings.devices, 1
    for key, asked, found in (("devices", settings.devices, started[0]), ("num_nodes", settings.num_nodes, started[1])):
        if asked not in (found, str(found), "auto", 1):
            raise UserError(
                f"torchrun or srun has started {started[0]} processes on each of {started[1]} nodes, and "
                f"trainer.{key} is {asked}: leave it out, or start as many",
                key=f"trainer.{key}",
            )
    return started


def quiet_libraries() -> None:
    """Leave what Lightning says at warnings: its advice and adverts are not about the user's run."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.raiseExceptions = False  # a full disk would have each line of W&B's own log print a traceback
    # what its own code does out of date, and advice to use more loader processes
    warnings.filterwarnings("ignore", module=r"lightning\.")
