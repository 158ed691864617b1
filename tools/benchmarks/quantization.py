"""int8 files of the fine-tuning recipes: calibrated after training and trained for int8, beside the float network.

    python tools/benchmarks/quantization.py --camvid DIR --bccd DIR --weights FILE [--output runs/quantization]

Each recipe (configs/finetune) is trained once, then 200 steps more twice, in float and for int8 (base/int8.yaml), alike
in all else. The first is exported after calibration, the last as it was trained, and every file is judged in its
runtime on the validation set. Each part leaves a JSON file; called again, the command does what is missing. The
difference that counts is that to float: of calibrated files to the network that they are made of, of trained ones to
that with the same further steps. DIR are CamVid in the Cityscapes layout and BCCD in COCO's, FILE torchvision's
MobileNetV2 ImageNet state dict. The exit status is 1 if a goal of the table is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accuracy import read_run, run_file, run_once

# recipe -> the data that it is for, whether it begins with ImageNet weights, and its figure
RECIPES = {
    "lraspp_v3_camvid": ("camvid", False, "miou"),
    "lraspp_v2_camvid": ("camvid", True, "miou"),
    "ssdlite_v3_bccd": ("bccd", False, "map"),
    "ssdlite_v2_bccd": ("bccd", True, "map"),
}
FORMATS = {"onnx": ".onnx", "executorch": ".pte"}
GOALS = {"calibrated": 2.0, "trained": 1.0}  # points below float
SHARE, SIZE = 0.95, 0.3  # at least of the multiply-adds, at most of the float file


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found = os.environ.get("DENSEVISION_TEST_DATA")
    parser.add_argument("--camvid", type=Path, default=found and Path(found) / "camvid_cityscapes")
    parser.add_argument("--bccd", type=Path, default=found and Path(found) / "bccd" / "coco")
    parser.add_argument(
        "--weights", type=Path, default=found and Path(found).parent / "weights" / "mobilenet_v2-b0353104.pth"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/quantization"))
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", action="store_true", help="do nothing, print what there is")
    options = parser.parse_args(argv)
    if not options.report:
        if None in (options.camvid, options.bccd, options.weights):
            parser.error("give --camvid, --bccd and --weights, or set DENSEVISION_TEST_DATA")
        for recipe in options.recipes:
            make(recipe, options)
    return print_table(options)


def make(recipe: str, options: argparse.Namespace) -> None:
    """Everything of a recipe that is missing."""
    data, imagenet, _ = RECIPES[recipe]
    words = [f"data.root={getattr(options, data)}", f"seed={options.seed}", "data.num_workers=0"]
    begin = [f"model.backbone.pretrained={options.weights}"] if imagenet else []
    run = train(recipe, "float", f"finetune/{recipe}", [*words, *begin], options)
    on = [*words, f"model.pretrained={run / 'checkpoints' / 'last.ckpt'}"]
    bare = ["quantize.mode=null", f"trainer.bn_recalibration={20 if data == 'bccd' else 40}"]
    train(recipe, "more", f"finetune/{recipe}_int8", [*on, *bare], options)
    trained = train(recipe, "int8", f"finetune/{recipe}_int8", on, options)
    for format_name in options.formats:
        export(recipe, "calibrated", format_name, run, options)
        export(recipe, "trained", format_name, trained, options)


def train(recipe: str, part: str, config: str, words: list[str], options: argparse.Namespace) -> Path:
    """A training, its last evaluation in the JSON file; the run directory."""
    from rich.console import Console

    from densevision import experiment
    from densevision.config import load_config

    def work(run: Path) -> dict[str, Any]:
        loaded = load_config(config, [*words, f"output_dir={run}", "wandb.mode=disabled"])
        return {"evaluation": experiment.train(loaded, Console(quiet=True))["evaluation"]}

    file = run_file(options.output, recipe, part, options.seed)
    result = run_once(file, {"recipe": recipe, "part": part, "seed": options.seed}, work)
    print(f"{recipe}, {part}: {100 * result['evaluation'][RECIPES[recipe][2]]:.2f}", flush=True)
    return file.with_suffix("")


def export(recipe: str, made: str, format_name: str, run: Path, options: argparse.Namespace) -> None:
    """An int8 file of a run's last checkpoint and what it is worth."""
    from densevision.cli import run as command

    def work(folder: Path) -> dict[str, Any]:
        folder.mkdir(parents=True)
        output, figures = folder / f"model{FORMATS[format_name]}", folder / "figures.json"
        words = [str(run / "checkpoints" / "last.ckpt"), "--format", format_name, "--output", str(output)]
        if command("export", [*words, "--quantize", "int8", "--json", str(figures)]):
            raise SystemExit(1)  # it has said why
        held: dict[str, Any] = json.loads(figures.read_text())
        return held

    labels = {"recipe": recipe, "made": made, "format": format_name, "seed": options.seed}
    run_once(run_file(options.output, recipe, made, format_name, options.seed), labels, work)


def print_table(options: argparse.Namespace) -> int:
    """Print what there is; 1 if a goal is missed."""
    missed = 0
    print(f"\n{'recipe':18} {'int8':10} {'runtime':10} {'float':>6} {'file':>6} {'change':>6} {'MAdds':>6} {'size':>6}")
    for recipe in RECIPES:
        for made, goal in GOALS.items():
            reference = run_file(options.output, recipe, {"calibrated": "float", "trained": "more"}[made], options.seed)
            for format_name in FORMATS:
                file = run_file(options.output, recipe, made, format_name, options.seed)
                if not (file.exists() and reference.exists()):
                    continue
                plain = 100 * read_run(reference)["evaluation"][RECIPES[recipe][2]]
                found = read_run(file)["precision"]
                after, share, size = 100 * found["after"], found["int8_share"], found["size_ratio"]
                bad = plain - after > goal or share < SHARE or size > SIZE
                missed |= bad
                line = f"{recipe:18} {made:10} {format_name:10} {plain:6.2f} {after:6.2f} {after - plain:+6.2f}"
                print(f"{line} {share:6.1%} {size:6.3f}{'   MISSED' if bad else ''}")
    goals = ", ".join(f"{made} files at most {goal:g} points below float" for made, goal in GOALS.items())
    print(f"Goals: {goals}; {SHARE:.0%} of the multiply-adds in int8; size at most {SIZE} of the float file's.")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
