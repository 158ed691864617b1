"""COCO's twelve figures over a validation set of COCO's size, against pycocotools.

python tools/benchmarks/map.py

5000 pictures, 36,000 objects of 80 classes and 1 % crowds, 100 detections a picture: jittered objects, others of the
wrong class, and noise. Both begin with a picture's detections as arrays and end with the figures, which must be equal;
both have indexed the annotations before.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ["RAYON_NUM_THREADS"] = "1"  # hotcoco's threads: read when it is imported

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from densevision.metrics import DetectionScorer
from densevision.structures import DetectionTruth, LabelMap

CLASSES, MOST, WANTED = 80, 100, 50.0


def draw_truth(rng: np.random.Generator, pictures: int) -> DetectionTruth:
    """Objects of COCO's number, sizes and areas, at random places in 640x480."""
    count = round(7.2 * pictures)
    sides = np.exp(rng.normal(4.0, 0.9, (count, 1)) + rng.normal(0, 0.35, (count, 2))).clip(4, 400)
    boxes = np.concatenate([rng.uniform(0, 1, (count, 2)) * ([640, 480] - sides).clip(0), sides], axis=1)
    return DetectionTruth(
        image_ids=np.arange(1, pictures + 1),
        box_image_ids=np.sort(rng.integers(1, pictures + 1, count)),
        category_ids=rng.choice(CLASSES, count, p=rng.dirichlet(np.full(CLASSES, 0.5))) + 1,
        annotation_ids=np.arange(1, count + 1),
        boxes=boxes,
        areas=sides.prod(axis=1) * rng.uniform(0.4, 0.9, count),
        crowd=rng.random(count) < 0.01,
    )


def draw_detections(rng: np.random.Generator, truth: DetectionTruth) -> dict[int, tuple[np.ndarray, ...]]:
    """{image id: (boxes xyxy float32, scores float32, class indices)}, MOST of each picture."""
    detections = {}
    starts = np.searchsorted(truth.box_image_ids, truth.image_ids, side="left")
    ends = np.searchsorted(truth.box_image_ids, truth.image_ids, side="right")
    for image_id, start, end in zip(truth.image_ids.tolist(), starts, ends, strict=True):
        again = np.repeat(np.arange(start, end), rng.integers(0, 4, end - start))[: MOST // 2]
        near = truth.boxes[again] + rng.normal(0, 0.08, (len(again), 4)) * truth.boxes[again][:, [2, 3, 2, 3]]
        noise = MOST - len(again)
        astray = np.concatenate([rng.uniform(0, 400, (noise, 2)), rng.uniform(8, 200, (noise, 2))], axis=1)
        boxes = np.concatenate([near, astray])
        boxes[:, 2:] = boxes[:, :2] + np.abs(boxes[:, 2:])
        right = rng.random(len(again)) < 0.8
        labels = np.where(right, truth.category_ids[again] - 1, rng.integers(0, CLASSES, len(again)))
        scores = np.concatenate([rng.beta(4, 2, len(again)), rng.beta(1, 6, noise)]).astype(np.float32)
        labels = np.concatenate([labels, rng.integers(0, CLASSES, noise)])
        detections[image_id] = boxes.astype(np.float32), scores, labels
    return detections


def indexed(truth: DetectionTruth) -> COCO:
    """The annotations as pycocotools holds them."""
    columns = (truth.annotation_ids, truth.box_image_ids, truth.category_ids, truth.boxes, truth.areas, truth.crowd)
    keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in truth.image_ids.tolist()],
        "categories": [{"id": number} for number in range(1, CLASSES + 1)],
        "annotations": [dict(zip(keys, e, strict=True)) for e in zip(*(c.tolist() for c in columns), strict=True)],
    }
    coco.createIndex()
    return coco


def official(coco: COCO, detections: dict[int, tuple[np.ndarray, ...]]) -> list[float]:
    """The figures as torchvision's reference comes to them: lists of dicts, loadRes, COCOeval."""
    results = []
    for image_id, (boxes, scores, labels) in detections.items():
        boxes = boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        for box, score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True):
            results.append({"image_id": image_id, "category_id": label + 1, "bbox": box, "score": score})
    evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return list(evaluation.stats)


def ours(truth: DetectionTruth, label_map: LabelMap, detections: dict[int, tuple[np.ndarray, ...]]) -> list[float]:
    """The figures as a validation comes to them: one update a batch, then compute."""
    judge = DetectionScorer(truth, label_map)
    ids = list(detections)
    for start in range(0, len(ids), 16):
        batch = ids[start : start + 16]
        judge.update(batch, *zip(*(detections[image_id] for image_id in batch), strict=True))
    return list(judge.compute().figures.values())


def timed(call: Callable[[], list[float]]) -> tuple[list[float], float]:
    """What it returns, and the seconds of CPU that it took."""
    with contextlib.redirect_stdout(io.StringIO()):
        began = time.process_time()
        result = call()
        return result, time.process_time() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3, help="of densevision; pycocotools runs once")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    truth = draw_truth(rng, options.pictures)
    detections = draw_detections(rng, truth)
    names = tuple(f"class {k}" for k in range(CLASSES))
    label_map = LabelMap(tuple(range(1, CLASSES + 1)), names, ((0, 0, 0),) * CLASSES)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = indexed(truth)
    ours(truth, label_map, dict(list(detections.items())[:100]))  # loads the engine
    runs = [timed(lambda: ours(truth, label_map, detections)) for _ in range(options.rounds)]
    theirs, slow = timed(lambda: official(coco, detections))
    figures, fast = runs[0][0], statistics.median(seconds for _, seconds in runs)
    difference = float(np.abs(np.nan_to_num(figures, nan=-1) - np.array(theirs)).max())
    print(
        f"{options.pictures} pictures, {len(truth.boxes)} objects, {MOST * options.pictures} detections; CPU, 1 thread"
    )
    print(f"pycocotools {slow:8.2f} s   AP {theirs[0]:.4f}, AP50 {theirs[1]:.4f}")
    print(f"densevision {fast:8.2f} s   greatest difference of the twelve figures {difference:.1e}")
    print(f"ratio {slow / fast:.1f}, at least {WANTED:g} wanted{': MISSED' if slow / fast < WANTED else ''}")
    return int(difference > 1e-9 or slow / fast < WANTED)


if __name__ == "__main__":
    sys.exit(main())
