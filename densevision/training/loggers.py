"""Weights & Biases: the only place that writes to it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from densevision.config import config_to_dict
from densevision.config.schema import Config


def build_wandb_logger(config: Config, run_dir: Path) -> WandbLogger | None:
    """One logger for the job; None where ``wandb.mode`` is disabled.

    A resumed run keeps its id, which lies in ``run_dir/wandb_id.txt``.
    """
    # wandb reads these when it is first used, so before anything else
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    mode = wandb_mode(config.wandb.mode)
    if mode == "disabled":
        return None
    id_file = run_dir / "wandb_id.txt"
    run_id = id_file.read_text().strip() if id_file.exists() else uuid.uuid4().hex[:8]
    if getattr(rank_zero_only, "rank", 0) == 0:
        id_file.write_text(run_id + "\n")
    logger = WandbLogger(
        project=config.wandb.project,
        entity=config.wandb.entity,
        name=config.wandb.name or run_dir.name,
        group=config.wandb.group,
        tags=list(config.wandb.tags),
        id=run_id,
        save_dir=str(run_dir),
        mode=mode,  # not offline=True, which Lightning passes on through the environment, too late
        config=config_to_dict(config),
    )
    logger._wandb_init.pop("anonymous", None)  # W&B warns of it, and Lightning always passes it
    return logger


def finish_wandb(failed: bool) -> None:
    """Write out and close the run, so that the next one in this process is a run of its own."""
    if wandb.run is not None:
        wandb.finish(exit_code=int(failed))


def wandb_mode(mode: str) -> str:
    """``auto`` becomes what WANDB_MODE says; without it, online where there is a login and offline elsewhere."""
    if mode != "auto":
        return mode
    return os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
