"""From a segmenter's coarse logits to one class a pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from densevision.structures import IGNORE_INDEX


def upsample_logits(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Bilinear logits at the size of the picture or its label.

    Args:
        logits: (B, K, h, w) in any floating type; half types become float32, as interpolated bfloat16 changes
            about 0.4 % of the classes.
        size: (H, W) to reach.
        align_corners: as the segmenter's head has it.

    Returns:
        (B, K, H, W) float32, or float64 for float64.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


def class_map(logits: Tensor, size: tuple[int, int], align_corners: bool, exact: bool = True) -> Tensor:
    """The most likely class of each pixel, the first of equals: bit-equal to ``upsample_logits(...).argmax(1)``.

    Args:
        logits: (B, K, h, w) in any floating type, without nan; K at most 255.
        size, align_corners: as in :func:`upsample_logits`.
        exact: False allows another rounding of the interpolation on the CPU, in less than half the time; then a pixel
            differs only where two classes agree to the last bits.

    Returns:
        (B, H, W) uint8 class indices.
    """
    num_classes = logits.shape[1]
    if num_classes > IGNORE_INDEX:
        raise ValueError(f"{num_classes} classes do not fit into a uint8 map beside {IGNORE_INDEX}, which is ignored")
    # a graph being exported gets the plain formula, whose length does not depend on the sizes
    on_cpu = logits.device.type == "cpu" and not torch.compiler.is_compiling()
    if on_cpu and not exact:
        return _strip_by_strip(logits.detach(), size, align_corners)
    if on_cpu and _classes_alone_are_equal(logits, size):
        return _running_maximum(logits.detach(), size, align_corners)
    # max finds the same first maximum as argmax, on the CPU in a sixth of its time
    return upsample_logits(logits, size, align_corners).max(1)[1].to(torch.uint8)


def _running_maximum(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """One class upsampled at a time: less than a third of the time, and memory for three maps instead of K."""
    best = upsample_logits(logits[:, :1], size, align_corners)
    better = torch.empty(best.shape, dtype=torch.uint8)
    winner = torch.zeros(best.shape, dtype=torch.uint8)
    for index in range(1, logits.shape[1]):
        rival = upsample_logits(logits[:, index : index + 1], size, align_corners)
        torch.gt(rival, best, out=better.view(torch.bool))
        # the latest class that was better is the one with the greatest index; masked_fill_ takes 30 times as long
        torch.maximum(winner, better.mul_(index), out=winner)
        best = torch.maximum(best, rival, out=rival)  # what was just written is still in the cache
    return winner[:, 0]


def _strip_by_strip(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Columns first, then the rows between two rows of the logits at a time, whose values stay in the cache."""
    rows = logits.shape[2]
    wide = upsample_logits(logits, (rows, size[1]), align_corners)
    place = torch.arange(size[0], dtype=torch.float64)
    if align_corners:
        place = place * ((rows - 1) / max(1, size[0] - 1))
    else:
        place = ((place + 0.5) * (rows / size[0]) - 0.5).clamp(0, rows - 1)
    above = place.long().clamp(max=max(0, rows - 2))
    weight = (place - above).to(wide.dtype)[:, None]
    counts = torch.bincount(above, minlength=rows).tolist()
    shape = (*wide.shape[:2], max(counts), size[1])
    strips, hits = wide.new_empty(shape), torch.empty(shape, dtype=torch.uint8)
    # argmax over a dimension that is not the last is slow; the first of the greatest is that with the greatest points
    points = torch.arange(shape[1], 0, -1, dtype=torch.uint8).view(-1, 1, 1)
    winners = torch.empty((len(logits), *size), dtype=torch.uint8)
    start = 0
    for row, count in enumerate(counts):
        if count:
            strip, hit = strips[:, :, :count], hits[:, :, :count]
            upper, lower = wide[:, :, row, None], wide[:, :, min(row + 1, rows - 1), None]
            torch.lerp(upper, lower, weight[start : start + count], out=strip)
            torch.eq(strip, strip.amax(1, keepdim=True), out=hit.view(torch.bool))
            torch.sub(shape[1], hit.mul_(points).amax(1), out=winners[:, start : start + count])
            start += count
    return winners


def _classes_alone_are_equal(logits: Tensor, size: tuple[int, int]) -> bool:
    """Whether torch interpolates a class alone to the same bits as all together.

    It has two CPU kernels, which round differently. The other one is for channels_last tensors, for outputs whose
    height and width sum to at most 128 (``UpSampleKernel.cpp``, ``_use_vectorized_kernel_cond_2d``), and for
    pictures of three channels.
    """
    plain = logits.is_contiguous() and not logits.is_contiguous(memory_format=torch.channels_last)
    return plain and sum(size) > 128 and logits.shape[1] != 3
