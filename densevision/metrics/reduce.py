"""Sums and collections across the processes of a distributed run."""

from __future__ import annotations

import numpy as np
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
    if not _distributed():
        return counts.cpu()
    total = counts.to(_device(), copy=True)
    torch.distributed.all_reduce(total)
    return total.cpu()


def rows_of_processes(rows: np.ndarray) -> np.ndarray:
    """The rows of all processes, in the order of their ranks; without a process group, the array itself.

    Two collectives, however many rows there are; every process must call it, with the same dtype and the same
    number of columns. The bytes travel, so that nothing is rounded.

    Args:
        rows: (N, ...) of any plain dtype; N may differ between the processes and be 0.
    """
    if not _distributed():
        return rows
    world, device = torch.distributed.get_world_size(), _device()
    own = torch.from_numpy(np.frombuffer(rows.tobytes(), np.uint8).copy()).to(device)
    length = torch.tensor([own.numel()], device=device)
    lengths = [torch.empty_like(length) for _ in range(world)]
    torch.distributed.all_gather(lengths, length)
    sizes = [int(size) for size in lengths]
    padded = torch.zeros(max(1, *sizes), dtype=torch.uint8, device=device)
    padded[: own.numel()] = own
    gathered = [torch.empty_like(padded) for _ in range(world)]
    torch.distributed.all_gather(gathered, padded)
    parts = [part[:size].cpu().numpy().tobytes() for part, size in zip(gathered, sizes, strict=True)]
    return np.frombuffer(b"".join(parts), rows.dtype).reshape(-1, *rows.shape[1:])


def is_rank_zero() -> bool:
    """Whether this process writes what all have gathered; of processes that know each other, unlike ``launch``'s."""
    return not _distributed() or torch.distributed.get_rank() == 0


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _device() -> torch.device:
    """Where collectives take place; NCCL takes CUDA tensors only, and what was counted may lie on the CPU."""
    return torch.device("cuda" if "nccl" in torch.distributed.get_backend() else "cpu")
