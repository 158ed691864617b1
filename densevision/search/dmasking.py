"""DMaskingNAS: weights and choices of a supernet are learnt in turn, each from pictures of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from densevision.errors import UserError
from densevision.io import atomic_write
from densevision.search.supernet import Supernet


@dataclass(frozen=True)
class Schedule:
    """epochs: in all. warmup: first ones in which the choices stand still. temperature: of the Gumbel-softmax in the
    first epoch, times ``decay`` with every further one (5 and 0.956 in the FBNet paper)."""

    epochs: int
    warmup: int = 1
    temperature: float = 5.0
    decay: float = 0.956


def priced_loss(loss: Tensor, cost: Tensor, target: float, strength: float, form: str = "log") -> Tensor:
    """The task's loss and the cost as one.

    form: ``log``, loss + strength * log(cost / target); ``power``, loss * (cost / target) ** strength. FBNet's is
        loss * a * log(cost) ** b; FBNetV2's exact form is not verified.
    """
    relative = cost / target
    return loss + strength * relative.log() if form == "log" else loss * relative**strength


def dmasking(
    net: Supernet,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    theta_optimizer: Optimizer,
    weight_batches: Callable[[int], Iterable[Any]],
    theta_batches: Callable[[int], Iterable[Any]],
    loss: Callable[[Any], Tensor],
    price: Callable[[Tensor, Tensor], Tensor],
    schedule: Schedule,
    *,
    file: Path,
    seed: int = 0,
    report: Callable[[dict[str, float]], None] = lambda figures: None,
) -> dict[str, int]:
    """Learn which network of the space to take.

    In every epoch the weights are trained on one part of the pictures, under gates drawn anew for each batch; then
    the logits of the choices on the other part. Source: FBNetV2 paper, 4; FBNet paper, 3.3.

    Args:
        optimizer, scheduler: of the model's weights; a step is a batch. theta_optimizer: of the choices' logits.
        weight_batches, theta_batches: epoch -> batches, the same ones whenever asked.
        loss: batch -> mean loss of the task on the supernet's model.
        price: of the task's loss and the cost, as :func:`priced_loss`.
        file: where the state is kept after every epoch; one that is there is gone on from.
        report: is told every epoch's ``epoch``, ``temperature``, ``loss`` (of the weights), ``theta_loss``, ``cost``
            (expected at the present logits, in millions) and ``certainty`` (mean probability of the likeliest choice).

    Returns:
        the likeliest choice of every decision.
    """
    parts = {
        "model": net.model,
        "theta": net.theta,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "theta_optimizer": theta_optimizer,
    }
    first = _load(parts, file)
    for epoch in range(first, schedule.epochs):
        torch.manual_seed(1_000_003 * seed + epoch)  # what is drawn follows from the epoch, resumed or not
        temperature = schedule.temperature * schedule.decay**epoch
        net.model.train()
        losses, theta_losses = [], []
        for batch in weight_batches(epoch):
            with torch.no_grad():
                gates = net.sample(temperature)
            net.set_gates(gates)
            value = loss(batch)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            scheduler.step()
            losses.append(value.detach())
        if epoch >= schedule.warmup:
            for batch in theta_batches(epoch):
                net.set_gates(net.sample(temperature))
                value = price(loss(batch), net.cost())
                theta_optimizer.zero_grad(set_to_none=True)
                value.backward()
                theta_optimizer.step()
                theta_losses.append(value.detach())
        with atomic_write(file) as partial:
            torch.save({**{name: part.state_dict() for name, part in parts.items()}, "epoch": epoch + 1}, partial)
        report({"epoch": epoch, "temperature": temperature, **_figures(net, losses, theta_losses)})
    return net.best()


@torch.no_grad()
def _figures(net: Supernet, losses: list[Tensor], theta_losses: list[Tensor]) -> dict[str, float]:
    probabilities = {name: net.logits(name).softmax(0) for name in net.space.decisions}
    net.set_gates(probabilities)
    figures = {
        "loss": float(torch.stack(losses).mean()) if losses else float("nan"),
        "cost": float(net.cost()),
        "certainty": sum(float(p.max()) for p in probabilities.values()) / max(1, len(probabilities)),
    }
    if theta_losses:
        figures["theta_loss"] = float(torch.stack(theta_losses).mean())
    return figures


def _load(parts: dict[str, Any], file: Path) -> int:
    """Take up the state of ``file``, if it is there; the epoch to go on with."""
    if not file.exists():
        return 0
    state = read_state(file)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["epoch"])


def read_state(file: Path) -> dict[str, Any]:
    """What :func:`dmasking` has kept, ``epoch`` (those that are done) among it.

    Raises:
        UserError: the file is damaged.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        int(state["epoch"])
    except Exception as error:  # whatever is in a damaged file, torch has another exception for it
        raise UserError(f"the state {file} of a supernet cannot be read; delete it to begin anew") from error
    return state
