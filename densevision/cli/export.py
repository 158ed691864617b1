"""``export CHECKPOINT --format FORMAT --output FILE``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densevision.cli import parser
from densevision.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from densevision.config import Config
    from densevision.export import Exported, PrecisionReport
    from densevision.export.card import CardRow
    from densevision.structures import LabelMap

USAGE = """\
examples:
  export runs/x/checkpoints/best.ckpt --format onnx --output model.onnx
  export runs/x/checkpoints/best.ckpt --format openvino --output model.xml --dynamic
  export runs/x/checkpoints/best.ckpt --format executorch --output model.pte --postprocess --image-size 512 1024
  export runs/x/checkpoints/best.ckpt --format litert --output model.tflite --pictures photos/ --metrics out.json
  export runs/x/checkpoints/best.ckpt --format executorch --output model.pte --quantize int8 data.root=/data/cityscapes

The file takes uint8 RGB pictures and normalises them itself. It is compared in its runtime with the checkpoint in
PyTorch on real pictures, those of data.val_split unless others are named, and is written only if they agree. Beside it
lies a model card, FILE.md.

--quantize int8 rounds weights and activations, by ranges found on training pictures; a checkpoint that was trained for
int8 (quantize.mode=qat) brings its own and needs no option. --quantize fp16 stores the weights in half the space. Both
are judged on the validation set before and after.
"""
AS_FILE = ["evaluation.mode=whole", "evaluation.scales=[1.0]", "evaluation.flip=false"]
PICTURES = 8  # that are compared where none are named
CALIBRATED = 64  # training pictures, over the whole split
CALLS = 20  # of a pass, for the card's latencies


def main(argv: Sequence[str]) -> int:
    arguments = parser("export", USAGE)
    arguments.add_argument("checkpoint", type=Path)
    arguments.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values to change")
    arguments.add_argument("--format", required=True, help="torch_export | onnx | openvino | executorch | litert")
    arguments.add_argument("--output", type=Path, required=True, metavar="FILE")
    arguments.add_argument(
        "--postprocess",
        action="store_true",
        help="the file gives classes, detections or probabilities, not raw outputs",
    )
    arguments.add_argument(
        "--candidates",
        type=int,
        metavar="N",
        help="that a detector's --postprocess looks at, the best pairs of anchor and class (default: 1024)",
    )
    arguments.add_argument("--quantize", choices=["int8", "fp16"], help="int8 arithmetic, or weights of 16 bits")
    arguments.add_argument("--dynamic", action="store_true", help="the file takes pictures of several sizes")
    arguments.add_argument(
        "--image-size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="of the file's pictures (default: data.image_size, else the first picture's)",
    )
    arguments.add_argument("--pictures", nargs="+", type=Path, metavar="FILE|FOLDER", help="to compare on")
    arguments.add_argument(
        "--metrics", type=Path, metavar="FILE", help="what evaluate --json wrote, for the card (default: the run's own)"
    )
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = arguments.parse_intermixed_args(argv)
    if options.image_size and min(options.image_size) < 1:
        arguments.error("--image-size takes two positive numbers")
    if options.candidates is not None and options.candidates < 1:
        arguments.error("--candidates takes a positive number")

    from rich.console import Console

    from densevision.checkpoint import read_densevision_checkpoint, stored_config, stored_label_map
    from densevision.detection.postprocess import CANDIDATES
    from densevision.evaluation import check_same_model
    from densevision.export import check_request, export_model, format_named
    from densevision.inference import model_from_checkpoint
    from densevision.io import make_folder, write_json
    from densevision.quantize import int8

    format_named(options.format)  # a missing package is told before the work
    metrics = _read_metrics(options.metrics)
    if options.json:
        make_folder(options.json.parent)
    stored = read_densevision_checkpoint(options.checkpoint)
    judged = stored["densevision"].get("judged") or None  # by its own run
    source = str(options.checkpoint)
    loaded, label_map = stored_config(stored, source, options.overrides), stored_label_map(stored, source)
    config = loaded.config
    with loaded.blaming_origin():
        check_same_model(config, stored_config(stored, source).config)
    if config.quantize.mode and options.quantize == "fp16":
        raise UserError(f"{source} was trained for int8, and its files are int8; leave out --quantize fp16")
    precision = "int8" if config.quantize.mode else options.quantize
    check_request(config.task, options.output, options.format, options.postprocess, options.dynamic, precision)
    if options.candidates and not (options.postprocess and config.task == "detection"):
        raise UserError("--candidates is of a detector's --postprocess")
    make_folder(options.output.parent)
    network = model = model_from_checkpoint(stored, source)
    plain = _float(model, config, label_map)
    pictures = _named(options.pictures) if options.pictures else _of_split(config, source)
    height, width = options.image_size or config.data.image_size or pictures[0].shape[:2]

    def write(
        network: nn.Module,
        output: Path,
        finished: bool,
        precision: str | None,
        complete: Callable[[Exported], None] | None = None,
    ) -> Exported:
        return export_model(
            network,
            config,
            label_map,
            output,
            options.format,
            pictures,
            (height, width),
            finished=finished,
            dynamic=options.dynamic,
            precision=precision,
            complete=complete,
            candidates=options.candidates or CANDIDATES,
        )

    report: PrecisionReport | None = None
    latency: list[CardRow] = []

    def complete(draft: Exported) -> None:  # a file is there with its card and what it is worth, or not at all
        nonlocal report, latency
        report = None if before is None else _report(draft, plain, network, write, before, options.overrides)
        latency = _latency(draft, model)
        _write_card(draft, plain, metrics or before or judged, latency, report)

    console = Console()
    with console.status(f"writing and comparing {options.output}"):
        # as the file will see pictures, so that what is lost is lost by rounding
        as_file = [f"data.image_size=[{height},{width}]", *AS_FILE]
        before = _judged(options.checkpoint, [*options.overrides, *as_file]) if precision else None
        if precision == "int8":
            network = int8(model, _calibration(config, (height, width)))
        exported = write(network, options.output, options.postprocess, precision, complete)
    found = exported.agreement
    difference = "" if found.difference is None else f"outputs differ by at most {found.difference:.1e}, "
    lines = [
        f"{exported.path}: {exported.size / 1e6:.2f} MB; compared on real pictures ({found.pictures}): {difference}"
        f"{found.share:.2%} of the results agree with PyTorch",
        *(report.lines() if report else ()),
        *(f"warning: {warning}" for warning in (report.warnings() if report else ())),
        *([f"warning: {lost} (--candidates looks at more)"] if (lost := found.lost()) else ()),
        ", ".join(f"{row.runtime} {row.ms:.1f} ms" for row in latency),
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    if options.json:
        figures = {
            "file": str(exported.path),
            "size": exported.size,
            "agreement": asdict(found),
            "latency": [asdict(row) for row in latency],
            "precision": asdict(report) if report else None,
        }
        write_json(options.json, figures)
    return 0


def _named(paths: Sequence[Path]) -> list[np.ndarray]:
    from densevision.io import list_images, read_image

    return [read_image(path) for path in list_images(paths)[:PICTURES]]


def _of_split(config: Config, source: str) -> list[np.ndarray]:
    """The first pictures of the validation split that a checkpoint's configuration names."""
    from densevision.experiment import build_datamodule
    from densevision.structures import SampleKey

    try:
        dataset = build_datamodule(config).read_part(config.data.val_split, training=False)
        samples = [dataset[SampleKey(0, index)] for index in range(min(PICTURES, len(dataset)))]
    except UserError as error:
        raise UserError(f"{source} is compared on pictures; name some with --pictures ({error})") from error
    return [sample["image"].permute(1, 2, 0).numpy() for sample in samples]


def _calibration(config: Config, size: tuple[int, int]) -> Iterator[Tensor]:
    """Training pictures, spread over the split that a checkpoint's configuration names."""
    import torch

    from densevision.experiment import build_datamodule
    from densevision.io import resize_image
    from densevision.structures import SampleKey

    dataset = build_datamodule(config).read_part(config.data.train_split, training=False)
    for index in range(0, len(dataset), -(-len(dataset) // CALIBRATED)):
        picture = dataset[SampleKey(0, index)]["image"].permute(1, 2, 0).numpy()
        yield torch.from_numpy(resize_image(picture, size).transpose(2, 0, 1)[None].copy())


def _judged(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """What the validation set says of a checkpoint or a file."""
    from rich.console import Console

    from densevision.evaluation import evaluate

    try:
        return evaluate(path, overrides, None, None, Console(quiet=True))
    except UserError as error:
        raise UserError(f"a file of lower precision is judged on the validation set: {error}", error.key) from error


def _float(model: nn.Module, config: Config, label_map: LabelMap) -> nn.Module:
    """The network itself, or one of its shape without rounding."""
    from densevision.models import build_model

    return build_model(config.model, label_map.num_classes, load_weights=False) if config.quantize.mode else model


def _report(
    exported: Exported,
    plain: nn.Module,
    network: nn.Module,
    write: Callable[..., Exported],
    before: dict[str, Any],
    overrides: Sequence[str],
) -> PrecisionReport:
    """Judge a file, and write what it is compared with: the float file, and one with raw outputs if it has not."""
    import tempfile

    from densevision.complexity import measure
    from densevision.export import FIGURES, FORMATS, PrecisionReport, format_of, optimised

    metadata = exported.metadata
    precision, metric = metadata.precision, FIGURES[metadata.task]
    assert precision is not None
    with tempfile.TemporaryDirectory() as folder:
        below = Path(folder)
        raw = exported
        if metadata.finished:
            raw = write(network, below / f"raw{exported.path.suffix}", False, precision)
        size = write(plain, below / f"float{exported.path.suffix}", metadata.finished, None).size
        after = _judged(raw.path, overrides)
        share = None
        if precision == "int8":
            madds = measure(optimised(plain), metadata.image_size).conv_madds
            share = FORMATS[format_of(raw.path)].int8_madds(raw.path) / madds
    return PrecisionReport(
        precision=precision,
        trained=metadata.config["quantize"]["mode"] is not None,
        metric=metric[1],
        before=before[metric[0]],
        after=after[metric[0]],
        split=after["split"],
        pictures=after["pictures"],
        size_ratio=exported.size / size,
        int8_share=share,
    )


def _read_metrics(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        if not {"split", "pictures"} <= set(metrics):
            raise ValueError("no split and pictures in it")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not what evaluate --json writes: {error}") from error
    return metrics


def _latency(exported: Exported, model: nn.Module) -> list[CardRow]:
    from densevision.export import open_file
    from densevision.export.card import CardRow
    from densevision.latency import file_run, network_run, time_calls, torch_threads

    size = exported.metadata.image_size
    with torch_threads(1):
        found = time_calls(
            {
                "PyTorch": network_run(model, size),
                "this file": file_run(open_file(exported.path, threads=1), size),
            },
            calls=CALLS,
        )
    return [CardRow(name, latency.ms, latency.spread) for name, latency in found.items()]


def _write_card(
    exported: Exported,
    model: nn.Module,
    metrics: dict[str, Any] | None,
    latency: Sequence[CardRow],
    report: PrecisionReport | None,
) -> None:
    import platform

    from densevision.complexity import measure
    from densevision.export.card import card, card_path
    from densevision.io import atomic_write

    conditions = (
        f"One picture, one thread, {platform.machine()}; the 10th percentile of {CALLS} calls, the least of 3 "
        "interleaved passes, raw outputs in PyTorch. `densevision benchmark` measures on your machine."
    )
    total = measure(model, exported.metadata.image_size)
    text = card(exported, total.params, total.conv_madds, metrics, latency, conditions, report)
    with atomic_write(card_path(exported.path)) as partial:
        partial.write_text(text, encoding="utf-8")
