"""``predict CHECKPOINT IMAGE|FOLDER|VIDEO... --output DIR``."""

from __future__ import annotations

import glob
import itertools
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densevision.cli import parser
from densevision.errors import UserError
from densevision.paths import is_there

if TYPE_CHECKING:
    from densevision.inference import Predictor

USAGE = """\
examples:
  predict runs/x/checkpoints/best.ckpt street.jpg --output predictions
  predict runs/x/checkpoints/best.ckpt photos/ more/*.png --output predictions --device cuda
  predict runs/x/checkpoints/best.ckpt drive.mp4 --output predictions
  predict runs/x/checkpoints/best.ckpt photos/ --output predictions --evaluation flip=true scales=[0.75,1,1.25]

A segmenter makes of street.jpg street.png, its classes drawn on it with a legend below, and street_labelIds.png with
the data set's class ids. A detector makes street.png with the surer boxes and street.json with all of them. All are in
the picture's own pixels. A classifier makes street.png, the picture above its five surest classes, and street.json with
the probabilities of all. Each picture's prediction is printed in a line. Of drive.mp4 come drive.mp4 with every frame
drawn on, and drive.jsonl with a line of JSON a frame. A file that cannot be read is reported, the rest goes on, and the
exit status is 1.
"""


def main(argv: Sequence[str]) -> int:
    arguments = parser("predict", USAGE)
    arguments.add_argument("checkpoint", type=Path, help="or an exported file")
    arguments.add_argument(
        "inputs", nargs="+", metavar="IMAGE|FOLDER|VIDEO", help="files, patterns such as 'a/*.jpg', folders of pictures"
    )
    arguments.add_argument("--output", type=Path, required=True, metavar="DIR", help="made if it is not there")
    arguments.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: cuda where there is a GPU)")
    arguments.add_argument(
        "--batch-size", type=int, help="pictures of one size, or frames, a pass (default: 8 on a GPU)"
    )
    arguments.add_argument(
        "--evaluation",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="of the configuration's section evaluation",
    )
    arguments.add_argument("--coco-results", type=Path, metavar="FILE", help="the detections as COCO's results file")
    options = arguments.parse_intermixed_args(argv)
    if options.batch_size is not None and options.batch_size < 1:
        arguments.error("--batch-size takes a positive number")

    import torch
    from rich.console import Console
    from rich.progress import Progress

    from densevision.export import is_exported
    from densevision.inference import load
    from densevision.io import exif_orientation, list_images, make_folder, write_json
    from densevision.paths import is_folder, names_in
    from densevision.video import is_video

    inputs = list({os.path.realpath(path): path for path in _expanded(options.inputs)}.values())
    videos = [path for path in inputs if is_video(path) and not is_folder(path)]
    pictures = [path for path in inputs if path not in videos]
    paths = list({os.path.realpath(path): path for path in list_images(pictures)}.values()) if pictures else []
    names = output_names([*paths, *videos])
    _spare_inputs([*paths, *videos], names, options.output)
    on_gpu = torch.cuda.is_available() and not is_exported(options.checkpoint)
    device = options.device or ("cuda" if on_gpu else "cpu")
    predictor = load(options.checkpoint, device, overrides=[f"evaluation.{word}" for word in options.evaluation])
    if options.coco_results and predictor.config.task != "detection":
        raise UserError(f"{options.checkpoint} is no detector; --coco-results is for detections")
    batch_size = options.batch_size or (1 if device == "cpu" else 8)
    make_folder(options.output)

    console = Console(stderr=True)
    results = predictor.predict_many(paths, batch_size)
    hidden = sys.stdout.isatty() or not console.is_terminal  # on a terminal the lines show how far it is
    progress = Progress(console=console, disable=hidden, transient=True, redirect_stdout=False)
    bad, turned, frames, predicted = 0, 0, 0, 0
    coco: list[Any] = []
    start = time.perf_counter()
    with progress:
        shown = progress.track(results, len(paths), description="predicting")
        for (path, result), name in zip(shown, names, strict=False):
            if isinstance(result, UserError):
                bad += 1
                console.print(f"error: {result}", markup=False, highlight=False, soft_wrap=True)
                continue
            result.write(options.output, name)
            predicted += 1
            if options.coco_results:
                coco += result.to_coco(int(path.stem) if path.stem.isdecimal() else path.name)  # type: ignore[attr-defined]
            print(f"{path}: {result.summary}")
            turned += exif_orientation(path) != 1
            if name != path.stem:
                console.print(f"{path} is in {name}.png", markup=False, highlight=False, soft_wrap=True)
        for path, name in zip(videos, names[len(paths) :], strict=True):
            try:
                frames += _predict_video(predictor, path, options.output / name, batch_size, progress)
            except UserError as error:
                bad += 1
                console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
    seconds = time.perf_counter() - start
    if options.coco_results:
        write_json(options.coco_results, coco)

    done = len(paths) + len(videos) - bad
    of = f"{len(paths) + len(videos)} {'files' if videos else 'pictures'}"
    rate = f"{(predicted + frames) / seconds:.1f} {'frames' if frames else 'images'}/s"
    print(f"{done} of {of} predicted, {rate}, in {options.output}")
    if turned:
        print(f"{turned} of them carry an EXIF orientation, which is ignored: pixels are taken as stored")
    for folder in filter(is_folder, inputs):
        if left := sum(is_video(folder / name) for name in names_in(folder)):
            print(f"{folder}: videos in a folder are left out ({left}); one is predicted where it is named itself")
    if bad:
        print(f"{bad} could not be read", file=sys.stderr)
    return 1 if bad else 0


def _expanded(inputs: Sequence[str]) -> list[Path]:
    """The paths, with patterns that no shell has expanded replaced by the files that they fit."""
    found: list[Path] = []
    for word in inputs:
        if not glob.has_magic(word) or is_there(word):
            found.append(Path(word))
            continue
        fitting = sorted(glob.glob(word, recursive=True))
        if not fitting:
            raise UserError(f"no file fits the pattern {word}")
        found += map(Path, fitting)
    return found


def _predict_video(predictor: Predictor, path: Path, output: Path, batch_size: int, progress: Any) -> int:
    """Write ``output.mp4`` and ``output.jsonl``, frame by frame; how many there were."""
    from densevision.io import atomic_write
    from densevision.video import Video, write_video

    video = Video(path)
    count, began = 0, time.perf_counter()
    task = progress.add_task(path.name, total=video.promised or None)
    broken: UserError | None = None
    with (
        write_video(output.with_name(f"{output.name}.mp4"), video.rate) as drawn,
        atomic_write(output.with_name(f"{output.name}.jsonl")) as lines,
        open(lines, "w", encoding="utf-8") as text,
    ):
        frames = iter(video)
        while broken is None:
            batch: list[Any] = []
            try:
                batch += itertools.islice(frames, batch_size)
            except UserError as error:  # what was read before it is kept
                broken = error
            if not batch:
                break
            for result in predictor.predict_batch(batch):
                drawn.add(result.drawn())
                line = {"frame": count, "seconds": round(count / video.rate, 3), **result.to_dict()}
                text.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
            progress.advance(task, len(batch))
        if broken is not None and not count:
            raise broken
    if broken is not None:
        raise broken
    print(f"{path}: {count} frames, {count / (time.perf_counter() - began):.1f} frames/s, in {output}.mp4")
    return count


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
    inputs = {os.path.realpath(path) for path in paths}
    for name in names:
        for output in (folder / f"{name}{end}" for end in (".png", "_labelIds.png", ".mp4")):
            if os.path.realpath(output) in inputs:
                raise UserError(f"{output} would be overwritten by its own prediction; choose another --output")
