"""``evaluate CHECKPOINT [key=value ...]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from densevision.cli import parser

USAGE = """\
examples:
  evaluate runs/x/checkpoints/best.ckpt --json out.json
  evaluate runs/x/checkpoints/best.ckpt --split test --save-predictions submission
"""


def main(argv: Sequence[str]) -> int:
    arguments = parser("evaluate", USAGE)
    arguments.add_argument("checkpoint", type=Path)
    arguments.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values to change")
    arguments.add_argument("--split", help="another split than data.val_split")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments.add_argument("--save-predictions", type=Path, metavar="DIR", help="write a label-id PNG a picture")
    options = arguments.parse_intermixed_args(argv)

    from rich.console import Console
    from rich.table import Table

    from densevision.experiment import evaluate
    from densevision.io import write_json

    console = Console()
    result = evaluate(options.checkpoint, options.overrides, options.split, options.save_predictions, console)
    if "iou" in result:
        table = Table("class", "IoU", title=f"{result['split']}, {result['pictures']} pictures")
        for name, iou in result["iou"].items():
            table.add_row(name, "does not occur" if iou is None else f"{100 * iou:.2f}")
        console.print(table)
        miou = result["miou"]
        console.print(f"mIoU {'not defined' if miou is None else f'{100 * miou:.2f}'}", highlight=False)
    if options.save_predictions:
        console.print(f"{result['pictures']} predictions in {options.save_predictions}", highlight=False)
    if options.json:
        write_json(options.json, result)
        console.print(f"figures in {options.json}", highlight=False)
    return 0
