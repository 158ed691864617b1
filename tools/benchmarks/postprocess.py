"""From SSDLite's outputs to detections, against torchvision's on its own thresholds, with equal results.

python tools/benchmarks/postprocess.py [--batch 8]

91 columns, 3234 anchors, and 7 objects a picture that lift the scores of the anchors over them. The background's lead
over the classes makes the scores those of an untrained net (every entry passes torchvision's threshold of 0.001), of an
early one (about 20,000 do) and of later ones.
"""

from __future__ import annotations

import argparse
import sys

import torch
from rounds import interleaved, one_thread, report
from torch import Tensor
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from densevision.config import load_config
from densevision.detection.matcher import pairwise_iou
from densevision.models import build_postprocess, create_model

SIZE, COLUMNS, OBJECTS, LIFT = (320, 320), 91, 7, 20
STAGES = {"untrained": 0, "early": 9, "later": 11, "trained": 13}  # the background's lead
WANTED = {"early": 8.0}


def draw_outputs(anchors: Tensor, pictures: int, lead: float) -> dict[str, Tensor]:
    """Noise, and at each object one class's scores lifted by the overlap."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(pictures, len(anchors), COLUMNS, generator=generator)
    logits[..., 0] += lead
    for picture in logits if lead else ():
        low = torch.rand(OBJECTS, 2, generator=generator) * 200
        boxes = torch.cat([low, low + 20 + torch.rand(OBJECTS, 2, generator=generator) * 120], 1)
        columns = torch.randint(1, COLUMNS, (OBJECTS,), generator=generator)
        for overlap, column in zip(pairwise_iou(boxes, anchors), columns.tolist(), strict=True):
            picture[:, column] += LIFT * overlap
    return {"class_logits": logits, "box_deltas": torch.randn(pictures, len(anchors), 4, generator=generator)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1, help="pictures")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    one_thread()
    reference = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    name = "ssdlite_v3_coco_torchvision"
    ours = build_postprocess(load_config(name).config.model.head)
    anchors = create_model(name).anchors(SIZE)
    short = 0
    for stage, lead in STAGES.items():
        outputs = draw_outputs(anchors, options.batch, lead)
        passing = int((outputs["class_logits"].softmax(-1)[..., 1:] > ours.score_threshold).sum()) // options.batch
        theirs = {"cls_logits": outputs["class_logits"], "bbox_regression": outputs["box_deltas"]}
        sizes, repeated = [SIZE] * options.batch, [anchors] * options.batch
        found = ours(outputs, anchors, SIZE)
        expected = reference.postprocess_detections(theirs, repeated, sizes)
        for mine, wanted in zip(found, expected, strict=True):
            same = torch.equal(mine.labels + 1, wanted["labels"]) and torch.equal(mine.scores, wanted["scores"])
            if not same or not torch.allclose(mine.boxes, wanted["boxes"], atol=1e-3):
                print(f"{stage}: the detections differ", file=sys.stderr)
                return 1
        seconds = interleaved(
            {
                "torchvision": lambda: reference.postprocess_detections(theirs, repeated, sizes),  # noqa: B023
                "densevision": lambda: ours(outputs, anchors, SIZE),  # noqa: B023
            },
            options.rounds,
        )
        print(f"{stage}: {options.batch} pictures, {passing} entries above the threshold in each, equal detections")
        short |= report(seconds, "torchvision", {"densevision": WANTED[stage]} if stage in WANTED else {})
    return short


if __name__ == "__main__":
    sys.exit(main())
