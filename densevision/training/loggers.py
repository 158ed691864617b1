"""Weights & Biases: the only place that writes to it."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from densevision.config import config_to_dict
from densevision.config.schema import Config
from densevision.errors import UserError
from densevision.launch import is_first_process
from densevision.structures import IGNORE_INDEX, LabelMap
from densevision.training.exhibits import Chart, Confusion, ShownPicture
from densevision.visualize import confusion_picture

_PATIENCE = 10  # seconds; W&B itself tries for a minute and a half
_MOST_ROWS = 10_000  # of a table that W&B draws a chart of


class RunLogger(WandbLogger):
    """Lightning's logger, which makes one run a job, with our pictures and charts.

    Everything is drawn against ``images_seen``; the step is in every entry too, as ``trainer/global_step``.
    """

    sets_data_dir = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, begun at the first call; a dummy in all processes but the first.

        Raises:
            UserError: W&B cannot be reached, or refuses.
        """
        begun = self._experiment is not None
        try:
            run = super().experiment
        except wandb.Error as error:
            raise _not_online(error) from error
        if not begun:
            run.define_metric("images_seen")
            run.define_metric("*", step_metric="images_seen", step_sync=True)
        return run

    @rank_zero_only
    def log_exhibits(
        self, pictures: Sequence[ShownPicture], charts: dict[str, Chart], label_map: LabelMap, step: int
    ) -> None:
        """Log pictures with masks and boxes that the viewer can switch, and charts."""
        values: dict[str, Any] = {"val/pictures": [_image(picture, label_map) for picture in pictures]}
        for name, chart in charts.items():
            if isinstance(chart, Confusion):
                values[f"val/{name}"] = _confusion(chart)
                values[f"val/{name}_picture"] = wandb.Image(confusion_picture(chart.counts, chart.names))
            elif chart.curves:
                # thin enough a grid of recalls
                every = -(-len(chart.curves) * len(chart.recall) // _MOST_ROWS)
                curves = [curve[::every].tolist() for curve in chart.curves.values()]
                values[f"val/{name}"] = wandb.plot.line_series(
                    chart.recall[::every].tolist(),
                    curves,
                    list(chart.curves),
                    title=f"precision ({name})",
                    xname="recall",
                )
        self.experiment.log({**values, "trainer/global_step": step})

    @rank_zero_only
    def log_best(self, best: dict[str, Any], checkpoints: Sequence[Path]) -> None:
        """Write the best scores into the run's summary and hand the given checkpoints over as one artifact."""
        self.experiment.summary.update({f"best/{name}": value for name, value in best.items()})
        if checkpoints:
            artifact = wandb.Artifact(f"checkpoints-{self.experiment.id}", type="model", metadata=best)
            for file in checkpoints:
                artifact.add_file(str(file), file.name)
            self.experiment.log_artifact(artifact)


def build_wandb_logger(config: Config, run_dir: Path, origin: dict[str, Any], console: Console) -> RunLogger | None:
    """One logger for the job; None where ``wandb.mode`` is disabled.

    A resumed run keeps its id, which lies in ``run_dir/wandb_id.txt``; under a W&B agent it is the agent's. With a
    login and no way to the server (many clusters' nodes have none) ``auto`` goes on offline, and says so.

    Args:
        config: resolved; it becomes W&B's.
        run_dir: holds W&B's files, below ``wandb``.
        origin: goes into W&B's configuration below the key ``origin``.
    """
    # wandb reads these when it is first used, so before anything else
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    mode = wandb_mode(config.wandb.mode)
    if mode == "disabled":
        return None
    if mode == "online" and config.wandb.mode == "auto" and is_first_process() and (reason := unreachable()):
        mode = "offline"
        console.print(
            f"warning: W&B cannot be reached ({reason}): this run is kept offline; where there is a network, "
            f"wandb sync {run_dir}/wandb/offline-run-* uploads it",
            highlight=False,
            soft_wrap=True,
        )
    id_file = run_dir / "wandb_id.txt"
    given = os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8]
    run_id = id_file.read_text().strip() if id_file.exists() else given
    if getattr(rank_zero_only, "rank", 0) == 0:
        id_file.write_text(run_id + "\n")
    logger = RunLogger(
        project=config.wandb.project,
        entity=config.wandb.entity,
        name=config.wandb.name or run_dir.name,
        group=config.wandb.group,
        tags=list(config.wandb.tags),
        id=run_id,
        save_dir=str(run_dir.resolve()),
        mode=mode,  # not offline=True, which Lightning passes on through the environment, too late
        config={**config_to_dict(config), "origin": origin},
    )
    # what wandb sync is to upload waits beside the run, not in the user's home
    logger.sets_data_dir = "WANDB_DATA_DIR" not in os.environ
    os.environ.setdefault("WANDB_DATA_DIR", str(run_dir.resolve() / "wandb"))
    logger._wandb_init.pop("anonymous", None)  # W&B warns of it, and Lightning always passes it
    return logger


def finish_wandb(logger: Any, failed: bool) -> str | None:
    """Write out and close the run, so that the next one in this process is a run of its own.

    Returns:
        Why W&B could not write its files to the end, in a sentence; None where it could.
    """
    problem = None
    try:
        if wandb.run is not None:
            wandb.finish(exit_code=int(failed))
    except (OSError, wandb.Error) as error:
        problem = f"W&B's files of this run are not complete: {' '.join(str(error).split())}"
    if isinstance(logger, RunLogger) and logger.sets_data_dir:
        os.environ.pop("WANDB_DATA_DIR", None)
    return problem


def wandb_mode(mode: str) -> str:
    """``auto`` becomes what WANDB_MODE says; without it, online where there is a login and offline elsewhere.

    Raises:
        UserError: the login has not the form of one.
    """
    if mode != "auto":
        return mode
    try:
        return os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False, verify=False) else "offline")
    except (wandb.Error, ValueError) as error:
        raise _not_online(error) from error


def unreachable() -> str:
    """Why W&B's server does not answer; "" where it does, whatever it says."""
    address = wandb.setup().settings.base_url
    try:
        urllib.request.urlopen(address, timeout=_PATIENCE)  # by the proxies of the environment, as W&B's own client
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return f"{address}: {getattr(error, 'reason', error)}"
    return ""


def _not_online(error: Exception) -> UserError:
    said = " ".join(str(error).split())
    return UserError(f"W&B: {said}; wandb.mode=offline trains without it, to be uploaded later by wandb sync")


def _image(shown: ShownPicture, label_map: LabelMap) -> wandb.Image:
    names = dict(enumerate(label_map.names))
    masks = {
        kind: {"mask_data": mask, "class_labels": {**names, IGNORE_INDEX: "nothing is said"}}
        for kind, mask in shown.masks.items()
    }
    boxes = {
        kind: {"box_data": _boxes(*columns, label_map), "class_labels": names} for kind, columns in shown.boxes.items()
    }
    return wandb.Image(shown.panels["picture"], caption=shown.name, masks=masks or None, boxes=boxes or None)


def _boxes(
    boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray | None, label_map: LabelMap
) -> list[dict[str, Any]]:
    entries = []
    for number, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        entry: dict[str, Any] = {
            "position": dict(zip(("minX", "minY", "maxX", "maxY"), box, strict=True)),
            "domain": "pixel",
            "class_id": label,
            "box_caption": label_map.names[label],
        }
        if scores is not None:
            entry["scores"] = {"score": float(scores[number])}
            entry["box_caption"] += f" {scores[number]:.2f}"
        entries.append(entry)
    return entries


def _confusion(chart: Confusion) -> Any:
    """W&B's own chart of a confusion matrix, from counts; its function would want every pixel in a list."""
    rows = [
        [truth, prediction, float(chart.counts[i, j])]
        for i, truth in enumerate(chart.names[: len(chart.counts)])
        for j, prediction in enumerate(chart.names)
    ]
    columns: list[str | int] = ["Actual", "Predicted", "nPredictions"]
    return wandb.plot_table(
        data_table=wandb.Table(columns=columns, data=rows),
        vega_spec_name="wandb/confusion_matrix/v1",
        fields={str(name): str(name) for name in columns},
        string_fields={"title": "confusion matrix"},
    )
