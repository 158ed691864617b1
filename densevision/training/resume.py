"""Go on with a run: which checkpoint, whether it is the same experiment, and what of the log still holds."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densevision.checkpoint import read_densevision_checkpoint
from densevision.config import config_to_dict, flat_items
from densevision.config.lookup import suggestion
from densevision.config.schema import Config
from densevision.errors import UserError
from densevision.io import atomic_write
from densevision.training.checkpoints import LAST, PREVIOUS

# what may differ between a run and its continuation; all else would make it another experiment
_FREE = (
    "output_dir",
    "data.root",
    "data.num_workers",
    "data.eval_batch_size",
    "model.pretrained",  # the checkpoint's weights replace them
    "model.backbone.pretrained",
    "trainer.",
    "wandb.",
)
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class ResumePoint:
    """A whole checkpoint to go on from. notes: sentences about files that were passed over."""

    path: Path
    step: int
    notes: tuple[str, ...] = ()


def find_resume_point(resume: str, run_dir: Path, config: Config) -> ResumePoint | None:
    """The checkpoint that ``trainer.resume`` asks for; None to begin at step 0.

    ``auto`` takes ``last.ckpt`` of the run directory, or the one before it when that one is damaged; ``never``
    none; anything else is a checkpoint's path.

    Raises:
        UserError: the path is no whole checkpoint; every checkpoint of the run is damaged; or the checkpoint belongs
            to another experiment (names the keys that differ).
    """
    if resume == "never":
        return None
    if resume != "auto":
        return _resume_point(Path(resume), config)
    found = [path for name in (LAST, PREVIOUS) if (path := run_dir / "checkpoints" / name).exists()]
    notes: list[str] = []
    for path in found:
        try:
            stored = read_densevision_checkpoint(path)
        except UserError as error:
            notes.append(str(error))
            continue
        _check_same_experiment(stored, path, config)
        return ResumePoint(path, int(stored["global_step"]), tuple(notes))
    if found:
        raise UserError(f"{'; '.join(notes)}. Begin again with trainer.resume=never")
    return None


def _resume_point(path: Path, config: Config) -> ResumePoint:
    if not path.exists():
        near = suggestion(str(path), ["auto", "never"])
        raise UserError(f"expected auto, never or a checkpoint's path; there is no file {path}{near}", "trainer.resume")
    stored = read_densevision_checkpoint(path)
    _check_same_experiment(stored, path, config)
    return ResumePoint(path, int(stored["global_step"]))


def _check_same_experiment(stored: dict[str, Any], path: Path, config: Config) -> None:
    before = dict(flat_items(stored["densevision"]["config"]))
    now = dict(flat_items(config_to_dict(config)))
    # the one-cycle schedule is drawn up for all its steps and cannot be lengthened
    fixed = ("trainer.max_steps", "trainer.max_epochs") if config.optim.schedule == "one_cycle" else ()
    differing = [
        f"{key} was {before.get(key)}, now {now.get(key)}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key) and not (key.startswith(_FREE) and key not in fixed)
    ]
    if differing:
        raise UserError(
            f"{path} belongs to another experiment: {'; '.join(differing)}. "
            "Choose another output_dir, or trainer.resume=never to begin again"
        )


def set_aside(run_dir: Path) -> Path | None:
    """Move an earlier run out of the way of a new one; the new name, or None if there was nothing to move."""
    if not (run_dir / "checkpoints").exists() and not (run_dir / METRICS).exists():
        return None
    number = 1
    while (aside := run_dir.with_name(f"{run_dir.name}.{number}")).exists():
        number += 1
    shutil.move(run_dir, aside)
    return aside


def cut_metrics(file: Path, step: int) -> None:
    """Drop the lines of ``file`` that belong to steps after ``step``, and a line that was not written to its end."""
    if not file.exists():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry["step"] <= step:
            kept.append(line + "\n")
    with atomic_write(file) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
