"""Samples a second, from files on a disk to a batch: this project's loaders beside those of others.

    python tools/benchmarks/data.py [--rounds 5] [--workers 0 2] [--json FILE]

Draws pictures of 1024x2048 as PNG (about 2.4 MB each, as in Cityscapes) and of 480x640 as JPEG (about 150 KB, as in
COCO), and lets all pipelines take turns over them, round by round. Without workers the processor's time of this process
counts, so that other work on the machine does not; with workers the clock on the wall, which it does disturb. A ratio
is the median over the rounds. Every pipeline has one thread a process; all files are in the page cache. The bytes of a
sample are what goes to the device. Neither the bytes nor the times of ours and of mmsegmentation contain normalisation:
they hand uint8 over and normalise on the device. The others hand float32 over, by their recipes, and normalise before
(torchvision's ssd only scales to 0..1).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from other_pipelines import (
    AlbumentationsSegmentation,
    AlbumentationsSSD,
    MMSegmentation,
    TorchvisionSegmentation,
    TorchvisionSSD,
    collate_boxes,
)
from rounds import one_thread
from torch.utils.data import DataLoader

from datamodules import DATAMODULES
from densevision.config.schema import DataConfig
from densevision.io import write_json, write_png

sys.path.append(str(Path(__file__).parents[1]))
from make_demo_data import draw_scene

CROP, DETECTOR = 769, 320
BATCH = 4
REFERENCE = "torchvision reference"
NORMALISATION = (
    "samples/s and MB of densevision (and mmsegmentation) contain no normalisation, which runs on the device; "
    "those of the others contain float32, normalised in the loader (torchvision's ssd: scaled only)"
)


def draw_streets(root: Path, count: int) -> tuple[list[str], list[str]]:
    """A Cityscapes tree of ``count`` pictures; a few scenes, each with its own noise."""
    rng, files = np.random.default_rng(0), []
    scenes = [draw_scene((1, k), (1024, 2048))[:2] for k in range(min(count, 4))]
    for k in range(count):
        image, label = scenes[k % len(scenes)]
        # the lens' blur takes the drawing's noise down, the sensor's adds to it: as large a PNG as Cityscapes has
        image = cv2.GaussianBlur(image, (0, 0), 1.0) + rng.normal(0, 0.8, (*image.shape[:2], 1))
        stem = f"aachen_{k:06d}_000019"
        picture = root / "leftImg8bit/train/aachen" / f"{stem}_leftImg8bit.png"
        target = root / "gtFine/train/aachen" / f"{stem}_gtFine_labelIds.png"
        write_png(picture, np.clip(image, 0, 255).astype(np.uint8))
        write_png(target, label)
        files.append((str(picture), str(target)))
    return [picture for picture, _ in files], [target for _, target in files]


def draw_photos(root: Path, count: int) -> tuple[list[str], list[tuple[np.ndarray, np.ndarray]]]:
    """A COCO folder of ``count`` pictures with 7 boxes each."""
    rng = np.random.default_rng(0)
    files, truths, images, annotations = [], [], [], []
    (root / "train2017").mkdir(parents=True)
    for k in range(count):
        file = root / "train2017" / f"{k:012d}.jpg"
        image = draw_scene((2, k), (480, 640))[0] + rng.normal(0, 4, (480, 640, 1))  # as much detail as a photo has
        image = np.clip(image, 0, 255).astype(np.uint8)
        cv2.imwrite(str(file), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        sides = rng.uniform(20, 300, (7, 2)).round()
        corner = (rng.random((7, 2)) * ((640, 480) - sides)).round()
        truths.append((np.concatenate([corner, corner + sides], 1).astype(np.float32), rng.integers(0, 80, 7)))
        images.append({"id": k + 1, "file_name": file.name, "height": 480, "width": 640})
        for box, label in zip(np.concatenate([corner, sides], 1).tolist(), truths[-1][1].tolist(), strict=True):
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": k + 1, "category_id": label + 1, "bbox": box})
        files.append(str(file))
    categories = [{"id": k + 1, "name": f"class {k}"} for k in range(80)]
    write_json(root / "truth.json", {"images": images, "annotations": annotations, "categories": categories})
    return files, truths


def ours(name: str, root: Path, **keys: Any) -> Callable[[int], Any]:
    """A maker of this project's training loader."""

    def loader(workers: int) -> Any:
        data = DataConfig(name=name, root=str(root), batch_size=BATCH, num_workers=workers, **keys)
        return DATAMODULES[name](data).train_dataloader()

    return loader


def theirs(dataset: Any, collate: Any = None) -> Callable[[int], Any]:
    """A maker of a plain DataLoader."""

    def loader(workers: int) -> Any:
        return DataLoader(
            dataset,
            BATCH,
            shuffle=True,
            num_workers=workers,
            collate_fn=collate,
            drop_last=True,
            persistent_workers=workers > 0,
            worker_init_fn=lambda worker: cv2.setNumThreads(0),
        )

    return loader


def segmentation_loaders(root: Path, count: int) -> dict[str, Callable[[int], Any]]:
    """The recipe of all: scale .5 to 2, crop of 769, mirrored half the time."""
    pictures, targets = draw_streets(root, count)
    keys = {"val_split": "train", "crop_size": [CROP, CROP], "scale_range": [0.5, 2.0], "flip": 0.5}
    keys["cache_dir"] = str(root.parent / "cache")
    return {
        REFERENCE: theirs(TorchvisionSegmentation(pictures, targets, CROP)),
        "albumentations": theirs(AlbumentationsSegmentation(pictures, targets, CROP)),
        "mmsegmentation": theirs(MMSegmentation(pictures, targets, CROP)),
        "densevision": ours("cityscapes", root, **keys),
        "densevision, compressed": ours("cityscapes", root, cache="compressed", **keys),
        "densevision, raw": ours("cityscapes", root, cache="raw", **keys),
    }


def detection_loaders(root: Path, count: int) -> dict[str, Callable[[int], Any]]:
    """The augmentations of torchvision's preset ``ssd``, to 320x320."""
    files, truths = draw_photos(root, count)
    keys = {"train_annotations": "truth.json", "val_annotations": "truth.json", "val_images": "train2017"}
    keys |= {"augment": "ssd", "image_size": [DETECTOR, DETECTOR], "flip": 0.5}
    keys["cache_dir"] = str(root.parent / "cache")
    return {
        REFERENCE: theirs(TorchvisionSSD(files, truths, DETECTOR), collate_boxes),
        "albumentations": theirs(AlbumentationsSSD(files, truths, DETECTOR), collate_boxes),
        "densevision": ours("coco", root, **keys),
        "densevision, compressed": ours("coco", root, cache="compressed", **keys),
        "densevision, raw": ours("coco", root, cache="raw", **keys),
    }


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors of a batch."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def measure(makers: dict[str, Callable[[int], Any]], workers: int, rounds: int) -> dict[str, dict[str, float]]:
    """Samples a second of each pipeline and the bytes of a sample's tensors, each beside the reference's."""
    clock = time.perf_counter if workers else time.process_time
    loaders = {name: make(workers) for name, make in makers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    size, samples = {}, {}
    for turn in range(rounds + 1):
        for name, loader in loaders.items():
            if hasattr(loader.sampler, "set_epoch"):
                loader.sampler.set_epoch(turn)
            began, samples[name] = clock(), 0
            for batch in loader:
                samples[name] += BATCH
                size[name] = sum(tensor.nbytes for tensor in tensors(batch)) / BATCH
            if turn:  # the first warms up: page cache, workers, checksums
                seconds[name].append((clock() - began) / samples[name])
    return {
        name: {
            "samples_per_second": 1 / median(seconds[name]),
            "ratio": median(r / s for r, s in zip(seconds[REFERENCE], seconds[name], strict=True)),
            "bytes_per_sample": size[name],
            "bytes_ratio": size[REFERENCE] / size[name],
        }
        for name in loaders
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument("--pictures", type=int, default=16, metavar="N", help="of each kind; default 16")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], metavar="N", help="default 0 2")
    parser.add_argument("--only", choices=("segmentation", "detection"), help="default both")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    one_thread()
    kinds = {"segmentation": segmentation_loaders, "detection": detection_loaders}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, prepare in kinds.items():
            if arguments.only not in (None, kind):
                continue
            root = Path(folder) / kind
            makers = prepare(root, arguments.pictures)
            files = [file for suffix in ("*_leftImg8bit.png", "*.jpg") for file in root.rglob(suffix)]
            print(f"{kind}: {len(files)} pictures, {np.mean([f.stat().st_size for f in files]) / 1e6:.2f} MB each")
            results[kind] = {}
            for workers in arguments.workers:
                results[kind][f"workers {workers}"] = rows = measure(makers, workers, arguments.rounds)
                print(f"  {workers} workers ({'wall clock' if workers else 'CPU time'})")
                for name, row in rows.items():
                    rate, megabytes = row["samples_per_second"], row["bytes_per_sample"] / 1e6
                    bytes_ = f"{megabytes:6.2f} MB/sample, 1/{row['bytes_ratio']:.2f}"
                    print(f"    {name:26} {rate:8.1f} samples/s {row['ratio']:7.2f}x {bytes_}")
    print(NORMALISATION)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
