"""``make demo``: draw street scenes, train on them as the README says, judge, and show pictures."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from densevision.cli import forget_tools_folder

DATA = Path("data/demo")
DRAW = ["--output", str(DATA), "--train", "400", "--val", "60", "--size", "256", "512", "--seed", "0"]

# The published recipes are for tens of thousands of steps of whole streets; a few minutes need small pictures, a faster
# optimiser, and batch-norm statistics that follow it (the published momentum averages over hundreds of steps).
SHORT = [
    f"data.root={DATA}",
    "data.batch_size=8",
    "data.num_workers=1",
    "model.backbone.norm.momentum=0.1",
    "model.head.norm.momentum=0.1",
    "optim.name=adamw",
    "optim.weight_decay=1e-4",
    "optim.schedule=one_cycle",
    "trainer.max_steps=300",
    "trainer.val_every=100",
    "wandb.mode=offline",
]
SEGMENTATION = [
    *SHORT,
    "output_dir=runs/demo_segmentation",
    "data.image_size=[128,256]",
    "data.crop_size=[128,256]",
    "data.scale_range=[0.75,1.5]",
    "data.scale_step=0",
    "data.eval_batch_size=4",
    "optim.lr=3e-3",
    "loss.class_weights=sqrt",
]
DETECTION = [
    *SHORT,
    "output_dir=runs/demo_detection",
    "data.train_images=leftImg8bit/train",
    "data.train_annotations=annotations/instances_train.json",
    "data.val_images=leftImg8bit/val",
    "data.val_annotations=annotations/instances_val.json",
    "data.image_size=[160,320]",
    "data.augment=none",
    "optim.lr=2e-3",
    "optim.clip_norm=10",
]
CONFIGS = {"segmentation": "configs/lraspp_v3_cityscapes.yaml", "detection": "configs/ssdlite_v3_coco.yaml"}


def demo(task: str, console: Console) -> int:
    """The commands of the README on demo data, each shown before it runs; then what came out."""
    run = Path(f"runs/demo_{task}")
    scores = run / "scores.json"
    overrides = SEGMENTATION if task == "segmentation" else DETECTION
    commands = [
        ("make_demo_data.py", DRAW),
        *([("make_demo_coco.py", [str(DATA)])] if task == "detection" else []),
        ("train.py", [CONFIGS[task], *overrides, "trainer.resume=never"]),
        ("evaluate.py", [str(run / "checkpoints/best.ckpt"), "--json", str(scores)]),
    ]
    for tool, words in commands:
        console.rule(tool)
        console.print(f"python tools/{tool} {shlex.join(words)}", highlight=False, soft_wrap=True)
        if status := subprocess.run([sys.executable, Path(__file__).with_name(tool), *words]).returncode:
            return status
    result = json.loads(scores.read_text())
    if task == "segmentation":
        said = (
            f"mIoU {100 * result['miou']:.1f} on scenes from other seeds; the most frequent class at each position "
            f"would get {100 * position_prior_miou():.1f}"
        )
    else:
        said = f"AP {100 * result['map']:.1f}, AP50 {100 * result['map_50']:.1f} on scenes from other seeds"
    console.rule("demo")
    for line in (
        said,
        f"run directory  {run}",
        f"picture        {max((run / 'pictures').glob('*.png'))}  (truth beside prediction)",
    ):
        console.print(line, highlight=False, soft_wrap=True)
    return 0


def position_prior_miou() -> float:
    """mIoU of the map that names, at each position, the class most frequent there in training; 0..1."""
    import numpy as np
    import torch

    from densevision.config import load_config
    from densevision.experiment import build_datamodule
    from densevision.metrics.segmentation import ConfusionMatrix

    datamodule = build_datamodule(load_config(CONFIGS["segmentation"], SEGMENTATION).config)
    datamodule.setup("fit")
    train, val = datamodule.train_dataset, datamodule.val_dataset
    classes = np.arange(datamodule.label_map.num_classes)[:, None, None]
    frequency = sum((train.read_indices(pair.label) == classes).astype(np.int32) for pair in train.pairs)
    prior = torch.from_numpy(frequency.argmax(0).astype(np.uint8))
    confusion = ConfusionMatrix(datamodule.label_map.names)
    for pair in val.pairs:
        confusion.update(prior[None], torch.from_numpy(val.read_indices(pair.label))[None])
    return confusion.compute().miou


def main(argv: list[str]) -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("task", choices=sorted(CONFIGS))
    return demo(arguments.parse_args(argv).task, Console())


if __name__ == "__main__":
    forget_tools_folder()
    sys.exit(main(sys.argv[1:]))
