"""SSDLite's focal loss, forward and backward, against torchvision's operator with the targets that it needs.

python tools/benchmarks/focal_loss.py

8 pictures, 2034 anchors, 91 columns, 1 % of the anchors matched.
"""

from __future__ import annotations

import argparse
import sys

import torch
import torch.nn.functional as F
from rounds import interleaved, one_thread, report
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from densevision.detection.losses import focal_loss

PICTURES, ANCHORS, COLUMNS = 8, 2034, 91


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    one_thread()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(PICTURES, ANCHORS, COLUMNS, generator=generator).requires_grad_()
    matched = torch.rand(PICTURES, ANCHORS, generator=generator) < 0.01
    columns = torch.where(matched, torch.randint(1, COLUMNS, matched.shape, generator=generator), 0)

    def theirs() -> Tensor:
        targets = F.one_hot(columns, COLUMNS).float()
        targets[..., 0] = 0
        return sigmoid_focal_loss(logits, targets, alpha=0.75, gamma=2, reduction="sum")

    def ours() -> Tensor:
        return focal_loss(logits, columns, 0.75, 2.0)

    slopes = [torch.autograd.grad(loss(), logits)[0] for loss in (theirs, ours)]
    if not torch.allclose(theirs(), ours(), rtol=1e-5) or not torch.allclose(*slopes, rtol=1e-4, atol=1e-7):
        print("loss or gradient differ", file=sys.stderr)
        return 1
    calls = {
        "torchvision": lambda: torch.autograd.grad(theirs(), logits),
        "densevision": lambda: torch.autograd.grad(ours(), logits),
    }
    return report(interleaved(calls, rounds), "torchvision", {"densevision": 3.0})


if __name__ == "__main__":
    sys.exit(main())
