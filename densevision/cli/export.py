"""``export CHECKPOINT --format FORMAT --output FILE``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densevision.cli import parser
from densevision.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from densevision.config import Config
    from densevision.export import Exported
    from densevision.export.card import CardRow

USAGE = """\
examples:
  export runs/x/checkpoints/best.ckpt --format onnx --output model.onnx
  export runs/x/checkpoints/best.ckpt --format openvino --output model.xml --dynamic
  export runs/x/checkpoints/best.ckpt --format executorch --output model.pte --postprocess --image-size 512 1024
  export runs/x/checkpoints/best.ckpt --format litert --output model.tflite --pictures photos/ --metrics out.json

The file takes uint8 RGB pictures and normalises them itself. It is compared in its runtime with the checkpoint in
PyTorch on real pictures, those of data.val_split unless others are named, and is written only if they agree. Beside it
lies a model card, FILE.md.
"""
PICTURES = 8  # that are compared where none are named
CALLS = 20  # of a pass, for the card's latencies


def main(argv: Sequence[str]) -> int:
    arguments = parser("export", USAGE)
    arguments.add_argument("checkpoint", type=Path)
    arguments.add_argument("--format", required=True, help="torch_export | onnx | openvino | executorch | litert")
    arguments.add_argument("--output", type=Path, required=True, metavar="FILE")
    arguments.add_argument(
        "--postprocess",
        action="store_true",
        help="the file gives classes, detections or probabilities, not raw outputs",
    )
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
        "--metrics", type=Path, metavar="FILE", help="what evaluate --json wrote, for the model card"
    )
    options = arguments.parse_intermixed_args(argv)
    if options.image_size and min(options.image_size) < 1:
        arguments.error("--image-size takes two positive numbers")

    from rich.console import Console

    from densevision.checkpoint import read_densevision_checkpoint, stored_config, stored_label_map
    from densevision.export import export_model, format_named
    from densevision.inference import model_from_checkpoint

    format_named(options.format)  # a missing package is told before the work
    metrics = _read_metrics(options.metrics)
    stored = read_densevision_checkpoint(options.checkpoint)
    source = str(options.checkpoint)
    loaded, label_map = stored_config(stored, source), stored_label_map(stored, source)
    model = model_from_checkpoint(stored, source)
    pictures = _named(options.pictures) if options.pictures else _of_split(loaded.config, source)
    height, width = options.image_size or loaded.config.data.image_size or pictures[0].shape[:2]

    console = Console()
    with console.status(f"writing and comparing {options.output}"):
        exported = export_model(
            model,
            loaded.config,
            label_map,
            options.output,
            options.format,
            pictures,
            (height, width),
            finished=options.postprocess,
            dynamic=options.dynamic,
        )
        latency = _latency(exported, model)
    _write_card(exported, model, metrics, latency)
    found = exported.agreement
    difference = "" if found.difference is None else f"outputs differ by at most {found.difference:.1e}, "
    console.print(
        f"{exported.path}: {exported.size / 1e6:.2f} MB; compared on real pictures ({found.pictures}): {difference}"
        f"{found.share:.2%} of the results agree with PyTorch",
        highlight=False,
        soft_wrap=True,
    )
    console.print(", ".join(f"{row.runtime} {row.ms:.1f} ms" for row in latency), highlight=False, soft_wrap=True)
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
    exported: Exported, model: nn.Module, metrics: dict[str, Any] | None, latency: Sequence[CardRow]
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
    text = card(exported, total.params, total.conv_madds, metrics, latency, conditions)
    with atomic_write(card_path(exported.path)) as partial:
        partial.write_text(text, encoding="utf-8")
