"""Every backbone with every head in every format: written, opened in its runtime, compared with PyTorch.

python tools/benchmarks/export_matrix.py --pictures photos/ [--json FILE] [--markdown docs/export_matrix.md]

Untrained networks of 5 classes at width 0.5 and 128x192 pixels, raw outputs and, in the second half of the table,
finished ones (class map, detections, probabilities). A row is kept in the json file as soon as it is there, so that the
command goes on where it was stopped; the first rows meet every backbone and every head in every format, and the table
says how many are missing. The exit status is 1 if a combination fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounds import one_thread

from densevision.backbones import BACKBONES
from densevision.config.schema import Config
from densevision.errors import UserError
from densevision.export import FORMATS, export_model, installed
from densevision.io import atomic_write, list_images, read_image, resize_image, write_json
from densevision.latency import with_statistics
from densevision.model_heads import CLASSIFICATION_HEADS, DETECTION_HEADS, HEADS
from densevision.models import build_model, resolved
from densevision.structures import LabelMap

SIZE, CLASSES = (128, 192), 5
LABELS = LabelMap(tuple(range(CLASSES)), tuple("abcde"), ((0, 0, 0),) * CLASSES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, nargs="+", required=True, help="files or folders; eight are used")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--json", type=Path, default=Path("export_matrix.json"))
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    one_thread()
    pictures = [read_image(path) for path in list_images(options.pictures)[:8]]
    done: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {}
    formats = [name for name in options.formats if installed(name)]
    if missing := sorted(set(options.formats) - set(formats)):
        print(f"not installed, left out: {', '.join(missing)}", file=sys.stderr)
    cases = ordered(formats)
    for number, case in enumerate(cases, 1):
        key = " ".join([*case[:3], "finished" if case[3] else "raw"])
        if key not in done:
            done[key] = convert(*case, pictures)
            write_json(options.json, done)
        print(f"{number}/{len(cases)} {key}: {said(done[key])}", flush=True)
    if options.markdown:
        with atomic_write(options.markdown) as partial:
            partial.write_text(page(done, len(ordered(FORMATS))), encoding="utf-8")
    return int(any("error" in row for row in done.values()))


def ordered(formats: Iterable[str]) -> list[tuple[str, str, str, bool]]:
    """Format, backbone, head, and whether finished, the rows that show most first."""
    heads, backbones = list(HEADS), sorted(BACKBONES)
    cases = [
        # the diagonal has every backbone, and every head several times
        ((head + backbone) % len(heads), finished, name, backbones[backbone], heads[head])
        for finished, name, backbone, head in product((False, True), formats, range(len(backbones)), range(len(heads)))
        # finished outputs add the same operations to every backbone
        if not finished or backbones[backbone] == "mobilenet_v3_large"
    ]
    return [(name, backbone, head, finished) for _, finished, name, backbone, head in sorted(cases)]


def convert(format_name: str, backbone: str, head: str, finished: bool, pictures: list[Any]) -> dict[str, Any]:
    """One row: seconds, bytes, difference and share, or the error."""
    config = Config(task=_task(head))
    config.data.name, config.data.image_size = "folders", list(SIZE)
    config.model.backbone.name, config.model.head.name = backbone, head
    config.model.backbone.width_mult = 0.5
    config.model.backbone.output_stride = 32 if _task(head) == "classification" else 16
    config.model = resolved(config.model)
    torch.manual_seed(0)
    # statistics of the pictures themselves: where they do not fit, rounding grows from block to block
    images = torch.from_numpy(np.stack([resize_image(picture, SIZE).transpose(2, 0, 1) for picture in pictures]))
    model = with_statistics(build_model(config.model, CLASSES), SIZE, images)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / f"model{FORMATS[format_name].suffix}"
        try:
            found = export_model(model, config, LABELS, output, format_name, pictures, SIZE, finished)
        except UserError as error:
            return {"error": str(error).replace(folder, ""), "seconds": round(time.process_time() - began, 1)}
        return {
            "seconds": round(time.process_time() - began, 1),
            "bytes": found.size,
            "difference": found.agreement.difference,
            "share": found.agreement.share,
        }


def _task(head: str) -> str:
    if head in DETECTION_HEADS:
        return "detection"
    return "classification" if head in CLASSIFICATION_HEADS else "segmentation"


def said(row: dict[str, Any]) -> str:
    """A row in a few words."""
    if "error" in row:
        return f"ERROR {row['error']}"
    return f"{row['difference']:.0e}" if row["difference"] is not None else f"{row['share']:.2%}"


def page(done: dict[str, Any], wanted: int) -> str:
    """The table in Markdown: a line for each network, a column for each format; an empty cell was not run."""
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for key, row in done.items():
        name, backbone, head, kind = key.split()
        lines.setdefault((kind, backbone, head), {})[name] = "error" if "error" in row else said(row)
    parts = [
        "# Every network in every format",
        "Written by `python tools/benchmarks/export_matrix.py --pictures photos/ --markdown docs/export_matrix.md`: "
        "untrained networks of 5 classes, width 0.5, 128x192 pixels, eight pictures, whose statistics they normalise "
        "by. Of raw outputs the greatest "
        "difference from PyTorch over the greatest output (at least 1), of finished ones the share that agrees: pixels "
        "with the same class, detections found again, pictures with the same first class.",
    ]
    if len(done) < wanted:
        parts.append(f"{len(done)} of {wanted} combinations were run; an empty cell was not.")
    for kind in ("raw", "finished"):
        rows = [f"| {b} | {h} | " + " | ".join(line.get(n, "") for n in FORMATS) + " |"
                for (k, b, h), line in sorted(lines.items()) if k == kind]  # fmt: skip
        head = ["| backbone | head | " + " | ".join(FORMATS) + " |", "| --- | --- |" + " ---: |" * len(FORMATS)]
        parts += [f"## {kind.capitalize()} outputs", "\n".join([*head, *rows])]
    failures = [f"- {key}: {row['error']}" for key, row in sorted(done.items()) if "error" in row]
    if failures:
        parts += ["## What failed", "\n".join(failures)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
