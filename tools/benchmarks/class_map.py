"""From (1, 19, 128, 256) logits to the classes of a 1024x2048 picture, against interpolate + argmax.

python tools/benchmarks/class_map.py
"""

from __future__ import annotations

import argparse
import sys

import torch
from rounds import interleaved, one_thread, report
from torch import Tensor
from torch.nn import functional as F

from densevision.segmentation.postprocess import class_map

SIZE = (1024, 2048)


def logits_like_a_picture() -> Tensor:
    """Regions with noise: as in a prediction, most pixels have one clear winner."""
    generator = torch.Generator().manual_seed(0)
    regions = F.interpolate(torch.randn(1, 19, 16, 32, generator=generator), size=(128, 256), mode="bicubic")
    return 3 * regions + 0.3 * torch.randn(1, 19, 128, 256, generator=generator)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    one_thread()
    missed = 0
    random = torch.randn(1, 19, 128, 256, generator=torch.Generator().manual_seed(1))
    for title, logits in (("logits like a picture's", logits_like_a_picture()), ("random logits", random)):
        for align_corners in (True, False):
            missed |= _measure(title, logits, align_corners, rounds)
    return missed


def _measure(title: str, logits: Tensor, align_corners: bool, rounds: int) -> int:
    def reference() -> Tensor:
        return F.interpolate(logits, size=SIZE, mode="bilinear", align_corners=align_corners).argmax(1)

    peers = {
        "interpolate + argmax": reference,
        "densevision, the default": lambda: class_map(logits, SIZE, align_corners),
        "densevision, evaluation.exact=false": lambda: class_map(logits, SIZE, align_corners, exact=False),
    }
    expected = reference().to(torch.uint8)
    agreement = {name: float((call() == expected).double().mean()) for name, call in peers.items()}
    exact, close = (agreement[name] for name in list(peers)[1:])
    print(f"\n{title}, align_corners={align_corners}: agreement {exact:.7%} by default, {close:.7%} by option")
    wanted = dict(zip(list(peers)[1:], (3.5, 5.0), strict=True))
    return report(interleaved(peers, rounds), "interpolate + argmax", wanted) | int(exact < 1 or close < 0.99999)


if __name__ == "__main__":
    sys.exit(main())
