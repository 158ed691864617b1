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

CONFIG = "configs/lraspp_v3_cityscapes.yaml"
DATA = Path("data/demo")
RUN = Path("runs/demo_segmentation")
DRAW = ["--output", str(DATA), "--train", "400", "--val", "60", "--size", "256", "512", "--seed", "0"]

# The published recipe is for 90 000 steps of whole streets; a few minutes need small pictures, a faster optimiser
# and batch-norm statistics that follow it (the published momentum averages over hundreds of steps).
OVERRIDES = [
    f"data.root={DATA}",
    f"output_dir={RUN}",
    "data.image_size=[128,256]",
    "data.crop_size=[128,256]",
    "data.scale_range=[0.75,1.5]",
    "data.scale_step=0",
    "data.batch_size=8",
    "data.eval_batch_size=4",
    "data.num_workers=1",
    "model.backbone.norm.momentum=0.1",
    "model.head.norm.momentum=0.1",
    "optim.name=adamw",
    "optim.lr=3e-3",
    "optim.weight_decay=1e-4",
    "optim.schedule=one_cycle",
    "loss.class_weights=sqrt",
    "trainer.max_steps=300",
    "trainer.val_every=100",
    "wandb.mode=offline",
]


def segmentation(console: Console) -> int:
    """The command of the README on demo data; the mIoU beside that of a map which never looks at the picture."""
    scores = RUN / "scores.json"
    for tool, words in (
        ("make_demo_data.py", DRAW),
        ("train.py", [CONFIG, *OVERRIDES, "trainer.resume=never"]),
        ("evaluate.py", [str(RUN / "checkpoints/best.ckpt"), "--json", str(scores)]),
    ):
        console.rule(tool)
        console.print(f"python tools/{tool} {shlex.join(words)}", highlight=False, soft_wrap=True)
        if status := subprocess.run([sys.executable, Path(__file__).with_name(tool), *words]).returncode:
            return status
    miou = json.loads(scores.read_text())["miou"]
    picture = max((RUN / "pictures").glob("*.png"))
    console.rule("demo")
    console.print(
        f"mIoU {100 * miou:.1f} on scenes from other seeds; the most frequent class at each position would get "
        f"{100 * position_prior_miou():.1f}\n"
        f"run directory  {RUN}\n"
        f"picture        {picture}  (scene, truth, prediction)",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def position_prior_miou() -> float:
    """mIoU of the map that names, at each position, the class most frequent there in training; 0..1."""
    import numpy as np
    import torch

    from densevision.config import load_config
    from densevision.experiment import build_datamodule
    from densevision.metrics.segmentation import ConfusionMatrix

    datamodule = build_datamodule(load_config(CONFIG, OVERRIDES).config)
    datamodule.setup("fit")
    train, val = datamodule.train_dataset, datamodule.val_dataset
    classes = np.arange(datamodule.label_map.num_classes)[:, None, None]
    frequency = sum((train.read_indices(pair.label) == classes).astype(np.int32) for pair in train.pairs)
    prior = torch.from_numpy(frequency.argmax(0).astype(np.uint8))
    confusion = ConfusionMatrix(datamodule.label_map.names)
    for pair in val.pairs:
        confusion.update(prior[None], torch.from_numpy(val.read_indices(pair.label))[None])
    return confusion.compute().miou


TASKS = {"segmentation": segmentation}


def main(argv: list[str]) -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("task", choices=sorted(TASKS))
    return TASKS[arguments.parse_args(argv).task](Console())


if __name__ == "__main__":
    forget_tools_folder()
    sys.exit(main(sys.argv[1:]))
