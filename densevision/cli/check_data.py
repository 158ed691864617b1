"""``check_data CONFIG [key=value ...]``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from densevision.cli import parser

FINER_MAP = "c3_expansion"
WORTH_A_MAP = 0.02  # share of the boxes from which a finer first map is proposed

USAGE = """\
examples:
  check_data lraspp_v3_cityscapes data.root=/data/cityscapes
  check_data configs/lraspp_v3_cityscapes.yaml --json report.json
  check_data ssdlite_v3_coco data.root=/data/mine     also proposes anchors for the boxes
  check_data custom_segmentation data.root=/data/mine --pictures wrong

Reads every file of the training and the validation split. Exit status 0: training can start; 1: it cannot.
"""


def main(argv: Sequence[str]) -> int:
    arguments = parser("check_data", USAGE)
    arguments.add_argument("config", help="a YAML file, or the name of one of the project's configs")
    arguments.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values to change")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the whole report there")
    arguments.add_argument("--pictures", type=Path, metavar="DIR", help="draw there what is wrong or worth a look")
    options = arguments.parse_intermixed_args(argv)

    from densevision.config import load_config

    loaded = load_config(options.config, options.overrides)
    from densevision.experiment import build_datamodule
    from densevision.io import write_json

    with loaded.blaming_origin():
        report = build_datamodule(loaded.config).check(_progress)
        boxes = report.splits["train"].boxes
        anchors = None if boxes is None else _anchor_fit(loaded.config, boxes)
    if options.json:
        write_json(options.json, report.to_dict() | ({} if anchors is None else {"anchors": anchors}))
    if options.pictures:
        from densevision.cli.problem_pictures import draw_problems

        print(f"{draw_problems(report, options.pictures)} pictures in {options.pictures}")
    lines = list(report.lines())
    print("\n".join(lines[:-1] + ([] if anchors is None else _anchor_lines(anchors)) + lines[-1:]))
    return 0 if report.can_train else 1


def _anchor_fit(config: Any, boxes: Any) -> dict[str, Any] | None:
    """The share of the training boxes that the configured anchors can match, by map, and that fitted ones could.

    ``finer``: that fitted anchors could with a first map of half the stride; None where there already is one.
    """
    from densevision.detection.anchor_fit import fit_anchors, matchable_shares
    from densevision.model_heads import DETECTION_HEADS, anchor_shapes
    from densevision.models import anchor_strides

    if config.model.head.name not in DETECTION_HEADS or not len(boxes.boxes):
        return None
    size, least = (config.data.image_size[0], config.data.image_size[1]), config.loss.match_iou
    strides, seen = anchor_strides(config.model), boxes.at(size)
    configured = anchor_shapes(config.model.head)
    fitted = [[(round(w, 4), round(h, 4)) for w, h in shapes] for shapes in fit_anchors(seen, size, strides, least)]
    by_map, any_map = matchable_shares(seen, size, configured, strides, least)
    fitted_by_map, fitted_any = matchable_shares(seen, size, fitted, strides, least)
    finer = None
    if config.model.head.first_map != FINER_MAP:
        more = [strides[0] // 2, *strides]
        finer = matchable_shares(seen, size, fit_anchors(seen, size, more, least), more, least)[1]
    return {
        "match_iou": least,
        "strides": strides,
        "configured": {"by_map": by_map, "any": any_map},
        "fitted": {"by_map": fitted_by_map, "any": fitted_any, "anchors": fitted},
        "finer": finer,
    }


def _anchor_lines(anchors: dict[str, Any]) -> list[str]:
    lines = [f"training boxes that overlap an anchor by {anchors['match_iou']:g} or more, in percent:"]
    lines.append(f"{'':12}" + "".join(f" stride {stride:<4}" for stride in anchors["strides"]) + " any")
    for name in ("configured", "fitted"):
        shares = [*anchors[name]["by_map"], anchors[name]["any"]]
        lines.append(f"{name:12}" + "".join(f" {100 * share:<10.1f} " for share in shares).rstrip())
    if anchors["finer"] is not None and anchors["finer"] - anchors["fitted"]["any"] >= WORTH_A_MAP:
        lines.append(
            f"many boxes are small: with model.head.first_map={FINER_MAP} fitted anchors reach "
            f"{100 * anchors['finer']:.1f}; check again with it for those anchors"
        )
    pairs = [
        ", ".join(f"[{width:g}, {height:g}]" for width, height in shapes) for shapes in anchors["fitted"]["anchors"]
    ]
    lines += ["anchors fitted to these boxes, for the configuration:", "model:", "  head:", "    anchors:"]
    return [*lines, *(f"      - [{shapes}]" for shapes in pairs), ""]


def _progress(items: Iterable[Any], total: int, split: str) -> Iterable[Any]:
    """A bar on a terminal, silence elsewhere."""
    from rich.console import Console
    from rich.progress import track

    disable = not sys.stderr.isatty()
    return track(items, f"reading {split}", total, console=Console(stderr=True), transient=True, disable=disable)
