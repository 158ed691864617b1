"""MobileNeXt against MobileNetV2 on CIFAR-10, both by the recipe that is customary for MobileNetV2, 5 runs each.

    python tools/benchmarks/cifar_mobilenext.py [--data DIR]                     small: 900 steps at half width
    python tools/benchmarks/cifar_mobilenext.py --full --data DIR [--download]   200 epochs at full width, for a GPU

DIR holds train/CLASS and val/CLASS. ``--download`` fetches CIFAR-10 (170 MB) and writes it there in that form. The
small setting is meant for a subset of some thousand pictures on a CPU: it shows that the comparison runs and what so
few pictures say, and answers nothing about the full set. Every run leaves a JSON file below --output; called again,
the command does what is missing.

SGD with momentum 0.9, weight decay 5e-4, cosine to 0, mirrored random crops, no label smoothing. Pictures of 32 pixels
leave a network that halves them five times a single cell; the later halvings are dilations instead, in both networks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from accuracy import print_comparison, read_run, run_file, run_once

ARMS = {"MobileNetV2": "mobilenet_v2", "MobileNeXt": "mobilenext"}
REFERENCE = "MobileNetV2"
SEEDS = 5
RECIPE = (
    "optim.name=sgd", "optim.momentum=0.9", "optim.weight_decay=5e-4", "optim.schedule=cosine",
    "loss.label_smoothing=0", "wandb.mode=disabled",
)  # fmt: skip
SETTINGS = {
    "small": (
        "model.backbone.width_mult=0.5", "model.backbone.output_stride=16", "data.batch_size=32", "data.num_workers=0",
        "trainer.channels_last=true", "optim.lr=0.02", "optim.warmup_steps=100", "trainer.max_epochs=null",
        "trainer.max_steps=900", "trainer.val_every=900", "trainer.bn_recalibration=20",
    ),
    "full": (
        "model.backbone.output_stride=8", "data.batch_size=128", "data.cache=raw", "optim.lr=0.1",
        "optim.warmup_steps=390", "trainer.max_epochs=200",
    ),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="default: cifar10_folder of $DENSEVISION_TEST_DATA")
    parser.add_argument("--full", action="store_true", help="train as long as the literature")
    parser.add_argument("--download", action="store_true", help="fetch CIFAR-10 and write it to --data first")
    parser.add_argument("--output", type=Path, default=Path("runs/cifar_mobilenext"))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="only so many seeds of each")
    parser.add_argument("--report", action="store_true", help="train nothing, print what there is")
    options = parser.parse_args(argv)
    setting = "full" if options.full else "small"
    if options.download:
        if options.data is None:
            parser.error("say with --data where to write CIFAR-10")
        download(options.data)
    if not options.report:
        test_data = os.environ.get("DENSEVISION_TEST_DATA")
        data = options.data or (test_data and not options.full and Path(test_data) / "cifar10_folder")
        if not data:
            parser.error("give --data" + ("" if options.full else ", or set DENSEVISION_TEST_DATA"))
        # seed by seed, so that an unfinished table compares both
        for seed in range(options.seeds):
            for arm in ARMS:
                result = _train_once(arm, setting, seed, data, options.output)
                print(f"{arm}, seed {seed}: {100 * result['top1']:.1f} ({result['seconds']:.0f} s)", flush=True)
    scores = {arm: _scores(options.output, setting, arm) for arm in ARMS}
    print_comparison(f"top-1 on the validation pictures, {setting} setting", scores, REFERENCE)
    return 0


def download(folder: Path) -> None:
    """Fetch CIFAR-10 through torchvision and write it as class folders, its test pictures as ``val``."""
    from torchvision.datasets import CIFAR10

    for split, train in (("train", True), ("val", False)):
        if not (folder / split).exists():
            source = CIFAR10(str(folder / "download"), train=train, download=True)
            write_class_folders(source, source.classes, folder / split)


def write_class_folders(pictures: Iterable[tuple[Any, int]], names: Sequence[str], folder: Path) -> None:
    """Write (PIL picture, class index) pairs to ``folder/CLASS/NUMBER.png``; the folder is there once it is whole."""
    partial = folder.with_name(f"{folder.name}.partial")
    for name in names:
        (partial / name).mkdir(parents=True, exist_ok=True)
    for number, (picture, label) in enumerate(pictures):
        picture.save(partial / names[label] / f"{number:05d}.png")
    partial.rename(folder)


def _train_once(arm: str, setting: str, seed: int, data: Path, output: Path) -> dict[str, Any]:
    def train(run: Path) -> dict[str, Any]:
        from rich.console import Console

        from densevision import experiment
        from densevision.config import load_config

        words = [*RECIPE, *SETTINGS[setting], f"model.backbone.name={ARMS[arm]}", f"data.root={data}", f"seed={seed}"]
        words.append(f"output_dir={run.parent / 'runs' / run.name}")  # one that is cut off goes on where it was
        summary = experiment.train(load_config("mobilenext_cifar10", words), Console(stderr=True))
        return {key: summary[key] for key in ("steps", "parameters")} | summary["evaluation"]

    labels = {"arm": arm, "setting": setting, "seed": seed, "data": str(data), "recipe": [*RECIPE, *SETTINGS[setting]]}
    return run_once(run_file(output, setting, arm, seed), labels, train)


def _scores(output: Path, setting: str, arm: str) -> list[float]:
    files = [run_file(output, setting, arm, seed) for seed in range(SEEDS)]
    return [100 * read_run(file)["top1"] for file in files if file.exists()]


if __name__ == "__main__":
    sys.exit(main())
