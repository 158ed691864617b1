"""Segmentation that wins in a short run: our recipes against a plain loop, with several seeds.

    python tools/benchmarks/accuracy_segmentation.py --data DIR --weights FILE [--output runs/accuracy_segmentation]

Trains every arm for 200 steps of batch 8 at 176x240 on CamVid in the Cityscapes layout, twice: on train, judged on val
(one clip of a drive that is also in train), and on two sequences, judged on the third, a street never seen. Every run
leaves a JSON file; called again, the command does what is missing, and anew what was trained by another recipe. DIR is
a folder with leftImg8bit and gtFine, FILE torchvision's MobileNetV2 ImageNet state dict.

Both kinds of arm learn from as many pictures and are judged alike: one view, class maps of the labels' own size, one
confusion matrix, mean IoU of the 11 classes that occur. The further passes of our recipes over training pictures,
forward only and for batch-norm statistics alone, are printed below the results.
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

from accuracy import is_result, print_comparison, read_run, run_file, run_once

STEPS, BATCH, SIZE = 200, 8, (176, 240)
LEARNT_BY = ("model.", "data.", "loss.", "optim.", "trainer.bn_recalibration")  # the keys that make a recipe
SPLITS: dict[str, tuple[tuple[str, list[str] | None], tuple[str, list[str] | None]]] = {
    "val": (("train", None), ("val", None)),
    "sequence": (("train", ["seq0001tp", "seq0016e5"]), ("train", ["seq0006r0"])),
}
CLASSES = (
    "road", "sidewalk", "building", "fence", "pole", "traffic sign", "vegetation", "sky", "person", "rider", "car",
)  # fmt: skip
BASELINE = 0.48, 0.03  # what the plain loop at momentum 0.1 must reach on val, and how far it may be off


@dataclass(frozen=True)
class Arm:
    """One line of the result.

    name: also of its files. seeds: how many. train: (data, weights, split, seed, run directory) -> IoU of the 11
    classes. recipe: what differs from the configuration's defaults, where that may change. statistics: further passes
    over training pictures.
    """

    name: str
    seeds: int
    train: Callable[[Path, Path, str, int, Path], list[float]]
    recipe: list[str] | None = None
    statistics: int = 0


def plain(name: str, seeds: int, momentum: float | None) -> Arm:
    """torchvision's LR-ASPP in the loop of plain_segmentation.py."""

    def train(data: Path, weights: Path, split: str, seed: int, run: Path) -> list[float]:
        from plain_segmentation import train_and_score

        return train_and_score(data, *SPLITS[split], momentum, seed, STEPS, SIZE)

    return Arm(name, seeds, train)


def ours(name: str, config: str, torchvisions: bool = False, imagenet: bool = False) -> Arm:
    """One of our configurations.

    Args:
        torchvisions: with torchvision's model, as torchvision initialises it.
        imagenet: with the weights of the command line.
    """
    from densevision.config import Config, load_config

    more = TORCHVISIONS_MODEL if torchvisions else ()
    loaded = load_config(config, more).config
    trainer, data = loaded.trainer, loaded.data
    assert (trainer.max_steps, data.batch_size, tuple(data.image_size)) == (STEPS, BATCH, SIZE), config

    def train(data: Path, weights: Path, split: str, seed: int, run: Path) -> list[float]:
        from rich.console import Console

        from densevision import experiment

        (train_split, train_cities), (test_split, test_cities) = SPLITS[split]
        words = [f"data.train_split={train_split}", f"data.val_split={test_split}"]
        words += [f"data.{use}_cities=[{','.join(c)}]" for use, c in _cities(train_cities, test_cities) if c]
        words += [f"data.root={data}", f"seed={seed}", f"output_dir={run}", "data.num_workers=0", "wandb.mode=disabled"]
        words += more
        if imagenet:
            words += [f"model.backbone.pretrained={weights}"]
        if torchvisions:
            words += [f"model.pretrained={_torchvisions_weights(seed, run)}"]
        summary = experiment.train(load_config(config, words), Console(quiet=True))
        return [summary["evaluation"]["iou"][name] or 0.0 for name in CLASSES]

    return Arm(name, 5, train, sorted(_words(loaded) - _words(Config())), trainer.bn_recalibration * BATCH)


def _words(config: Any) -> set[str]:
    from densevision.config import config_to_dict, flat_items

    return {f"{key}={value}" for key, value in flat_items(config_to_dict(config)) if key.startswith(LEARNT_BY)}


# configs/lraspp_v3_voc_torchvision.yaml's model
TORCHVISIONS_MODEL = (
    "model.backbone.reduced_tail=false", "model.backbone.dilation_rule=new", "model.head.low_tap=c3_first",
    "model.head.pool_window=null", "model.head.gate=sigmoid", "model.head.gate_bias=false",
    "model.head.align_corners=false", "model.preprocess=imagenet",
)  # fmt: skip
ARMS = (
    plain("torchvision, plain loop, its momentum", 1, None),
    plain("torchvision, plain loop, momentum 0.1", 5, 0.1),
    ours("torchvision, our recipe", "finetune/lraspp_v3_camvid", torchvisions=True),
    ours("our V3-Large, reduced tail", "finetune/lraspp_v3_camvid"),
    ours("our V2, ImageNet", "finetune/lraspp_v2_camvid", imagenet=True),
)
REFERENCE = ARMS[1]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    test_data = os.environ.get("DENSEVISION_TEST_DATA")
    parser.add_argument("--data", type=Path, default=test_data and Path(test_data) / "camvid_cityscapes")
    parser.add_argument(
        "--weights", type=Path, default=test_data and Path(test_data).parent / "weights" / "mobilenet_v2-b0353104.pth"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/accuracy_segmentation"))
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--arms", nargs="+", type=int, choices=range(len(ARMS)), default=range(len(ARMS)))
    parser.add_argument("--seeds", type=int, default=5, help="only so many seeds of every arm")
    parser.add_argument("--report", action="store_true", help="train nothing, print what there is")
    options = parser.parse_args(argv)
    if not options.report:
        if options.data is None or options.weights is None:
            parser.error("give --data and --weights, or set DENSEVISION_TEST_DATA")
        # seed by seed, so that an unfinished table compares all arms
        for split in options.splits:
            for seed in range(options.seeds):
                for index in options.arms:
                    if seed < ARMS[index].seeds:
                        _train_once(ARMS[index], split, seed, options)
    results = {split: _results(options.output, split) for split in SPLITS}
    broken = [_print_split(split, scores) for split, scores in results.items()]
    passes = max(arm.statistics for arm in ARMS)
    print(
        f"\nEvery arm learns from {STEPS * BATCH} pictures. Ours then pass up to {passes} more training pictures "
        "forward, for batch-norm statistics; nothing is learnt from them."
    )
    return 1 if any(broken) else 0


def _train_once(arm: Arm, split: str, seed: int, options: argparse.Namespace) -> None:
    def train(run: Path) -> dict[str, Any]:
        iou = arm.train(options.data, options.weights, split, seed, run)
        return {"miou": mean(iou), "iou": dict(zip(CLASSES, iou, strict=True))}

    result = run_once(run_file(options.output, split, arm.name, seed), _labels(arm, split, seed), train)
    print(f"{split}, {arm.name}, seed {seed}: {100 * result['miou']:.1f} ({result['seconds']:.0f} s)", flush=True)


def _print_split(split: str, scores: dict[str, list[float]]) -> bool:
    """Print a table; whether the baseline is broken."""
    (train, train_cities), (test, test_cities) = SPLITS[split]
    title = f"mIoU of the 11 classes, {_name(train, train_cities)} -> {_name(test, test_cities)}"
    print_comparison(title, scores, REFERENCE.name)
    reference = scores[REFERENCE.name]
    if split != "val" or not reference:
        return False
    expected, tolerance = (100 * number for number in BASELINE)
    broken = abs(mean(reference) - expected) > tolerance
    verdict = "the baseline is broken" if broken else "the baseline is as it should be"
    said = f"{verdict}: {mean(reference):.1f}, expected {expected:.0f} +- {tolerance:.0f}"
    print(said, file=sys.stderr if broken else sys.stdout)
    return broken


def _results(output: Path, split: str) -> dict[str, list[float]]:
    """The mIoU of every seed that there is, in percent, by arm; results of another recipe are left out, and told."""
    found: dict[str, list[float]] = {}
    for arm in ARMS:
        files = {seed: run_file(output, split, arm.name, seed) for seed in range(arm.seeds)}
        there = {seed: file for seed, file in files.items() if file.exists()}
        own = [file for seed, file in there.items() if is_result(file, _labels(arm, split, seed))]
        if len(own) < len(there):
            print(f"{split}, {arm.name}: {len(there) - len(own)} results of another recipe are left out")
        found[arm.name] = [100 * read_run(file)["miou"] for file in own]
    return found


def _labels(arm: Arm, split: str, seed: int) -> dict[str, Any]:
    return {"arm": arm.name, "split": split, "seed": seed, "recipe": arm.recipe}


def _cities(train: list[str] | None, test: list[str] | None) -> Any:
    return (("train", train), ("val", test))


def _name(split: str, cities: list[str] | None) -> str:
    return split if cities is None else " + ".join(cities)


def _torchvisions_weights(seed: int, run: Path) -> Path:
    """A fresh state dict of torchvision's own model with the 19 classes of Cityscapes."""
    import torch
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(seed)
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=19)
    file = run.with_suffix(".initial.pth")
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), file)
    return file


if __name__ == "__main__":
    sys.exit(main())
