"""Everything that can be wrong with a training, tried on the spot: configuration, data, model, one step, memory."""

from __future__ import annotations

import os
import resource
import time
import weakref
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from densevision.config import LoadedConfig
from densevision.config.schema import Config, TrainerConfig
from densevision.errors import UserError
from densevision.experiment import build_datamodule, build_task, check_end, check_int8, class_weights
from densevision.models import check_batch_norm, resolved
from densevision.structures import SampleKey
from densevision.training.optim import build_optimizer
from densevision.training.resume import find_resume_point
from densevision.training.trainer import quiet_libraries

_FEW = 2  # pictures of the step, fewer than a batch has: a login node is no place for more


def dry_run(loaded: LoadedConfig, console: Console) -> None:
    """Try a training on this machine's CPU, whatever devices it is meant for; nothing is written.

    Raises:
        UserError: what the training would have stopped with, as far as one step shows it.
    """
    config, run_dir = deepcopy(loaded.config), loaded.run_dir
    quiet_libraries()

    def say(topic: str, text: str) -> None:
        console.print(f"{topic:10} {text}", highlight=False, soft_wrap=True)

    with loaded.blaming_origin():
        check_end(config)
        check_int8(config)
        config.model = resolved(config.model)
        meant = deepcopy(config)  # what the run would be
        data, settings = config.data, config.trainer
        batch_size, processes = data.batch_size, _processes(settings)
        data.cache, data.num_workers = "none", 0  # a store is filled by the run
        began = time.perf_counter()
        datamodule = build_datamodule(config)
        datamodule.setup("fit")
        datamodule.check_batch_size(processes)
        sizes = f"{len(datamodule.train_dataset)} training and {len(datamodule.val_dataset)} validation pictures"
        took = time.perf_counter() - began
        say("data", f"{sizes} of {datamodule.label_map.num_classes} classes, looked up in {took:.1f} s")
        step = batch_size * processes * settings.accumulate
        say("a step", f"{step} pictures: {batch_size} x {processes} processes x {settings.accumulate} batches")

        torch.manual_seed(config.seed)
        check_batch_norm(config.model, data.crop_size or data.image_size, batch_size)
        task = build_task(config, datamodule.label_map, class_weights(config, datamodule))
        parameters = sum(parameter.numel() for parameter in task.model.parameters())
        say("model", f"{config.model.head.name} on {config.model.backbone.name}, {parameters / 1e6:.2f} M parameters")

        data.batch_size = min(_FEW, batch_size)
        batch = next(iter(datamodule.train_dataloader()))
        own = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux; libraries, data and model
        began = time.perf_counter()
        loss, fixed, each = _one_step(task, batch, settings.precision)
        took = time.perf_counter() - began
        say("step", f"loss {loss:.4f}, {took:.1f} s for {data.batch_size} pictures on this CPU")
        with torch.inference_mode():
            task.eval()
            task.show_prediction(datamodule.val_dataset[SampleKey(0, 0)])
        say("prediction", "one validation picture")

        averaged = 0 if config.optim.ema_decay is None else 4 * parameters
        total = fixed + averaged + batch_size * each
        say(
            "memory",
            f"about {_size(total)} of tensors a process: {_size(fixed + averaged)} for weights, gradients and "
            f"optimiser, and {_size(each)} for each of {batch_size} pictures, at {settings.precision}; on a CPU the "
            f"process itself has {_size(own)} more",
        )
        _say_where(meant, run_dir, say)


def _say_where(config: Config, run_dir: Path, say: Any) -> None:
    point = find_resume_point(config.trainer.resume, run_dir, config)
    there = next(folder for folder in (run_dir, *run_dir.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"{there} is no folder that can be written to; the run is to lie in {run_dir}", "output_dir")
    say("run", f"{run_dir}, {'from the beginning' if point is None else f'going on from step {point.step}'}")


def _processes(settings: TrainerConfig) -> int:
    """Processes that the configuration speaks of; where it leaves them to the launcher, 1."""
    devices = str(settings.devices)
    return (int(devices) if devices.isdigit() else 1) * settings.num_nodes


def _one_step(task: Any, batch: Any, precision: str) -> tuple[float, int, int]:
    """Learn from a batch.

    Returns:
        the loss; bytes that any batch takes: weights, their gradients and the optimiser's state; bytes that each
        picture takes at most at once.
    """
    if precision == "64-true":
        task.double()
    optimizer = build_optimizer(task.model, task.config.optim)
    with _LiveBytes() as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision.endswith("-mixed")):  # half types are of one size
            total, count = task.batch_loss(batch)
        loss = total / count.clamp(min=1)
        loss.backward()
        optimizer.step()
    weights = [*task.model.parameters(), *task.model.buffers()]
    gradients = [parameter.grad for parameter in task.model.parameters() if parameter.grad is not None]
    state = [value for values in optimizer.state.values() for value in values.values() if torch.is_tensor(value)]
    lasting = _bytes(gradients) + _bytes(state)
    return float(loss.detach()), _bytes(weights) + lasting, max(0, live.most - lasting) // len(batch["images"])


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside and still live; ``most`` is the greatest sum there was."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in given and storage not in self._known:
                    self._known.add(storage)
                    self._add(storage.nbytes())
                    weakref.finalize(storage, self._add, -storage.nbytes())
        self.most = max(self.most, self.now)
        return out

    def _add(self, number: int) -> None:
        self.now += number


def _bytes(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _size(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
