"""Configuration -> data + task + trainer: put together once, for every command."""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import OmegaConf
from rich.console import Console

from datamodules import DATAMODULES, TASK_DATAMODULES
from densevision.config import Config, LoadedConfig, config_to_dict, lookup
from densevision.errors import Stopped, UserError
from densevision.io import atomic_write, make_folder, remove_partial_files, write_json
from densevision.launch import is_first_process, is_restart
from densevision.model_heads import check_head
from densevision.models import build_model, check_batch_norm, coco_ids, resolved
from densevision.quantize import calibrate, quantized
from densevision.segmentation.losses import sqrt_class_weights
from densevision.structures import LabelMap
from densevision.tasks.base import BaseTask
from densevision.tasks.classification import ClassificationTask
from densevision.tasks.detection import DetectionTask
from densevision.tasks.segmentation import SegmentationTask
from densevision.training.checkpoints import BEST, LAST, Checkpoints
from densevision.training.loggers import RunLogger, build_wandb_logger, finish_wandb
from densevision.training.origin import describe_origin, write_origin
from densevision.training.processes import telling_of_lost_processes
from densevision.training.recalibration import note_lag
from densevision.training.resume import METRICS, SUMMARY, ResumePoint, cut_metrics, find_resume_point, set_aside
from densevision.training.step_times import peak_memory_mib
from densevision.training.stopping import StopSignals, requeue
from densevision.training.trainer import build_trainer, processes_of, quiet_libraries

TASKS: dict[str, Callable[..., BaseTask]] = {
    "segmentation": SegmentationTask,
    "detection": DetectionTask,
    "classification": ClassificationTask,
}


def build_datamodule(config: Config) -> Any:
    """The datamodule that ``data.name`` names for the task; nothing is read yet.

    Raises:
        UserError: no such format, or one that has no labels for the task.
    """
    fitting, name = TASK_DATAMODULES[config.task], config.data.name
    if name in DATAMODULES and name not in fitting:
        raise UserError(f"{name} has no labels for {config.task}; known: {', '.join(fitting)}", key="data.name")
    return lookup("data set", name, fitting, key="data.name")(config.data, seed=config.seed)


def build_task(
    config: Config, label_map: LabelMap, class_weights: Sequence[float] | None = None, model: Any = None
) -> BaseTask:
    """A model in the task that trains it: ``model``, or a new one with weights from torch's generator or a
    ``pretrained`` key."""
    task = lookup("task", config.task, TASKS, key="task")
    check_head(config.task, config.model)
    if model is None:
        model = build_model(
            config.model, label_map.num_classes, class_ids=coco_ids(label_map) if config.model.pretrained else None
        )
        if config.quantize.mode == "qat":
            model = quantized(model)
    return task(laid_out(model, config), label_map, config, *([] if class_weights is None else [class_weights]))


def laid_out(model: Any, config: Config) -> Any:
    """The model with weights in the order that ``trainer.channels_last`` says; activations follow."""
    return model.to(memory_format=torch.channels_last) if config.trainer.channels_last else model


def train(loaded: LoadedConfig, console: Console) -> dict[str, Any]:
    """Train as configured, going on from the run directory's last checkpoint where there is one.

    Returns:
        The summary, which also lies in ``summary.json``: ``run_dir``, ``steps``, ``evaluation``, ``best``,
        ``parameters``, ``seconds``, ``peak_memory_mib``, and the files.

    Raises:
        UserError: something about the configuration, the data or the run directory is wrong.
        Stopped: a signal asked for it, and the run has saved.
    """
    with StopSignals() as signals:
        return _train(loaded, console, signals)


def _train(loaded: LoadedConfig, console: Console, signals: StopSignals) -> dict[str, Any]:
    began = time.perf_counter()
    config, run_dir = loaded.config, loaded.run_dir
    quiet_libraries()
    with loaded.blaming_origin():
        processes_of(config.trainer)
        check_end(config)
        check_int8(config)
        datamodule = build_datamodule(config)
        datamodule.setup("fit")
        datamodule.train_dataloader()  # says so now if the split does not fill a batch
        pl.seed_everything(config.seed, workers=True, verbose=False)
        check_batch_norm(config.model, config.data.crop_size or config.data.image_size, config.data.batch_size)
        config.model = resolved(config.model)
        task = build_task(config, datamodule.label_map, class_weights(config, datamodule))
        trainer = build_trainer(config, run_dir, console, signals)
        point = _begin_run_directory(config, run_dir, trainer.world_size, console)
        if config.quantize.mode == "qat" and point is None:
            batches = datamodule.statistics_dataloader(0, config.quantize.calibration_batches)
            calibrate(task.model, (batch["images"] for batch in batches))
        if not config.trainer.bn_recalibration and (note := note_lag(task.model, _batches(config, datamodule))):
            console.print(f"warning: {note}", highlight=False, soft_wrap=True)
        origin = describe_origin(task, datamodule) if is_first_process() else {}
        if origin and (note := write_origin(run_dir, origin)):
            console.print(f"warning: {note}", highlight=False)
    trainer.logger = build_wandb_logger(config, run_dir, origin, console)
    parameters = sum(parameter.numel() for parameter in task.model.parameters())
    console.print(
        f"{config.model.head.name} on {config.model.backbone.name}: {parameters / 1e6:.2f} M parameters; "
        f"{len(datamodule.train_dataset)} training and {len(datamodule.val_dataset)} validation pictures; {run_dir}",
        highlight=False,
        soft_wrap=True,
    )
    try:
        _fit(trainer, task, datamodule, point, console)
    except Stopped as stop:
        if stop.number == signal.SIGUSR1 and is_first_process() and (outcome := requeue()):
            console.print(outcome, highlight=False, soft_wrap=True)
        raise
    summary = _summary(trainer, task, run_dir, parameters, time.perf_counter() - began)
    if trainer.is_global_zero:
        write_json(run_dir / SUMMARY, summary)
    return summary


def _fit(trainer: pl.Trainer, task: BaseTask, datamodule: Any, point: ResumePoint | None, console: Console) -> None:
    """Train to the end, and close the loggers however it ends."""
    failed, run_dir = True, Path(trainer.default_root_dir)
    try:
        with telling_of_lost_processes():
            trainer.fit(task, datamodule=datamodule, ckpt_path=point.path if point else None)
        if isinstance(trainer.logger, RunLogger):
            trainer.logger.log_best(_best(trainer, task), _artifacts(task.config, run_dir))
        failed = False
    except SystemExit:  # what Lightning makes of an interrupt
        raise KeyboardInterrupt from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(f"{error.filename or run_dir} cannot be written: {error.strerror}") from error
    finally:
        if problem := finish_wandb(trainer.logger, failed):
            console.print(f"warning: {problem}", highlight=False, soft_wrap=True)


def _batches(config: Config, datamodule: Any) -> int:
    """How many training batches a process passes in the whole run."""
    settings = config.trainer
    if settings.max_steps is not None:
        return settings.max_steps * settings.accumulate
    return int(settings.max_epochs or 0) * len(datamodule.train_dataloader())


def check_end(config: Config) -> None:
    """Refuse a training without an end."""
    if config.trainer.max_steps is None and config.trainer.max_epochs is None:
        raise UserError("give trainer.max_steps or trainer.max_epochs, so that the training ends")


def check_int8(config: Config) -> None:
    """Refuse a training for int8 that has nothing to go on from, or statistics of batch normalisation to estimate."""
    if config.quantize.mode == "qat":
        if config.model.pretrained is None:
            raise UserError("training for int8 goes on from a trained network: name its checkpoint", "model.pretrained")
        if config.trainer.bn_recalibration:
            raise UserError(
                "training for int8 has batch normalisation folded into the weights, with the statistics of "
                "model.pretrained; there are none to estimate: it takes trainer.bn_recalibration=0",
                key="trainer.bn_recalibration",
            )


def class_weights(config: Config, datamodule: Any) -> list[float] | None:
    """The weights that ``loss.class_weights`` asks for, None for none.

    Raises:
        UserError: not as many as there are classes, or another task than segmentation.
    """
    weights = config.loss.class_weights
    if weights is None:
        return None
    if config.task != "segmentation":
        raise UserError("only segmentation weighs its classes", key="loss.class_weights")
    if weights == "sqrt":
        return sqrt_class_weights(datamodule.class_pixel_counts(), config.loss.class_weights_cap)
    number = datamodule.label_map.num_classes
    if not isinstance(weights, list) or len(weights) != number or not all(isinstance(w, int | float) for w in weights):
        raise UserError(f"expected null, sqrt or {number} numbers, got {weights}", key="loss.class_weights")
    return [float(weight) for weight in weights]


def _begin_run_directory(config: Config, run_dir: Path, processes: int, console: Console) -> ResumePoint | None:
    """Find where to go on; put away what an earlier run left; write the configuration."""
    resume = config.trainer.resume
    if resume == "never" and is_restart():
        resume = "auto"  # it has begun anew the first time
    if resume == "never" and is_first_process() and (aside := set_aside(run_dir)):
        console.print(f"the earlier run now lies in {aside}")
    point = find_resume_point(resume, run_dir, config)
    if point is not None:
        notes = [f"warning: {note}" for note in point.notes]
        if point.processes != processes:
            notes.append(
                f"warning: {point.processes} processes trained together and now it is {processes}; a step takes "
                f"{config.data.batch_size} pictures of each"
            )
        for line in (*notes, f"going on from {point.path}, step {point.step}"):
            console.print(line, highlight=False, soft_wrap=True)
    if is_first_process():
        make_folder(run_dir)
        remove_partial_files(run_dir / "checkpoints")
        (run_dir / SUMMARY).unlink(missing_ok=True)
        cut_metrics(run_dir / METRICS, point.step if point else 0)
        with atomic_write(run_dir / "config.yaml") as temporary:
            temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(config_to_dict(config))), encoding="utf-8")
    return point


def _best(trainer: pl.Trainer, task: BaseTask) -> dict[str, Any]:
    keeper = _keeper(trainer)
    return {task.monitor: keeper.best, "step": keeper.best_step}


def _keeper(trainer: pl.Trainer) -> Checkpoints:
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next(callback for callback in callbacks if isinstance(callback, Checkpoints))


def _artifacts(config: Config, run_dir: Path) -> list[Path]:
    names = {"none": (), "best": (BEST,), "all": (BEST, LAST)}[config.wandb.checkpoints]
    return [run_dir / "checkpoints" / name for name in names]


def _summary(trainer: pl.Trainer, task: BaseTask, run_dir: Path, parameters: int, seconds: float) -> dict[str, Any]:
    pictures = sorted((run_dir / "pictures").glob("*.png"))
    return {
        "run_dir": str(run_dir),
        "steps": trainer.global_step,
        "evaluation": task.report,
        "best": _best(trainer, task),
        "parameters": parameters,
        "seconds": round(seconds, 1),
        "peak_memory_mib": round(peak_memory_mib()),
        "files": {
            "best": str(run_dir / "checkpoints" / BEST),
            "last": str(run_dir / "checkpoints" / LAST),
            "metrics": str(run_dir / METRICS),
            "pictures": str(pictures[-1]) if pictures else None,
        },
    }
