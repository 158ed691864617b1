"""Detection that wins in a short run: our recipes against a plain loop, with several seeds.

    python tools/benchmarks/accuracy_detection.py --data DIR --weights FILE [--output runs/accuracy_detection]

Trains every arm for 200 steps of batch 8 at 224x224 on the 205 pictures of blood cells of BCCD and judges it on the 87
of its validation split. Every run leaves a JSON file; called again, the command does what is missing. DIR is a COCO
tree (train2017, val2017, annotations), FILE torchvision's MobileNetV2 ImageNet state dict.

Both kinds of arm see the same pictures and are judged alike, in the pictures' own pixels, with 100 detections a
picture: the plain loop by pycocotools, ours by the commands' own judge, which equals it. The passes that our recipes
make for batch-norm statistics are counted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from accuracy import print_comparison, read_run, run_file, run_once

STEPS, SIZE = 200, (224, 224)
BASELINE = 38.6, 2.0  # the AP that the plain loop at momentum 0.1 must reach, and how far it may be off


@dataclass(frozen=True)
class Arm:
    """One line of the result. train: (data, weights, seed, run directory) -> ``ap``, ``ap50``, ``ap50_by_class``."""

    name: str
    seeds: int
    train: Callable[[Path, Path, int, Path], dict[str, Any]]


def plain(momentum: float | None) -> Callable[..., dict[str, Any]]:
    """torchvision's SSDLite in the loop of plain_detection.py."""

    def train(data: Path, weights: Path, seed: int, run: Path) -> dict[str, Any]:
        from plain_detection import train_and_score

        return train_and_score(data, momentum, seed, STEPS, SIZE)

    return train


def recipe(config: str, *overrides: str) -> Callable[..., dict[str, Any]]:
    """One of our configurations."""

    def train(data: Path, weights: Path, seed: int, run: Path) -> dict[str, Any]:
        from rich.console import Console

        from densevision import experiment
        from densevision.config import load_config

        words = [f"data.root={data}", f"seed={seed}", f"output_dir={run}", "data.num_workers=0", "wandb.mode=disabled"]
        words += [word.format(weights=weights) for word in overrides]
        found = experiment.train(load_config(config, words), Console(quiet=True))["evaluation"]
        return {"ap": found["map"], "ap50": found["map_50"], "ap50_by_class": found["map_50_per_class"]}

    return train


ARMS = (
    Arm("torchvision, plain loop, its momentum", 1, plain(None)),
    Arm("torchvision, plain loop, momentum 0.1", 5, plain(0.1)),
    Arm("our V3-Large, reduced tail", 5, recipe("finetune/ssdlite_v3_bccd")),
    Arm("our V2, ImageNet", 5, recipe("finetune/ssdlite_v2_bccd", "model.backbone.pretrained={weights}")),
)
REFERENCE = ARMS[1]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    test_data = os.environ.get("DENSEVISION_TEST_DATA")
    parser.add_argument("--data", type=Path, default=test_data and Path(test_data) / "bccd" / "coco")
    parser.add_argument(
        "--weights", type=Path, default=test_data and Path(test_data).parent / "weights" / "mobilenet_v2-b0353104.pth"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/accuracy_detection"))
    parser.add_argument("--arms", nargs="+", type=int, choices=range(len(ARMS)), default=range(len(ARMS)))
    parser.add_argument("--seeds", type=int, default=5, help="only so many seeds of every arm")
    parser.add_argument("--report", action="store_true", help="train nothing, print what there is")
    options = parser.parse_args(argv)
    if not options.report:
        if options.data is None or options.weights is None:
            parser.error("give --data and --weights, or set DENSEVISION_TEST_DATA")
        # seed by seed, so that an unfinished table compares all arms
        for seed in range(options.seeds):
            for index in options.arms:
                if seed < ARMS[index].seeds:
                    _train_once(ARMS[index], seed, options)
    return 1 if _print_results(options.output) else 0


def _train_once(arm: Arm, seed: int, options: argparse.Namespace) -> None:
    def train(run: Path) -> dict[str, Any]:
        return arm.train(options.data, options.weights, seed, run)

    result = run_once(run_file(options.output, arm.name, seed), {"arm": arm.name, "seed": seed}, train)
    scores = f"AP {100 * result['ap']:.1f}, AP50 {100 * result['ap50']:.1f}"
    print(f"{arm.name}, seed {seed}: {scores} ({result['seconds']:.0f} s)", flush=True)


def _print_results(output: Path) -> bool:
    """Print the tables; whether the baseline is broken."""
    files = {arm: [run_file(output, arm.name, seed) for seed in range(arm.seeds)] for arm in ARMS}
    results = {arm: [read_run(file) for file in own if file.exists()] for arm, own in files.items()}
    for title, key in (("AP", "ap"), ("AP50", "ap50")):
        scores = {arm.name: [100 * run[key] for run in runs] for arm, runs in results.items()}
        print_comparison(title, scores, REFERENCE.name)
    _print_classes(results)
    reference = [100 * run["ap"] for run in results[REFERENCE]]
    expected, tolerance = BASELINE
    broken = bool(reference) and abs(mean(reference) - expected) > tolerance
    if broken:
        print(f"the baseline is broken: AP {mean(reference):.1f} is not {expected:g} +- {tolerance:g}", file=sys.stderr)
    return broken


def _print_classes(results: dict[Arm, list[dict[str, Any]]]) -> None:
    """AP50 of each class: mean and lowest over the seeds."""
    classes = next((list(run["ap50_by_class"]) for runs in results.values() for run in runs), [])
    print("\nAP50 by class: mean (lowest seed)")
    print(f"{'arm':40} {'seeds':>5}" + "".join(f" {name:>13}" for name in classes))
    for arm, runs in results.items():
        line = f"{arm.name:40} {len(runs):5}"
        for name in classes if runs else ():
            scores = [100 * run["ap50_by_class"][name] for run in runs]
            line += f" {mean(scores):5.1f} ({min(scores):5.1f})"
        if runs:
            print(line)


if __name__ == "__main__":
    sys.exit(main())
