"""DMaskingNAS on a task: its supernet, its two parts of the training pictures, and what was found, judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from itertools import islice, product
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from densevision.backbones import Architecture, architecture_to_dict
from densevision.config import config_from_dict
from densevision.config.search_schema import SearchRun
from densevision.errors import UserError
from densevision.experiment import build_datamodule, build_task, class_weights
from densevision.io import atomic_write
from densevision.models import build_model
from densevision.search.dmasking import Schedule, dmasking, priced_loss, read_state
from densevision.search.mask_space import MaskSpace, Operator
from densevision.search.supernet import Supernet
from densevision.tasks.base import BaseTask
from densevision.training.optim import build_optimizer, build_scheduler


def search_supernet(
    run: SearchRun,
    setting: Mapping[str, Any],
    seed: Architecture,
    target: float,
    run_dir: Path,
    report: Callable[[str], None],
) -> tuple[Architecture, list[int]]:
    """Train a supernet around ``seed`` and choose.

    The pictures that trials are judged on teach the choices; the others teach the weights.

    Args:
        setting: of the trials, see :func:`densevision.search_trial.trial_setting`.
        target: millions of multiply-adds.
        run_dir: ``supernet-DIGEST.pt`` is its state, ``supernet-DIGEST.jsonl`` its epochs; another search has another
            digest.

    Returns:
        the network, and the (height, width) that it was found for.

    Raises:
        UserError: a cost that is not differentiable, or a resolution to be chosen for a dense prediction.
    """
    if run.search.cost != "madds":
        raise UserError("a supernet's cost must have a gradient, which madds alone has", key="search.cost")
    options = run.search.supernet
    config = config_from_dict(dict(setting["config"]), "the search").config
    config.data.eval_batch_size = config.data.batch_size
    datamodule = build_datamodule(config)
    datamodule.setup("fit")
    classes, (height, width) = datamodule.label_map.num_classes, run.data.image_size
    pl.seed_everything(run.seed, workers=True, verbose=False)

    def build(architecture: Architecture) -> Any:
        model = deepcopy(config.model)
        model.backbone.arch = architecture_to_dict(architecture)
        return build_model(model, classes, load_weights=False)

    operators = [Operator(*kind) for kind in product(options.kernels, options.squeeze, options.acts)]
    space = MaskSpace(
        seed, options.widths, options.expansions, operators, options.skip, options.strides, step=options.step
    )
    if not space.decisions:
        raise UserError("there is one single network to choose from; give more widths or kinds", key="search.supernet")
    if 1 not in space.strides:
        raise UserError(f"expected 1, the whole picture, among them, got {options.strides}", "search.supernet.strides")
    net = Supernet(build, space, (height, width))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = build_task(config, datamodule.label_map, class_weights(config, datamodule), net.model).to(device)
    net.theta.to(device)
    net.set_gates({name: net.logits(name).softmax(0).detach() for name in space.decisions})
    state = run_dir / f"supernet-{_digest(run, setting, seed, target)}.pt"
    lines: list[dict[str, float]] = _known(state)

    def note(figures: dict[str, float]) -> None:
        lines.append(figures)
        with atomic_write(state.with_suffix(".jsonl")) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        report(
            f"epoch {figures['epoch'] + 1:.0f} of {options.epochs}: loss {figures['loss']:.4f}, expected cost "
            f"{figures['cost']:.4g} (target {target:.4g}), certainty {figures['certainty']:.2f}"
        )

    optimizer = build_optimizer(task.model, config.optim)
    steps = options.epochs * len(datamodule.train_dataloader())
    choice = dmasking(
        net,
        optimizer,
        build_scheduler(optimizer, config.optim, steps),
        torch.optim.Adam(net.theta.parameters(), lr=options.theta_lr, weight_decay=5e-4),
        lambda epoch: _batches(datamodule, device, epoch),
        lambda epoch: _moved(datamodule, datamodule.val_dataloader(), device),
        lambda batch: _mean_loss(task, batch),
        lambda loss, cost: priced_loss(loss, cost, target, options.strength, options.price),
        Schedule(options.epochs, options.warmup_epochs, options.temperature, options.decay),
        file=state,
        seed=run.seed,
        report=note,
    )
    stride = space.strides[choice.get("stride", 0)]
    return space.derive(choice), [-(-height // stride), -(-width // stride)]


def _mean_loss(task: BaseTask, batch: Any) -> Tensor:
    total, count = task.batch_loss(batch)
    return total / count.clamp(min=1.0)


def _batches(datamodule: Any, device: torch.device, epoch: int) -> Iterator[Any]:
    loader = datamodule.train_dataloader()
    loader.sampler.set_epoch(epoch)
    yield from islice(_moved(datamodule, loader, device), len(loader))


def _moved(datamodule: Any, loader: Any, device: torch.device) -> Iterator[Any]:
    for batch in loader:
        yield pl.LightningDataModule.transfer_batch_to_device(datamodule, batch, device, 0)


def _digest(run: SearchRun, setting: Mapping[str, Any], seed: Architecture, target: float) -> str:
    """Of all that the search's course depends on."""
    parts = [setting, vars(run.search.supernet), architecture_to_dict(seed), target, run.seed]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()


def _known(state: Path) -> list[dict[str, float]]:
    """The epochs of a search that is gone on with."""
    file = state.with_suffix(".jsonl")
    if not state.exists() or not file.exists():
        return []
    epoch = read_state(state)["epoch"]
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["epoch"] < epoch]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} has a damaged line: {error!r}; delete the line or the file") from error
