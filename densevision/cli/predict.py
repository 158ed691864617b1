"""``predict CHECKPOINT IMAGE|FOLDER... --output DIR``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from densevision.cli import parser
from densevision.errors import UserError

USAGE = """\
examples:
  predict runs/x/checkpoints/best.ckpt street.jpg --output predictions
  predict runs/x/checkpoints/best.ckpt photos/ more/*.png --output predictions --device cuda

A segmenter makes of street.jpg street.png, its classes drawn on it with a legend below, and street_labelIds.png with
the data set's class ids. A detector makes street.png with the surer boxes and street.json with all of them. All are in
the picture's own pixels. A classifier makes street.png, the picture above its five surest classes, and street.json with
the probabilities of all. Each picture's prediction is printed in a line. A file that cannot be read is reported, the
rest goes on, and the exit status is 1.
"""


def main(argv: Sequence[str]) -> int:
    arguments = parser("predict", USAGE)
    arguments.add_argument("checkpoint", type=Path, help="or an exported file")
    arguments.add_argument("inputs", nargs="+", type=Path, metavar="IMAGE|FOLDER", help="files, or folders of them")
    arguments.add_argument("--output", type=Path, required=True, metavar="DIR", help="made if it is not there")
    arguments.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: cuda where there is a GPU)")
    options = arguments.parse_intermixed_args(argv)

    import torch
    from rich.console import Console
    from rich.progress import Progress

    from densevision.export import is_exported
    from densevision.inference import load
    from densevision.io import exif_orientation, list_images, make_folder

    paths = list({path.resolve(): path for path in list_images(options.inputs)}.values())
    names = output_names(paths)
    _spare_inputs(paths, names, options.output)
    on_gpu = torch.cuda.is_available() and not is_exported(options.checkpoint)
    predictor = load(options.checkpoint, options.device or ("cuda" if on_gpu else "cpu"))
    make_folder(options.output)

    console = Console(stderr=True)
    results = predictor.predict_many(paths)
    hidden = sys.stdout.isatty() or not console.is_terminal  # on a terminal the lines show how far it is
    progress = Progress(console=console, disable=hidden, transient=True, redirect_stdout=False)
    bad, turned = 0, 0
    start = time.perf_counter()
    with progress:
        shown = progress.track(results, len(paths), description="predicting")
        for (path, result), name in zip(shown, names, strict=True):
            if isinstance(result, UserError):
                bad += 1
                console.print(f"error: {result}", markup=False, highlight=False, soft_wrap=True)
                continue
            result.write(options.output, name)
            print(f"{path}: {result.summary}")
            turned += exif_orientation(path) != 1
            if name != path.stem:
                console.print(f"{path} is in {name}.png", markup=False, highlight=False, soft_wrap=True)
    seconds = time.perf_counter() - start

    done = len(paths) - bad
    print(f"{done} of {len(paths)} pictures predicted, {done / seconds:.1f} images/s, in {options.output}")
    if turned:
        print(f"{turned} of them carry an EXIF orientation, which is ignored: pixels are taken as stored")
    if bad:
        print(f"{bad} could not be read", file=sys.stderr)
    return 1 if bad else 0


def output_names(paths: Iterable[Path]) -> list[str]:
    """One name a file, its stem, numbered (``x_2``) where two would write the same files on any file system."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while taken & _written(name):
            number += 1
            name = f"{path.stem}_{number}"
        taken |= _written(name)
        names.append(name)
    return names


def _written(name: str) -> set[str]:
    return {name.casefold(), f"{name}_labelIds".casefold()}


def _spare_inputs(paths: Sequence[Path], names: Iterable[str], folder: Path) -> None:
    inputs = {path.resolve() for path in paths}
    for name in names:
        for output in (folder / f"{name}.png", folder / f"{name}_labelIds.png"):
            if output.resolve() in inputs:
                raise UserError(f"{output} would be overwritten by its own prediction; choose another --output")
