"""``benchmark CONFIG|CHECKPOINT|FILE ...``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densevision.cli import parser
from densevision.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from densevision.config import Config
    from densevision.structures import LabelMap

USAGE = """\
examples:
  benchmark runs/x/checkpoints/best.ckpt
  benchmark lraspp_v3_cityscapes lraspp_v2_cityscapes --image-size 512 1024 --runtime onnx openvino
  benchmark model.onnx model.xml --threads 4 --json latency.json

All that is named takes turns: some calls to warm up, then three passes of --calls single calls with one picture; ms is
the least of the passes' 10th percentiles, spread how far apart these are. A configuration or checkpoint is written for
every runtime that is installed, and runs in PyTorch as it is (pytorch) and rewritten (pytorch_optimized). Networks give
their raw outputs; files what they were exported with.
"""
EAGER, OPTIMIZED = "pytorch", "pytorch_optimized"
DEFAULT_SIZE = (512, 1024)  # where neither the model nor the user says one


@dataclass
class Row:
    """A line of the table. memory, file_size: bytes. difference: of a file's outputs from PyTorch's."""

    name: str
    runtime: str
    image_size: tuple[int, int]
    run: Callable[[], object]
    what: Any  # the network or the file, for its memory
    file_size: int | None = None
    difference: float | None = None


def main(argv: Sequence[str]) -> int:
    arguments = parser("benchmark", USAGE)
    arguments.add_argument("what", nargs="+", metavar="CONFIG|CHECKPOINT|FILE")
    arguments.add_argument(
        "--runtime", nargs="+", default=["all"], metavar="NAME", help="all that are installed, or some"
    )
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--image-size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"))
    arguments.add_argument("--num-classes", type=int, metavar="N", help="where a config's depend on the data's files")
    arguments.add_argument("--calls", type=int, default=200, metavar="N", help="in each of three passes (200)")
    arguments.add_argument("--no-memory", action="store_true", help="leave out the memory, which takes processes")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = arguments.parse_intermixed_args(argv)
    for name in ("threads", "calls"):
        if getattr(options, name) < 1:
            arguments.error(f"--{name} takes a positive number")
    if options.image_size and min(options.image_size) < 1:
        arguments.error("--image-size takes two positive numbers")

    import tempfile

    from rich.console import Console

    from densevision.io import make_folder, write_json
    from densevision.latency import peak_memory, time_calls, torch_threads

    if options.json:
        make_folder(options.json.parent)  # a wrong path is told before the work
    # a pipe has no width, and a table cut to 80 columns there helps nobody
    console = Console(width=None if Console().is_terminal else 160)
    size = tuple(options.image_size) if options.image_size else None
    with tempfile.TemporaryDirectory() as folder, torch_threads(options.threads), console.status("writing") as status:
        rows: list[Row] = []
        for number, what in enumerate(options.what):
            status.update(f"writing {what}")
            below = Path(folder) / str(number)
            rows += _rows(what, _runtimes(options.runtime), size, options.num_classes, options.threads, below)
        names = [f"{number} {row.name} {row.runtime}" for number, row in enumerate(rows)]
        runs = {name: row.run for name, row in zip(names, rows, strict=True)}
        found = time_calls(runs, options.calls, progress=lambda name: status.update(f"timing {name}"))
        figures = []
        for name, row in zip(names, rows, strict=True):
            status.update(f"memory of {name}")
            memory = None if options.no_memory else peak_memory(row.what, row.image_size, options.threads)
            figures.append(
                {
                    "name": row.name,
                    "runtime": row.runtime,
                    "image_size": list(row.image_size),
                    **asdict(found[name]),
                    "memory": memory,
                    "file_size": row.file_size,
                    "difference": row.difference,
                }
            )
    _print(console, figures, options.threads)
    if options.json:
        write_json(options.json, {"threads": options.threads, "rows": figures})
    return 0


def _runtimes(names: Sequence[str]) -> list[str]:
    from densevision.config.lookup import unknown_name
    from densevision.export import FORMATS, format_named, installed

    known = [EAGER, OPTIMIZED, *FORMATS]
    if list(names) == ["all"]:
        return [name for name in known if name not in FORMATS or installed(name)]
    for name in names:
        if name not in known:
            raise UserError(unknown_name("runtime", name, known))
        if name in FORMATS:
            format_named(name)
    return list(names)


def _rows(
    what: str,
    runtimes: Sequence[str],
    size: tuple[int, int] | None,
    num_classes: int | None,
    threads: int,
    folder: Path,
) -> list[Row]:
    import torch

    from densevision.export import FORMATS, Tolerance, export_model, format_of, is_exported, open_file, optimised
    from densevision.latency import file_run, network_run, random_pictures

    if is_exported(what):
        path = Path(what)
        runtime = open_file(path, threads)
        taken = size or runtime.metadata.image_size
        if not runtime.metadata.takes(taken):
            raise UserError(f"{what} does not take pictures of {taken[0]}x{taken[1]}")
        files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
        size_on_disk = sum(file.stat().st_size for file in files)
        return [Row(what, format_of(path), taken, file_run(runtime, taken), path, size_on_disk)]
    model, config, label_map = _network(what, num_classes, size)
    height, width = size or config.data.image_size or DEFAULT_SIZE
    taken = (height, width)
    picture = random_pictures(taken)[0].transpose(1, 2, 0)
    rows = []
    for name in runtimes:
        if name in FORMATS:
            output = folder / f"model{FORMATS[name].suffix}"
            # noise decides nothing about classes; the outputs are to agree
            written = export_model(
                model, config, label_map, output, name, [picture], taken, tolerance=Tolerance(share=0.0)
            )
            run = file_run(open_file(output, threads), taken)
            rows.append(Row(what, name, taken, run, output, written.size, written.agreement.difference))
        else:
            network = model if name == EAGER else optimised(model).to(memory_format=torch.channels_last)
            rows.append(Row(what, name, taken, network_run(network, taken), network))
    return rows


def _network(what: str, num_classes: int | None, size: tuple[int, int] | None) -> tuple[nn.Module, Config, LabelMap]:
    """The network of a checkpoint, or an untrained one of a configuration."""
    import zipfile

    from densevision.checkpoint import read_densevision_checkpoint, stored_config, stored_label_map
    from densevision.config import load_config
    from densevision.inference import model_from_checkpoint
    from densevision.latency import with_statistics
    from densevision.models import build_model, default_num_classes, resolved
    from densevision.structures import LabelMap

    if Path(what).suffix == ".ckpt" or zipfile.is_zipfile(what):
        stored = read_densevision_checkpoint(what)
        return model_from_checkpoint(stored, what), stored_config(stored, what).config, stored_label_map(stored, what)
    loaded = load_config(what)
    config = loaded.config
    with loaded.blaming_origin():
        config.model = resolved(config.model)
        classes = num_classes or default_num_classes(config)
        model = build_model(config.model, classes, load_weights=False)
    height, width = size or config.data.image_size or DEFAULT_SIZE
    names = LabelMap(tuple(range(classes)), tuple(map(str, range(classes))), ((0, 0, 0),) * classes)
    return with_statistics(model, (height, width)), config, names


def _print(console: Any, figures: Sequence[dict[str, Any]], threads: int) -> None:
    from rich.table import Table

    table = Table(title=f"one picture, {threads} thread{'s' if threads > 1 else ''}")
    table.add_column("model", overflow="fold")
    table.add_column("runtime", no_wrap=True)
    for column in ("picture", "ms", "spread", "pictures/s", "memory MB", "file MB", "difference"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in figures:
        table.add_row(
            row["name"],
            row["runtime"],
            "x".join(map(str, row["image_size"])),
            f"{row['ms']:.2f}",
            f"{row['spread']:.1%}",
            f"{1e3 / row['ms']:.1f}",
            *("" if row[key] is None else f"{row[key] / 1e6:.1f}" for key in ("memory", "file_size")),
            "" if row["difference"] is None else f"{row['difference']:.0e}",
        )
    console.print(table)
