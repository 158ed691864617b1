"""The training of what a search has found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from densevision import experiment
from densevision.backbones import Architecture, architecture_from_dict, architecture_to_dict
from densevision.config import LoadedConfig, config_from_dict, config_to_dict, flat_items
from densevision.config.loader import read_yaml
from densevision.config.search_schema import SearchRun
from densevision.errors import UserError
from densevision.io import atomic_write
from densevision.search.trials import TrialStore

ARCH = "arch.yaml"
INHERITED = "inherited.pt"


def train_found(
    loaded: LoadedConfig, run: SearchRun, architecture: Architecture, store: TrialStore, key: str, console: Console
) -> dict[str, Any] | None:
    """Train what was found, in the same run directory, as ``train`` does.

    Args:
        loaded: the search's configuration. run: its values, with the pictures' size that was chosen.
        architecture: what was found. key: of its trial in ``store``.

    Returns:
        The training's summary; None where it had ended before.

    Raises:
        UserError: the run directory holds the training of another network, or with other values.
    """
    run_dir = loaded.run_dir
    values = config_to_dict(run)
    search = values.pop("search")
    values["output_dir"] = str(run_dir)
    values["model"]["backbone"]["arch"] = architecture_to_dict(architecture)
    values["model"]["pretrained"] = values["model"]["backbone"]["pretrained"] = None
    if search["retrain"] == "inherit":
        values["model"]["pretrained"] = str(run_dir / INHERITED)
    if (run_dir / "config.yaml").exists() and (other := _other_training(run_dir / "config.yaml", architecture, values)):
        raise UserError(
            f"{run_dir} holds the training of {other}; delete config.yaml, summary.json and checkpoints there, or "
            "search in another output_dir"
        )
    if (run_dir / "summary.json").exists():
        console.print(f"{run_dir} holds the finished training of what was found", highlight=False, soft_wrap=True)
        return None
    if search["retrain"] == "inherit":
        _write_inherited(run_dir, values, store, key)
    training = config_from_dict(values, str(run_dir / "search.yaml"))
    console.print(f"training {run_dir / ARCH}", highlight=False, soft_wrap=True)
    return experiment.train(LoadedConfig(training.config, loaded.name, loaded.origins), console)


def _other_training(config: Path, architecture: Architecture, values: dict[str, Any]) -> str:
    """What a training's configuration is of, where that is another network or other values; else nothing."""
    try:
        known = read_yaml(config)
        same = architecture_from_dict(known["model"]["backbone"]["arch"], str(config)) == architecture
        before = {"model.pretrained": known["model"]["pretrained"]}
    except (UserError, KeyError, TypeError):
        same = False
    if not same:
        return f"another network than {config.parent / ARCH}"
    now = {"model.pretrained": values["model"]["pretrained"]}
    for part in ("data", "loss", "optim", "trainer"):  # the model is resolved in the one and not in the other
        before |= dict(flat_items({part: known.get(part, {})}))
        now |= dict(flat_items({part: values[part]}))
    changed = [f"{key}={before.get(key)}" for key in now if now[key] != before.get(key) and key != "trainer.resume"]
    return f"the same network with {', '.join(changed)}" if changed else ""


def _write_inherited(run_dir: Path, values: dict[str, Any], store: TrialStore, key: str) -> None:
    """The found network's weights as a file for ``model.pretrained``."""
    weights = {f"model.{name}": value for name, value in store.inherited(key).weights.items()}
    with atomic_write(run_dir / INHERITED) as partial:
        torch.save({"state_dict": weights, "densevision": {"config": values}}, partial)
