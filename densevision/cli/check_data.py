"""``check_data CONFIG [key=value ...]``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from densevision.cli import parser

USAGE = """\
examples:
  check_data lraspp_v3_cityscapes data.root=/data/cityscapes
  check_data configs/lraspp_v3_cityscapes.yaml --json report.json

Reads every file of the training and the validation split. Exit status 0: training can start; 1: it cannot.
"""


def main(argv: Sequence[str]) -> int:
    arguments = parser("check_data", USAGE)
    arguments.add_argument("config", help="a YAML file, or the name of one of the project's configs")
    arguments.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values to change")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the whole report there")
    options = arguments.parse_intermixed_args(argv)

    from densevision.config import load_config

    loaded = load_config(options.config, options.overrides)
    from densevision.experiment import build_datamodule
    from densevision.io import write_json

    with loaded.blaming_origin():
        report = build_datamodule(loaded.config).check(_progress)
    if options.json:
        write_json(options.json, report.to_dict())
    print("\n".join(report.lines()))
    return 0 if report.can_train else 1


def _progress(items: Iterable[Any], total: int, split: str) -> Iterable[Any]:
    """A bar on a terminal, silence elsewhere."""
    from rich.console import Console
    from rich.progress import track

    disable = not sys.stderr.isatty()
    return track(items, f"reading {split}", total, console=Console(stderr=True), transient=True, disable=disable)
