"""From a detector's outputs to a few boxes a picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad
from torchvision.ops import nms

from densevision.detection.box_coder import decode
from densevision.detection.matcher import pairwise_iou

# Candidates looked at first, for each detection wanted; where suppression leaves too few of them, so many times more.
_FIRST, _GROWTH = 3, 3
CANDIDATES = 1024  # looked at with fixed shapes: the best pairs of anchor and class
_BLOCK = 256  # of them suppress each other at once
_ROUNDS = 31  # of the suppression with fixed shapes; odd, as after those a box that is not decided is out


@dataclass(frozen=True)
class Detections:
    """What is found in a picture, the best first.

    boxes: (n, 4) float32 xyxy pixels. scores: (n,) 0..1. labels: (n,) int64 class indices.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def resized(self, seen: tuple[int, int], size: tuple[int, int]) -> Detections:
        """The same in a picture of ``size``, (height, width), that the network saw resized to ``seen``."""
        scale = self.boxes.new_tensor([size[1] / seen[1], size[0] / seen[0]]).repeat(2)
        return Detections(self.boxes * scale, self.scores, self.labels)


@dataclass(frozen=True)
class _Candidates:
    """The best (anchor, class) pairs of each picture, sorted by score; (B, M) each, boxes (B, M, 4)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Postprocess:
    """Greedy non-maximum suppression by class, the best detections of all classes.

    The defaults are the official ones: suppression on unclipped boxes, which are then cut to the picture, empty ones
    dropped. torchvision's are softmax, 0.001, 0.55, 300, 300 candidates a class, boxes cut before suppression.

    Args:
        score: what makes class logits to scores, ``sigmoid`` or ``softmax``; column 0 is dropped.
        score_threshold: only higher scores are detections.
        nms_iou: of two boxes of a class that overlap more than this, the better stays.
        max_detections: a picture.
        candidates_per_class: only so many enter suppression; None for all.
        clip_before_nms: cut the boxes to the picture before suppression; what is empty then stays, as in torchvision.
    """

    score: str = "sigmoid"
    score_threshold: float = 1e-8
    nms_iou: float = 0.6
    max_detections: int = 100
    candidates_per_class: int | None = None
    clip_before_nms: bool = False

    @torch.no_grad()
    def __call__(self, outputs: dict[str, Tensor], anchors: Tensor, image_size: tuple[int, int]) -> list[Detections]:
        """The detections of each picture.

        All classes and pictures go through the same few operations. Only the best candidates are decoded: a greedy
        suppression of a prefix of the sorted candidates is the prefix of the whole one's result, so that it is done
        once it leaves ``max_detections``. Order among equal scores is not defined.

        Args:
            outputs: of the model, B pictures.
            anchors: (A, 4) float32 xyxy pixels.
            image_size: (H, W) of the network's pictures, in whose pixels the boxes are returned.
        """
        ranking = self._ranking(outputs["class_logits"])
        deltas = outputs["box_deltas"]
        entries = ranking[0].numel()
        found: dict[int, Detections] = {}
        pending, count = list(range(len(ranking))), _FIRST * self.max_detections
        while pending:
            index = torch.tensor(pending, device=ranking.device)
            some = (ranking, deltas) if len(pending) == len(ranking) else (ranking[index], deltas[index])
            best = self._best(*some, anchors, image_size, count)
            valid = best.scores > self.score_threshold
            # one launch for all pictures; on the CPU comparing across pictures would cost time
            kept = self._survivors(best, valid, together=valid.is_cuda)
            boxes = _clip(best.boxes, image_size)
            kept &= self._inside(boxes)
            kept &= kept.cumsum(1) <= self.max_detections
            exhausted = count >= entries
            finished = (~valid[:, -1] | (kept.sum(1) == self.max_detections)).tolist()
            for row, picture in enumerate(pending):
                if exhausted or finished[row]:
                    mask = kept[row]
                    found[picture] = Detections(boxes[row, mask], best.scores[row, mask], best.labels[row, mask])
            pending = [picture for picture in pending if picture not in found]
            count *= _GROWTH
        return [found[picture] for picture in range(len(ranking))]

    def fixed_shape(
        self, outputs: dict[str, Tensor], anchors: Tensor, image_size: tuple[int, int], candidates: int = CANDIDATES
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same with shapes that depend on no value, in plain operations, for ``torch.export``.

        Equal to a call where ``max_detections`` boxes survive among the best ``candidates``, or all above the
        threshold are among them; a detection that lies outside the picture takes one of the places here. Candidates
        come in blocks, the best first. What was found before suppresses in a block; then, instead of one box after the
        other, all of the block are judged at once, by what the round before left: round n is right about every box
        that fewer than n others decide in a chain, each suppressing the next. A box that is not decided after the last
        round is left out.

        Returns:
            boxes (B, D, 4), scores (B, D), labels (B, D), and the number of detections (B,), int64; D is
            ``max_detections``, entries past the number are 0.
        """
        best = self._best(
            self._ranking(outputs["class_logits"]), outputs["box_deltas"], anchors, image_size, candidates
        )
        valid = best.scores > self.score_threshold
        if self.candidates_per_class is not None and self.candidates_per_class < best.labels.shape[1]:
            same = one_hot(best.labels, outputs["class_logits"].shape[-1] - 1)
            rank = same.cumsum(1).gather(2, best.labels[..., None])[..., 0]
            valid = valid & (rank <= self.candidates_per_class)
        places = torch.arange(_BLOCK, device=valid.device)
        earlier = places[:, None] < places  # sorted by score
        found: _Candidates | None = None
        for boxes, scores, labels, block in zip(
            *(values.split(_BLOCK, 1) for values in (best.boxes, best.scores, best.labels, valid)), strict=True
        ):
            kept = self._left(boxes, labels, block, earlier[: boxes.shape[1], : boxes.shape[1]], found)
            there = _Candidates(boxes, scores * kept, labels)
            found = _first(there if found is None else _joined(found, there), self.max_detections)
        assert found is not None
        boxes = _clip(found.boxes, image_size)
        seen = (found.scores > 0) & self._inside(boxes)
        found = _first(_Candidates(boxes, found.scores * seen, found.labels), self.max_detections)
        seen = found.scores > 0
        rest = (0, self.max_detections - seen.shape[1])
        return (
            pad(found.boxes * seen[..., None], (0, 0, *rest)),
            pad(found.scores, rest),
            pad(found.labels * seen, rest),
            seen.sum(1),
        )

    def _left(self, boxes: Tensor, labels: Tensor, valid: Tensor, earlier: Tensor, found: _Candidates | None) -> Tensor:
        """(B, M) bool: what suppression by earlier detections and by each other leaves of a block."""
        if found is not None:
            same = (found.labels[:, :, None] == labels[:, None, :]) & (found.scores > 0)[..., None]
            valid = valid & ~((pairwise_iou(found.boxes, boxes) > self.nms_iou) & same).any(1)
        rivals = (labels[:, :, None] == labels[:, None, :]) & earlier
        suppresses = ((pairwise_iou(boxes, boxes) > self.nms_iou) & rivals).to(boxes.dtype)
        kept = there = valid[:, None].to(boxes.dtype)
        for _ in range(_ROUNDS):
            kept = (there - torch.bmm(kept, suppresses)).relu()  # 1 where valid and suppressed by none, else 0
        return kept[:, 0] > 0

    def _ranking(self, logits: Tensor) -> Tensor:
        """(B, A, K) numbers in the order of the scores: for sigmoid the logits, the best being converted later."""
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        return logits.softmax(-1)[..., 1:] if self.score == "softmax" else logits[..., 1:]

    def _best(
        self, ranking: Tensor, deltas: Tensor, anchors: Tensor, image_size: tuple[int, int], count: int
    ) -> _Candidates:
        """The ``count`` best pairs of anchor and class, or all there are."""
        classes = ranking.shape[-1]
        # the best n pairs lie at the n anchors whose best class scores highest
        rows = ranking.amax(-1).topk(min(count, ranking.shape[1]), sorted=False).indices
        values = ranking.gather(1, rows[..., None].expand(-1, -1, classes)).flatten(1)
        values, index = values.topk(min(count, values.shape[1]))
        anchor = rows.gather(1, index // classes)
        boxes = decode(deltas.gather(1, anchor[..., None].expand(-1, -1, 4)).to(values.dtype), anchors[anchor])
        return _Candidates(
            _clip(boxes, image_size) if self.clip_before_nms else boxes,
            values.sigmoid() if self.score == "sigmoid" else values,
            index % classes,
        )

    def _allowed(self, best: _Candidates, valid: Tensor) -> Tensor:
        """(B, M) bool: the valid candidates that are among the first ``candidates_per_class`` of theirs."""
        if self.candidates_per_class is None or self.candidates_per_class >= valid.shape[1]:
            return valid
        labels, order = best.labels.sort(dim=1, stable=True)
        rank = torch.arange(labels.shape[1], device=labels.device) - torch.searchsorted(labels, labels)
        return valid & (torch.empty_like(rank).scatter_(1, order, rank) < self.candidates_per_class)

    def _inside(self, boxes: Tensor) -> Tensor:
        """(..., ) bool: the clipped boxes that may be detections."""
        not_empty = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        return torch.ones_like(not_empty) if self.clip_before_nms else not_empty

    def _survivors(self, best: _Candidates, valid: Tensor, together: bool) -> Tensor:
        """(B, M) bool: the candidates that suppression leaves, of one picture after the other or of all together."""
        allowed = self._allowed(best, valid)
        # classes side by side never overlap; in float64 the distance costs the overlaps no digit
        boxes, scores, groups = best.boxes.double(), best.scores.double(), best.labels
        span = boxes.amax() - boxes.amin() + 1
        if together:
            groups = groups + torch.arange(len(groups), device=groups.device)[:, None] * (groups.amax() + 1)
            boxes, scores, groups, allowed = (x.flatten(0, 1)[None] for x in (boxes, scores, groups, allowed))
        boxes = boxes + (groups * span)[..., None]
        kept = torch.zeros_like(allowed)
        for mask, corners, values, row in zip(allowed, boxes, scores, kept, strict=True):
            places = mask.nonzero()[:, 0]
            row[places[nms(corners[places], values[places], self.nms_iou)]] = True
        return kept.view_as(valid)


def _first(some: _Candidates, count: int) -> _Candidates:
    """The first ``count`` of positive score, in their order, and then others."""
    places = torch.arange(some.scores.shape[1], 0, -1, device=some.scores.device)
    index = torch.where(some.scores > 0, places, 0).topk(min(count, len(places))).indices
    boxes = some.boxes.gather(1, index[..., None].expand(-1, -1, 4))
    return _Candidates(boxes, some.scores.gather(1, index), some.labels.gather(1, index))


def _joined(some: _Candidates, more: _Candidates) -> _Candidates:
    return _Candidates(
        torch.cat([some.boxes, more.boxes], 1),
        torch.cat([some.scores, more.scores], 1),
        torch.cat([some.labels, more.labels], 1),
    )


def _clip(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """xyxy boxes cut to a picture of (H, W)."""
    height, width = image_size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x, y], dim=-1).flatten(-2)
