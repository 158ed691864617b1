"""Batch normalisation over the pictures of all processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


class SyncBatchNorm2d(nn.BatchNorm2d):
    """In training, normalises by mean and variance over the batches of all processes; else plain batch normalisation.

    torch's own SyncBatchNorm refuses CPU tensors; this one works with any backend. Processes may have batches of
    different sizes: every value weighs the same. The running statistics become the same in all processes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape; a collective in training and, for the gradients, in backward."""
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        out, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps)
        # as in torch: momentum None is the plain average over the batches, and the variance kept is the unbiased one
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), share)
        return out


class _Normalise(torch.autograd.Function):
    """One collective in each direction: moments are gathered, sums of the gradients added up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
        variance, mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)
        own = torch.cat([mean, variance, mean.new_full((1,), x.numel() / x.shape[1])])
        everyones = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(everyones, own)
        moments = torch.stack(everyones)
        means, variances, counts = moments[:, : len(mean)], moments[:, len(mean) : -1], moments[:, -1:]
        count = counts.sum()
        mean = (means * counts).sum(0) / count
        variance = ((variances + (means - mean).square()) * counts).sum(0) / count
        out = F.batch_norm(wide, mean, variance, weight.to(wide.dtype), bias.to(wide.dtype), eps=eps)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, variance, count)
        return out.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        slope = slope.to(mean.dtype)
        normal = (x - mean[:, None, None]) * inverse[:, None, None]
        own = torch.stack([slope.sum((0, 2, 3)), (slope * normal).sum((0, 2, 3))])
        total = own.clone()
        dist.all_reduce(total)
        by_mean, by_variance = (total / count)[..., None, None]
        grad = (slope - by_mean - normal * by_variance) * (inverse * weight)[:, None, None]
        # those of the parameters are this process' own: they are added up with all others
        return grad.to(x.dtype), own[1].to(weight.dtype), own[0].to(weight.dtype), None


def synchronise(model: nn.Module) -> nn.Module:
    """Let every batch normalisation of ``model`` be over all processes, with the same weights and names."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d
    return model


def separate(model: nn.Module) -> nn.Module:
    """Undo :func:`synchronise`."""
    for module in model.modules():
        if type(module) is SyncBatchNorm2d:
            module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
    return model
