"""The processes that train together: how they normalise, and what it means when one is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from lightning.pytorch.plugins import LayerSync, TorchSyncBatchNorm
from torch.nn import Module

from densevision.errors import UserError
from densevision.layers.sync_norm import separate, synchronise


class SyncNorm(LayerSync):
    """Batch normalisation over all processes: torch's own where it can, on CUDA, and ours elsewhere."""

    def apply(self, model: Module) -> Module:
        return TorchSyncBatchNorm().apply(model) if _on_cuda(model) else synchronise(model)

    def revert(self, model: Module) -> Module:
        return TorchSyncBatchNorm().revert(model) if _on_cuda(model) else separate(model)


@contextmanager
def telling_of_lost_processes() -> Iterator[None]:
    """Say in a sentence that another process is gone, which every backend reports in its own words."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        lost = isinstance(error, dist.DistError) or "gloo" in text.lower() or "Connection closed by peer" in text
        if not lost:
            raise
        raise UserError(
            f"lost contact with another process of this job, whose own end says why; the same command goes on from "
            f"the last checkpoint ({text.splitlines()[0]})"
        ) from error


def _on_cuda(model: Module) -> bool:
    return getattr(model, "device").type == "cuda"  # noqa: B009 - a LightningModule's
