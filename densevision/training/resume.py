"""Go on with a run: which checkpoint, whether it is the same experiment, and what of the log still holds."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
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
SUMMARY = "summary.json"  # it says that a run has ended


@dataclass(frozen=True)
class ResumePoint:
    """A whole checkpoint to go on from.

    step: of the optimiser. processes: that trained together. end: the last step of the run that is asked for; None
    where it is to have other epochs than the checkpoint's. notes: sentences about files that were passed over.
    """

    path: Path
    step: int
    processes: int
    end: int | None
    notes: tuple[str, ...] = ()


def find_resume_point(resume: str, run_dir: Path, config: Config) -> ResumePoint | None:
    """The checkpoint that ``trainer.resume`` asks for; None to begin at step 0.

    ``auto`` takes the latest whole checkpoint of the run directory: ``last.ckpt``, the one before it when that one is
    damaged, or Lightning's ``hpc_ckpt_N.ckpt`` when SLURM had it written after them; of a run that was cut off after
    its last step and has no summary, the latest before that. ``never`` takes none; anything else is a
    checkpoint's path.

    Raises:
        UserError: the path is no whole checkpoint; every checkpoint of the run is damaged; or the checkpoint belongs
            to another experiment (names the keys that differ), or to a run that has reached its end.
    """
    if resume == "never":
        return None
    point = _resume_point(Path(resume), config) if resume != "auto" else _latest_point(run_dir, config)
    if point is not None and point.end is not None and point.step >= point.end:
        key = "max_epochs" if config.trainer.max_steps is None else "max_steps"
        longer = "" if config.optim.schedule == "one_cycle" else f"raise trainer.{key} to go on, "
        raise UserError(
            f"{run_dir} holds a finished run of {point.step} steps: {longer}"
            "choose another output_dir, or begin again with trainer.resume=never"
        )
    return point


def _latest_point(run_dir: Path, config: Config) -> ResumePoint | None:
    own = [run_dir / "checkpoints" / name for name in (LAST, PREVIOUS)]
    found = [path for path in (*own, *run_dir.glob("hpc_ckpt_*.ckpt")) if path.exists()]
    notes: list[str] = []
    points = []
    for path in found:
        try:
            points.append(_read_point(path, config))
        except UserError as error:
            notes.append(str(error))
    if found and not points:
        raise UserError(f"{'; '.join(notes)}. Begin again with trainer.resume=never")
    if not points:
        return None
    stored, latest = max(points, key=lambda point: point[1].step)  # of equal ones the first
    _check_same_experiment(stored, latest.path, config)
    if _as_long(stored, config) and latest.step == latest.end and not (run_dir / SUMMARY).exists():
        # cut off between its last checkpoint and its summary: the last part is run again, with the same outcome
        earlier = [point for _, point in points if point.step < latest.step]
        if not earlier:
            return None
        latest = max(earlier, key=lambda point: point.step)
    return replace(latest, notes=tuple(notes))


def _read_point(path: Path, config: Config) -> tuple[dict[str, Any], ResumePoint]:
    checkpoint = read_densevision_checkpoint(path)
    stored, end = checkpoint["densevision"], config.trainer.max_steps
    if _as_long(stored, config):
        end = stored.get("total_steps", end)  # how many steps its epochs have
    return stored, ResumePoint(path, int(checkpoint["global_step"]), stored.get("processes", 1), end)


def _as_long(stored: dict[str, Any], config: Config) -> bool:
    """Whether the checkpoint's run was to be as long as the one that is asked for."""
    then, now = stored["config"]["trainer"], config.trainer
    return (then.get("max_steps"), then.get("max_epochs")) == (now.max_steps, now.max_epochs)


def _resume_point(path: Path, config: Config) -> ResumePoint:
    if not path.exists():
        near = suggestion(str(path), ["auto", "never"])
        raise UserError(f"expected auto, never or a checkpoint's path; there is no file {path}{near}", "trainer.resume")
    stored, point = _read_point(path, config)
    _check_same_experiment(stored, path, config)
    return point


def _check_same_experiment(stored: dict[str, Any], path: Path, config: Config) -> None:
    before = dict(flat_items(stored["config"]))
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
