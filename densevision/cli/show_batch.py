"""``show_batch CONFIG [key=value ...] --output FILE``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from densevision.cli import parser
from densevision.errors import UserError

USAGE = """\
examples:
  show_batch lraspp_v3_cityscapes data.root=/data/cityscapes --output batch.png
  show_batch lraspp_v3_cityscapes data.photometric=1 --output batch.png --count 16
  show_batch ssdlite_v3_coco data.root=/data/coco --output batch.png --anchors

Draws the first training pictures as the model will see them: each as it is, and with its labels or boxes on it.
"""
_PANELS_A_ROW = 4


def main(argv: Sequence[str]) -> int:
    arguments = parser("show_batch", USAGE)
    arguments.add_argument("config", help="a YAML file, or the name of one of the project's configs")
    arguments.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values to change")
    arguments.add_argument("--output", type=Path, required=True, metavar="FILE", help="the PNG to write")
    arguments.add_argument("--count", type=int, metavar="N", help="how many pictures (data.batch_size)")
    arguments.add_argument("--anchors", action="store_true", help="a detector's: also the anchors that learn each box")
    options = arguments.parse_intermixed_args(argv)
    if options.count is not None and options.count < 1:
        arguments.error("--count: expected at least 1")

    from densevision.config import load_config

    loaded = load_config(options.config, options.overrides)
    from densevision.experiment import build_datamodule
    from densevision.io import write_png
    from densevision.visualize import grid, legend

    # the samples are the same with any number of workers, and starting them takes longer than reading a few pictures
    loaded.config.data.num_workers = 0
    count = options.count or loaded.config.data.batch_size
    with loaded.blaming_origin():
        if options.anchors and loaded.config.task != "detection":
            raise UserError(f"--anchors are a detector's; the task is {loaded.config.task}")
        datamodule = build_datamodule(loaded.config)
        panels, present = [], set()
        for sample in islice(_samples(datamodule.train_dataloader()), count):
            panels.append(_panels(sample, datamodule.label_map, loaded.config, options.anchors))
            present.update(sample["labels"].unique().tolist())
    in_row = max(1, _PANELS_A_ROW // len(panels[0]))
    rows = [panels[first : first + in_row] for first in range(0, len(panels), in_row)]
    drawn = grid([list(chain.from_iterable(row)) for row in rows])
    write_png(options.output, grid([[drawn], [legend(datamodule.label_map, drawn.shape[1], present)]]))
    print(f"{len(panels)} training pictures in {options.output}")
    return 0


def _samples(batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The pictures of all batches, each with what its task knows about it: labels, and boxes if there are any."""
    for batch in batches:
        known = [key for key in ("images", "labels", "boxes") if key in batch]
        for values in zip(*(batch[key] for key in known), strict=True):
            yield dict(zip(known, values, strict=True))


def _panels(sample: dict[str, Any], label_map: Any, config: Any, anchors: bool) -> list[Any]:
    """The picture, the picture with its labels or boxes, and, if wanted, with the anchors that learn the boxes."""
    from densevision.visualize import draw_boxes, draw_mask, draw_outlines, grid

    picture, labels = sample["images"].permute(1, 2, 0).contiguous().numpy(), sample["labels"].numpy()
    if labels.ndim == 0:  # a class a picture; the legend below has the names
        return [grid([[picture]], [label_map.names[int(labels)]])]
    if "boxes" not in sample:
        return [picture, draw_mask(picture, labels, label_map)]
    panels = [picture, draw_boxes(picture, sample["boxes"].numpy(), labels, None, label_map)]
    if anchors:
        matched, box = _matched_anchors(sample["boxes"], config, picture.shape[:2])
        panels.append(draw_outlines(picture, matched, labels[box], label_map))
    return panels


def _matched_anchors(boxes: Any, config: Any, size: tuple[int, int]) -> tuple[Any, Any]:
    """(M, 4) xyxy of the anchors that learn a box, and (M,) which box each does."""
    import torch

    from densevision.detection.anchors import AnchorCache
    from densevision.detection.matcher import match_anchors, pairwise_iou
    from densevision.model_heads import anchor_shapes
    from densevision.models import anchor_strides

    cache = AnchorCache(anchor_shapes(config.model.head), anchor_strides(config.model))
    anchors = cache(size, torch.device("cpu"))
    if not len(boxes):
        return anchors[:0].numpy(), torch.zeros(0, dtype=torch.int64).numpy()
    box = match_anchors(pairwise_iou(boxes, anchors), config.loss.match_iou)
    return anchors[box >= 0].numpy(), box[box >= 0].numpy()
