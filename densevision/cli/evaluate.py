"""``evaluate CHECKPOINT [key=value ...]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densevision.cli import parser

if TYPE_CHECKING:
    from rich.console import Console

USAGE = """\
examples:
  evaluate runs/x/checkpoints/best.ckpt --json out.json
  evaluate runs/x/checkpoints/best.ckpt --report report evaluation.flip=true evaluation.scales=[0.75,1,1.25]
  evaluate runs/x/checkpoints/best.ckpt --split test --save-predictions submission
  evaluate model.onnx data.root=/data/cityscapes
  evaluate runs/y/checkpoints/best.ckpt --json out.json --save-predictions results.json     (a detector)
"""


def main(argv: Sequence[str]) -> int:
    arguments = parser("evaluate", USAGE)
    arguments.add_argument("checkpoint", type=Path, help="or an exported file")
    arguments.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values to change")
    arguments.add_argument("--split", help="another split than data.val_split")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments.add_argument(
        "--save-predictions",
        type=Path,
        metavar="PATH",
        help="a folder of label-id PNGs; of a detector COCO's results file",
    )
    arguments.add_argument(
        "--report", type=Path, metavar="DIR", help="write a table of the classes, the confusions and the worst pictures"
    )
    options = arguments.parse_intermixed_args(argv)

    from rich.console import Console
    from rich.table import Table

    from densevision.evaluation import evaluate
    from densevision.io import make_folder, write_json
    from densevision.launch import is_first_process

    if options.json:
        make_folder(options.json.parent)  # a wrong path is told before the work
    console = Console(quiet=not is_first_process())
    result = evaluate(
        options.checkpoint, options.overrides, options.split, options.save_predictions, console, options.report
    )
    if "iou" in result:
        table = Table("class", "IoU", title=f"{result['split']}, {result['pictures']} pictures")
        for name, iou in result["iou"].items():
            table.add_row(name, "does not occur" if iou is None else f"{100 * iou:.2f}")
        console.print(table)
        miou = result["miou"]
        console.print(f"mIoU {'not defined' if miou is None else f'{100 * miou:.2f}'}", highlight=False)
    if "map" in result:
        _print_detection(console, result)
    if "top1" in result:
        shown = f"top-1 {_percent(result['top1'])}  top-5 {_percent(result['top5'])}"
        console.print(f"{result['split']}, {result['pictures']} pictures: {shown}", highlight=False)
    if options.save_predictions:
        console.print(f"predictions for {result['pictures']} pictures in {options.save_predictions}", highlight=False)
    if options.report:
        console.print(f"report in {options.report / 'report.md'}", highlight=False)
    if options.json and is_first_process():
        write_json(options.json, result)
        console.print(f"figures in {options.json}", highlight=False)
    return 0


def _print_detection(console: Console, result: dict[str, Any]) -> None:
    from rich.table import Table

    titles = {"map": "AP", "map_50": "AP50", "map_voc07": "VOC07", "map_voc12": "VOC12"}
    shown = {title: result[f"{key}_per_class"] for key, title in titles.items() if f"{key}_per_class" in result}
    table = Table("class", *shown, title=f"{result['split']}, {result['pictures']} pictures")
    for name in result["map_per_class"]:
        table.add_row(name, *(_percent(values[name]) for values in shown.values()))
    console.print(table)
    figures = [(key, value) for key, value in result.items() if key.split("_")[0] in ("map", "mar")]
    line = "  ".join(f"{key} {_percent(value)}" for key, value in figures if not isinstance(value, dict))
    console.print(line, highlight=False)


def _percent(value: float | None) -> str:
    return "does not occur" if value is None else f"{100 * value:.2f}"
