"""How weights start."""

from __future__ import annotations

import math

import torch
from torch import Tensor


@torch.no_grad()
def truncated_normal_(weight: Tensor, std: float) -> Tensor:
    """Fill with a normal distribution of mean 0, cut at two deviations, as TensorFlow's ``truncated_normal``.

    Any shape and floating type. torch's own draws anew what falls outside until nothing does, which neither a fake nor
    a meta tensor can; this inverts the distribution function.
    """
    inside = math.erf(2 / math.sqrt(2))  # share of a normal distribution within two deviations
    weight.uniform_(-inside, inside).erfinv_().mul_(std * math.sqrt(2))
    return weight.clamp_(-2 * std, 2 * std)
