"""Muon for the 1x1 convolutions of a backbone, AdamW for all else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

_COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the quintic whose iteration drives singular values to about 1


class Muon(AdamW):
    """AdamW, and in groups with ``matrices=True`` steps along the nearest orthogonal matrix of the momentum.

    A matrix moves by ``lr * 0.2 * sqrt(longer side)`` times an orthogonal matrix, so that its entries move by as much
    as AdamW's do and one learning rate serves both. Sources: Jordan et al., Muon (2024), with Nesterov's momentum and
    five iterations in the gradient's precision; the length of the step is that of Liu et al., Muon is Scalable (2025).
    The momentum is the group's first beta, which ``one_cycle`` moves as it does AdamW's.

    torch.optim.Muon takes two-dimensional parameters and no others beside them, and Lightning wants one optimiser.

    Args:
        params: groups; those with ``matrices=True`` hold weights of 1x1 convolutions (out, in, 1, 1).
        lr: as AdamW's.
    """

    def __init__(self, params: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__([{"matrices": False, **group} for group in params], lr=lr)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all groups."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group["matrices"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._step_matrix(parameter, group)
        try:
            self.param_groups = [group for group in groups if not group["matrices"]]
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _step_matrix(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient, state, beta = parameter.grad, self.state[parameter], group["betas"][0]
        assert gradient is not None
        if not state:  # AdamW's names: it looks for them when a state is loaded
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
        state["step"] += 1
        momentum = state["exp_avg"].lerp_(gradient, 1 - beta)
        update = orthogonalised(gradient.lerp(momentum, beta).flatten(1))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.view_as(parameter), alpha=-group["lr"] * 0.2 * max(update.shape) ** 0.5)


def orthogonalised(matrix: Tensor, iterations: int = 5) -> Tensor:
    """About the nearest matrix with orthonormal rows or columns: all singular values come near 1. (m, n) -> (m, n)."""
    a, b, c = _COEFFICIENTS
    x = matrix / (matrix.norm() + 1e-7)
    upright = x.shape[0] > x.shape[1]
    if upright:
        x = x.T
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if upright else x
