"""What a training step costs beyond a bare loop: the trainer, its callbacks and the log, W&B off.

    python tools/benchmarks/logging_overhead.py

A network of one layer learns from ready batches, so that nearly all of a step is overhead: in our trainer with the
default settings (loss, learning rate, images/s and what else a line of metrics.jsonl has, every 20 steps; a checkpoint
every 500), and in a bare loop with the same optimiser and schedule. A short run is taken off a long one: what happens
once a run does not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rounds import interleaved, one_thread
from torch import Tensor, nn
from torch.utils.data import DataLoader

from densevision.config.schema import Config, OptimConfig, TrainerConfig, WandbConfig
from densevision.segmentation.losses import SegmentationLoss
from densevision.structures import LabelMap
from densevision.tasks.base import BaseTask
from densevision.training.optim import build_optimizer, build_scheduler
from densevision.training.trainer import build_trainer, quiet_libraries

SHORT, LONG = 100, 500
WANTED = 1.5  # milliseconds
LABELS = LabelMap(ids=(0, 1, 2), names=("a", "b", "c"), colors=((0, 0, 0),) * 3)


class OneLayer(BaseTask):
    """The least that a task can be."""

    monitor = "score"

    def batch_loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        total, count = self.loss(self.model(batch["images"]), batch["labels"])
        return total, count

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluation = {"score": 0.0}


class Ready(pl.LightningDataModule):
    """The same batches again and again, without a file."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(64, 3, 8, 8, generator=generator)
        labels = torch.randint(0, 3, (64, 8, 8), generator=generator, dtype=torch.uint8)
        batches = zip(images.split(2), labels.split(2), strict=True)
        self.batches = [{"images": x, "labels": y} for x, y in batches]
        self.val_dataset: list[Any] = []

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.batches[:1], batch_size=None)  # type: ignore[arg-type]


def settings(steps: int) -> Config:
    """The defaults, but for the length, and for evaluating at the end alone."""
    return Config(
        optim=OptimConfig(),
        trainer=TrainerConfig(max_steps=steps, val_every=steps, accelerator="cpu"),
        wandb=WandbConfig(mode="disabled"),
    )


def in_our_trainer(steps: int) -> None:
    config = settings(steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, Path(folder), Console(quiet=True))
        trainer.fit(OneLayer(nn.Conv2d(3, 3, 1), SegmentationLoss(True), LABELS, config), datamodule=Ready())


def in_a_bare_loop(steps: int) -> None:
    model, loss, batches = nn.Conv2d(3, 3, 1), SegmentationLoss(True), Ready().batches
    optim = settings(steps).optim
    optimizer = build_optimizer(model, optim)
    schedule = build_scheduler(optimizer, optim, steps)
    for step in range(steps):
        batch = batches[step % len(batches)]
        total, count = loss(model(batch["images"]), batch["labels"])
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        schedule.step()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    one_thread()
    quiet_libraries()
    peers = {
        f"{name} {steps}": (lambda run=run, steps=steps: run(steps))
        for name, run in (("ours", in_our_trainer), ("bare", in_a_bare_loop))
        for steps in (SHORT, LONG)
    }
    seconds = interleaved(peers, rounds)
    a_step = {}
    for name in ("bare", "ours"):
        pairs = zip(seconds[f"{name} {SHORT}"], seconds[f"{name} {LONG}"], strict=True)
        a_step[name] = [1e3 * (long - short) / (LONG - SHORT) for short, long in pairs]
    overhead = statistics.median(ours - bare for ours, bare in zip(a_step["ours"], a_step["bare"], strict=True))
    bare = statistics.median(a_step["bare"])
    missed = overhead > WANTED
    print(
        f"a bare step {bare:.2f} ms, ours {statistics.median(a_step['ours']):.2f} ms: {overhead:.2f} ms more, at most "
        f"{WANTED} wanted{': MISSED' if missed else ''} (median of {rounds} interleaved rounds, CPU clock, 1 thread)"
    )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
