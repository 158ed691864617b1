"""Sums across the processes of a distributed run."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor


def sum_over_processes(counts: Tensor) -> Tensor:
    """The sum of an integer tensor over all processes, on the CPU; without a process group, the tensor itself.

    A collective: every process must call it, with the same shape and dtype, on whatever device it counts.
    ``counts`` is left as it is, so that asking twice adds nothing twice. Integers, because their sum is the same
    in any order.
    """
    if counts.is_floating_point():
        raise TypeError(f"expected integer counts, got {counts.dtype}")
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return counts.cpu()
    # NCCL takes CUDA tensors only, and a process without a single picture has counted nothing on its GPU yet
    on_cuda = "nccl" in torch.distributed.get_backend()
    total = counts.to(torch.device("cuda") if on_cuda else "cpu", copy=True)
    torch.distributed.all_reduce(total)
    return total.cpu()
