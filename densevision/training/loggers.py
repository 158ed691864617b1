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
    mode = wandb_mode(config.wandb.mode)
    if mode == "disabled":
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    id_file = run_dir / "wandb_id.txt"
    run_id = id_file.read_text().strip() if id_file.exists() else uuid.uuid4().hex[:8]
    if getattr(rank_zero_only, "rank", 0) == 0:
        id_file.write_text(run_id + "\n")
    return WandbLogger(
        project=config.wandb.project,
        entity=config.wandb.entity,
        name=config.wandb.name or run_dir.name,
        group=config.wandb.group,
        tags=list(config.wandb.tags),
        id=run_id,
        save_dir=str(run_dir),
        offline=mode == "offline",
        config=config_to_dict(config),
    )


def wandb_mode(mode: str) -> str:
    """``auto`` becomes online where there is a login and offline elsewhere; WANDB_MODE has the last word."""
    if "WANDB_MODE" in os.environ:
        return os.environ["WANDB_MODE"]
    if mode != "auto":
        return mode
    return "online" if wandb.login(prompt=False) else "offline"
