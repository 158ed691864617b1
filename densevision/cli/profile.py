"""``profile CONFIG [key=value ...]`` and ``profile --paper``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densevision.cli import parser

if TYPE_CHECKING:
    from rich.console import Console

    from densevision.complexity import Layer
    from densevision.latency import Latency, Network

USAGE = """\
examples:
  profile configs/lraspp_v3_cityscapes.yaml model.backbone.width_mult=0.75
  profile lraspp_v3_cityscapes --image-size 513 1025
  profile mobilenext_cifar10 --num-classes 10
  profile paper/classification model.backbone.name=mobilenext
  profile lraspp_v3_cityscapes --image-size 512 1024 --latency
  profile --paper --json paper.json         (exit status 1 when a row is out of tolerance)
  profile --paper --markdown docs/paper_tables.md

MAdds are counted twice: "conv" is convolutions and linear layers, half of what torch's FlopCounterMode gives; "paper"
adds residual sums, h-swish and the final resizing, which is the MobileNetV3 paper's way of counting.
"""
_WHOLE = ""  # name of the whole network among its rows
DEFAULT_SIZE = (1025, 2049)  # what the segmentation papers count at


def main(argv: Sequence[str]) -> int:
    arguments = parser("profile", USAGE)
    arguments.add_argument("config", nargs="?", help="a YAML file, or the name of one of the project's configs")
    arguments.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values to change")
    arguments.add_argument("--paper", action="store_true", help="all published rows beside ours")
    arguments.add_argument("--image-size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="picture to count for")
    arguments.add_argument("--num-classes", type=int, metavar="N", help="where the classes depend on the data's files")
    arguments.add_argument("--latency", action="store_true", help="milliseconds of each row in ONNX Runtime, 1 thread")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    arguments.add_argument("--markdown", type=Path, metavar="FILE", help="write --paper there as a page, too")
    options = arguments.parse_intermixed_args(argv)
    if options.paper == bool(options.config):
        arguments.error("give a configuration, or --paper")
    if options.paper and (options.image_size or options.overrides or options.num_classes or options.latency):
        arguments.error("--paper counts at the published sizes and takes no others")
    if options.markdown and not options.paper:
        arguments.error("--markdown is a page of the published rows and belongs to --paper")
    if options.image_size and min(options.image_size) < 1:
        arguments.error("--image-size takes two positive numbers")
    if options.num_classes is not None and options.num_classes < 1:
        arguments.error("--num-classes takes a positive number")

    from rich.console import Console

    from densevision.io import write_json

    # a pipe has no width, and a table cut to 80 columns there helps nobody
    console = Console(width=None if Console().is_terminal else 200)
    if options.paper:
        status, figures = _paper(console, options.markdown)
    else:
        status = 0
        figures = _profile(
            console, options.config, options.overrides, options.image_size, options.num_classes, options.latency
        )
    if options.json:
        write_json(options.json, figures)
    return status


def _profile(
    console: Console,
    config: str,
    overrides: Sequence[str],
    image_size: list[int] | None,
    classes: int | None,
    latency: bool,
) -> dict[str, Any]:
    from dataclasses import asdict

    import torch
    from rich.table import Table

    from densevision.complexity import layers, measure
    from densevision.config import load_config
    from densevision.models import build_model, default_num_classes

    loaded = load_config(config, overrides)
    with loaded.blaming_origin():
        model_config = loaded.config.model
        num_classes = classes or default_num_classes(loaded.config)
        filled = latency or model_config.pretrained or model_config.backbone.pretrained
        with torch.device("cpu" if filled else "meta"):
            # which classes a detector takes of published weights changes nothing that is counted
            model = build_model(model_config, num_classes, class_ids=range(1, num_classes + 1))
    height, width = image_size or loaded.config.data.image_size or DEFAULT_SIZE
    total = measure(model, (height, width))
    rows = layers(model, (height, width), total)
    timed = _latencies(console, model, rows, (height, width)) if latency else {}

    table = Table(title=f"{loaded.name}: {num_classes} classes, picture {height}x{width}")
    for column in ("layer", "input", "operator"):
        table.add_column(column, no_wrap=True)
    for column in ("exp", "out", "SE"):
        table.add_column(column, justify="right")
    table.add_column("act")
    for column in ("stride", "dilation"):
        table.add_column(column, justify="right")
    table.add_column("read as")
    for column in ("params", "conv MMAdds", "paper MMAdds"):
        table.add_column(column, justify="right", no_wrap=True)
    if latency:
        table.add_column("ms", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            "x".join(map(str, row.input)),
            row.operator,
            str(row.expansion or ""),
            str(row.out),
            str(row.squeeze or ""),
            row.act,
            str(row.stride),
            str(row.dilation),
            row.feature,
            f"{row.params:,}",
            *_millions(row.conv_madds, row.paper_madds),
            *([f"{timed[row.name].ms:.3f}"] if latency else []),
        )
    rest = total.paper_madds - sum(row.paper_madds for row in rows)
    table.add_row("sums, resizing", *[""] * 10, *_millions(0, rest))
    table.add_section()
    table.add_row("all", *[""] * 9, f"{total.params:,}", *_millions(total.conv_madds, total.paper_madds))
    notes = []
    if any(row.operator.startswith("sandglass") for row in rows):
        notes.append("exp of a sandglass is its bottleneck, the channels between its 1x1 convolutions")
    if latency:
        alone = sum(timed[row.name].ms for row in rows)
        notes.append(f"the rows alone take {alone:.2f} ms together, the network {timed[_WHOLE].ms:.2f} ms")
    table.caption = "; ".join(notes) or None
    console.print(table)
    return {
        "config": loaded.name,
        "image_size": [height, width],
        "num_classes": num_classes,
        "params": total.params,
        "conv_madds": total.conv_madds,
        "paper_madds": total.paper_madds,
        "layers": [{**asdict(row), **({"latency": asdict(timed[row.name])} if latency else {})} for row in rows],
        **({"latency": asdict(timed[_WHOLE])} if latency else {}),
    }


def _latencies(
    console: Console, model: Network, rows: Sequence[Layer], image_size: tuple[int, int]
) -> dict[str, Latency]:
    """Of each row, and of the whole network."""
    from densevision.latency import layer_latencies, with_statistics

    with console.status("timing each row"):
        with_statistics(model, image_size)
        return layer_latencies(model, rows, image_size)


def _paper(console: Console, page: Path | None) -> tuple[int, dict[str, Any]]:
    from rich.table import Table

    from densevision.cli.paper_report import markdown, paper_report
    from densevision.io import atomic_write

    report = paper_report()
    for content in report.tables:
        table = Table(title=content.title)
        table.add_column(content.columns[0], no_wrap=True)
        for column in content.columns[1:-1]:
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column(content.columns[-1])
        for row in content.rows:
            table.add_row(*row)
        console.print(table)
        for note in content.notes:
            console.print(note, highlight=False)
    console.print(report.summary, highlight=False)
    if page:
        with atomic_write(page) as partial:
            partial.write_text(markdown(report), encoding="utf-8")
    return int(bool(report.wrong)), report.figures


def _millions(*counts: int) -> list[str]:
    return [f"{count / 1e6:,.2f}" for count in counts]
