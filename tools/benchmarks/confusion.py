"""Counting the confusion matrix of a 1024x2048 picture, against torchvision's segmentation reference.

python tools/benchmarks/confusion.py
"""

from __future__ import annotations

import argparse
import sys

import torch
from rounds import interleaved, one_thread, report
from torch import Tensor

from densevision.metrics.segmentation import ConfusionMatrix

CLASSES, SIZE = 19, (1024, 2048)


class TorchvisionsConfusionMatrix:
    """``references/segmentation/utils.py`` of torchvision, retyped."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.mat: Tensor | None = None

    def update(self, a: Tensor, b: Tensor) -> None:
        """a: truth, b: prediction, both flat int64."""
        n = self.num_classes
        if self.mat is None:
            self.mat = torch.zeros((n, n), dtype=torch.int64, device=a.device)
        with torch.inference_mode():
            k = (a >= 0) & (a < n)
            inds = n * a[k].to(torch.int64) + b[k]
            self.mat += torch.bincount(inds, minlength=n**2).reshape(n, n)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    one_thread()
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, CLASSES, (1, 1, 64, 128), generator=generator).float()
    labels = torch.nn.functional.interpolate(coarse, size=SIZE)[0].to(torch.uint8)
    predicted = torch.where(torch.rand(labels.shape, generator=generator) < 0.1, (labels + 1) % CLASSES, labels)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    # what their evaluate() hands over
    long_labels, long_predicted = labels.long().flatten(), predicted.long().flatten()

    theirs, ours = TorchvisionsConfusionMatrix(CLASSES), ConfusionMatrix([str(k) for k in range(CLASSES)])
    peers = {
        "torchvision's reference": lambda: theirs.update(long_labels, long_predicted),
        "densevision": lambda: ours.update(predicted, labels),
    }
    seconds = interleaved(peers, rounds)
    assert theirs.mat is not None
    if not torch.equal(theirs.mat, torch.from_numpy(ours.compute().counts[:, :-1].copy())):
        print("the two counted differently", file=sys.stderr)
        return 1
    return report(seconds, "torchvision's reference", {"densevision": 10.0})


if __name__ == "__main__":
    sys.exit(main())
