"""Whether an exported file computes what the network in PyTorch does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from densevision.detection.matcher import pairwise_iou
from densevision.detection.postprocess import Detections
from densevision.export.deployed import Deployed
from densevision.export.runtimes import Runtime
from densevision.io import resize_image


@dataclass(frozen=True)
class Agreement:
    """How a file's outputs compare with those of PyTorch on real pictures.

    pictures: how many. difference: the greatest of the raw outputs, over the greatest absolute output (at least 1);
    None of a file that finishes its outputs. share: of the pixels with the same class, of the detections found again
    with class, score and box, or of the pictures with the same first class; a detector that finishes its outputs is
    compared with PyTorch looking at as many candidates. missed: of the detections of PyTorch looking at all, the
    scores, the best first, of those that are not among these; empty of every other file. detections: how many all are.
    """

    pictures: int
    difference: float | None
    share: float
    missed: tuple[float, ...] = ()
    detections: int = 0

    def lost(self) -> str | None:
        """What a detector misses that looks at the best candidates only, in words."""
        if not self.missed:
            return None
        return (
            f"{len(self.missed)} of the {self.detections} detections that PyTorch finds among all candidates are not "
            "in the file, which looks at the best only, or keeps another of boxes that tie; the surest of them scores "
            f"{self.missed[0]:.2g}"
        )


@dataclass(frozen=True)
class Tolerance:
    """What an :class:`Agreement` must reach: at most ``difference``, at least ``share``.

    overlap, score: least overlap, and greatest difference of scores, of a detection that counts as found again.
    """

    difference: float = 1e-4
    share: float = 0.999
    overlap: float = 0.98
    score: float = 1e-3

    def failure(self, found: Agreement) -> str | None:
        """What is out of tolerance, in words."""
        if found.difference is not None and not found.difference <= self.difference:
            return f"its outputs differ by {found.difference:.1e}, at most {self.difference:.0e} is tolerated"
        if not found.share >= self.share:
            return f"{found.share:.3%} of its results agree, at least {self.share:.1%} must"
        return None


# Half precision of the weights moves the outputs; so does int8 where two runtimes round a near tie apart, which goes on
# through all layers behind: the worst of a picture's outputs differs by a tenth and more of the greatest in files that
# lose nothing on the validation set, where both are judged, too.
TOLERANCES = {None: Tolerance(), "fp16": Tolerance(1e-2, 0.99), "int8": Tolerance(0.25, 0.8, 0.85, 0.05)}


@torch.inference_mode()
def compare(
    reference: Deployed, runtime: Runtime, pictures: Iterable[np.ndarray], tolerance: Tolerance = TOLERANCES[None]
) -> Agreement:
    """Run both on pictures, (H, W, 3) uint8 RGB of any size, resized to what the file takes."""
    size, names = runtime.metadata.image_size, runtime.metadata.outputs
    count, difference, same, total = 0, 0.0, 0.0, 0.0
    missed: list[float] = []
    detections = 0
    for picture in pictures:
        images = np.ascontiguousarray(resize_image(picture, size).transpose(2, 0, 1)[None])
        expected = reference.raw(torch.from_numpy(images))
        got = {name: torch.from_numpy(np.asarray(value)) for name, value in runtime(images).items()}
        if not runtime.metadata.finished:
            difference = max(difference, *(_difference(got[name], expected[name]) for name in names))
            got = reference.finish(got, size)
        meant = reference.finish(expected, size)
        agreeing, judged = _agreeing(got, meant, tolerance)
        same, total, count = same + agreeing, total + judged, count + 1
        if runtime.metadata.finished and reference.suppression is not None:
            (every,) = reference.suppression(expected, reference.anchors, size)
            missed += _missed(every, meant, tolerance)
            detections += len(every.scores)
    share = same / total if total else 1.0
    return Agreement(
        count,
        None if runtime.metadata.finished else difference,
        share,
        tuple(sorted(missed, reverse=True)),
        detections,
    )


def _missed(every: Detections, meant: Mapping[str, Tensor], tolerance: Tolerance) -> list[float]:
    """The scores of the detections of a picture that are not among those of a file's post-processing. Of two boxes on
    one object with equal scores, of which int8 has many, either may be the one that stays."""
    found = int(meant["count"][0])
    boxes, scores, labels = (meant[name][0, :found] for name in ("boxes", "scores", "labels"))
    again = (pairwise_iou(every.boxes, boxes) > 0.5) & (every.labels[:, None] == labels)
    again &= (every.scores[:, None] - scores).abs() <= tolerance.score
    return every.scores[~again.any(1)].tolist()


def _difference(got: Tensor, expected: Tensor) -> float:
    if got.shape != expected.shape:
        return float("inf")
    # nan must not pass as the lesser
    worst = (got.double() - expected.double()).abs().max() / expected.abs().max().clamp(min=1)
    return float(worst.nan_to_num(nan=float("inf")))


def _agreeing(got: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: Tolerance) -> tuple[float, float]:
    """How many results agree, of how many."""
    if "classes" in expected:
        return float((got["classes"] == expected["classes"]).sum()), expected["classes"].numel()
    if "probabilities" in expected:
        tops = [outputs["probabilities"].argmax(-1) for outputs in (got, expected)]
        return float((tops[0] == tops[1]).sum()), tops[0].numel()
    agreeing = 0
    for picture, count in enumerate(expected["count"].tolist()):
        found = int(got["count"][picture])
        boxes, scores, labels = (
            (got[name][picture, :found], expected[name][picture, :count]) for name in ("boxes", "scores", "labels")
        )
        same = pairwise_iou(boxes[1], boxes[0]) >= tolerance.overlap
        same &= (scores[1][:, None] - scores[0]).abs() <= tolerance.score
        same &= labels[1][:, None] == labels[0]
        agreeing += int(same.any(1).sum())
    return agreeing, max(int(expected["count"].sum()), int(got["count"].sum()))
