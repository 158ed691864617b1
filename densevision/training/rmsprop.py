"""RMSprop as TensorFlow computes it, with which the MobileNet papers were trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class TensorFlowRMSprop(Optimizer):
    """RMSprop whose epsilon stands below the root, whose mean square begins at one, and whose momentum holds the rate.

    torch's adds epsilon behind the root and begins at zero: with the published rates its first steps are far larger,
    and small gradients count up to thirty times as much at an epsilon of 1e-3. As ``RMSpropTF`` of timm.

    Args:
        params: as any optimiser of torch takes them.
        lr: learning rate.
        momentum: of the steps, the rate being inside.
        alpha: share of the mean square that stays in a step.
        eps: added to the mean square.
        weight_decay: added to the gradient, times the weight.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        alpha: float = 0.9,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns what ``closure`` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for p in parameters:
                if p not in self.state:
                    self.state[p] = {"square_avg": torch.ones_like(p), "momentum_buffer": torch.zeros_like(p)}
            squares = [self.state[p]["square_avg"] for p in parameters]
            buffers = [self.state[p]["momentum_buffer"] for p in parameters]
            gradients: Any = [p.grad for p in parameters]
            if group["weight_decay"]:
                gradients = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
            torch._foreach_mul_(squares, group["alpha"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["alpha"])
            roots = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_addcdiv_(buffers, gradients, roots, group["lr"])
            torch._foreach_sub_(parameters, buffers)
        return loss
