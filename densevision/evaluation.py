"""Judging a model by the data that its configuration names: a checkpoint in PyTorch, a file in its runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from densevision.checkpoint import read_densevision_checkpoint, stored_config, stored_label_map
from densevision.config import Config, LoadedConfig, config_from_dict, config_to_dict, flat_items, lookup
from densevision.config.schema import EvaluationConfig
from densevision.errors import UserError
from densevision.experiment import TASKS, build_datamodule, laid_out
from densevision.export import is_exported, open_file
from densevision.inference import FileNetwork, model_from_checkpoint
from densevision.io import make_folder
from densevision.structures import LabelMap
from densevision.tasks.segmentation import SegmentationTask
from densevision.training.processes import telling_of_lost_processes
from densevision.training.trainer import build_trainer, quiet_libraries

# keys of the model that say what is made of its outputs; all others are built into its weights
AFTER_THE_NETWORK = {
    f"model.head.{name}"
    for name in ("score_threshold", "nms_iou", "max_detections", "candidates_per_class", "clip_before_nms")
}


def evaluate(
    path: Path,
    overrides: Sequence[str],
    split: str | None,
    save_predictions: Path | None,
    console: Console,
    report: Path | None = None,
) -> dict[str, Any]:
    """Judge a model on a split of the data its configuration names, with overrides on top.

    Args:
        path: a checkpoint, or an exported file with raw outputs, which is run by its runtime, sees whole pictures of
            its size and is judged by the same code.

    Returns:
        The scores of the task as fractions, for segmentation ``miou`` and ``iou`` by class name, for detection
        ``map``, ``map_50``, ... and ``map_per_class`` (None where a class does not occur); ``pictures``, ``split`` and
        ``checkpoint``, of a split without labels these alone.

    Raises:
        UserError: a wrong file or override, data with other classes, a split without labels and no
            ``save_predictions``, or a ``report`` (a folder for people to read) of anything but labelled segmentation.
    """
    quiet_libraries()
    loaded, trained_on, model = (_exported if is_exported(path) else _checkpoint)(path, overrides)
    config = loaded.config
    with loaded.blaming_origin():
        datamodule = build_datamodule(config)
        # the loader is made when the processes know each other
        source = datamodule.val_dataset = datamodule.eval_dataset(split or config.data.val_split)
    if trained_on.names != datamodule.label_map.names:
        raise UserError(
            f"{path} was trained on the classes {', '.join(trained_on.names)}; the data set "
            f"'{config.data.name}' has {', '.join(datamodule.label_map.names)}"
        )
    with loaded.blaming_origin():
        task = lookup("task", config.task, TASKS)(model, datamodule.label_map, config)
    labelled = source.has_labels
    if not labelled and save_predictions is None:
        raise UserError(
            f"the split '{split}' has no labels to judge by; --save-predictions DIR writes what is predicted"
        )
    if save_predictions is not None:
        task.keep_predictions(save_predictions)
    if report is not None:
        if not isinstance(task, SegmentationTask) or not labelled:
            raise UserError("a report is written of segmentation on a split with labels")
        make_folder(report)  # a wrong path is told before the work
        task.picture_scores = {}
    trainer = build_trainer(config, run_dir=None, console=console)
    with telling_of_lost_processes():
        trainer.validate(task, datamodule=datamodule, verbose=False)
    result = {"checkpoint": str(path), "split": split or config.data.val_split, "pictures": len(source)}
    if report is not None and trainer.is_global_zero:
        assert isinstance(task, SegmentationTask)
        title = f"{path} on the {result['pictures']} pictures of {result['split']}"
        task.write_report(report, source, title)
    return {**result, **task.report} if labelled else result


def _checkpoint(path: Path, overrides: Sequence[str]) -> tuple[LoadedConfig, LabelMap, Any]:
    stored = read_densevision_checkpoint(path)
    loaded = stored_config(stored, str(path), overrides)
    with loaded.blaming_origin():
        check_same_model(loaded.config, stored_config(stored, str(path)).config)
    model = laid_out(model_from_checkpoint(stored, str(path)), loaded.config)
    return loaded, stored_label_map(stored, str(path)), model


def _exported(path: Path, overrides: Sequence[str]) -> tuple[LoadedConfig, LabelMap, Any]:
    runtime = open_file(path)
    metadata = runtime.metadata
    if metadata.finished:
        raise UserError(f"{path} gives finished results, not the raw outputs that are judged; export it without them")
    loaded = config_from_dict(metadata.config, str(path), overrides)
    with loaded.blaming_origin():
        check_same_model(loaded.config, config_from_dict(metadata.config, str(path)).config)
    loaded.config.trainer.accelerator, loaded.config.trainer.devices = "cpu", 1
    loaded.config.evaluation = EvaluationConfig(exact=loaded.config.evaluation.exact)
    loaded.config.data.image_size = list(metadata.image_size)
    return loaded, metadata.label_map, FileNetwork(runtime, loaded.config)


def check_same_model(config: Config, trained: Config) -> None:
    """Refuse overrides that the weights of a checkpoint cannot follow."""
    asked, stored = (dict(flat_items(config_to_dict(c))) for c in (config, trained))
    for key, value in asked.items():
        fixed = key.startswith(("task", "model.", "quantize.")) and key not in AFTER_THE_NETWORK
        if fixed and value != stored.get(key):
            trained_with = stored.get(key, "a table of its own")
            raise UserError(f"the checkpoint was trained with {trained_with}; only training changes that", key=key)
