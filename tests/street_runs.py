"""Trainings on drawn street scenes, as a user starts them."""

import json

import torch

from densevision.cli import main
from tests.trees import write_cityscapes_tree

CONFIG = "lraspp_v3_cityscapes"
SMALL = [
    "model.backbone.name=mobilenet_v3_small",
    "model.backbone.width_mult=0.35",
    "data.crop_size=[32,64]",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer.log_every=1",
    "wandb.mode=disabled",
]


def draw_street(root):
    write_cityscapes_tree(root, "train", ["aachen", "ulm"], count=3)
    write_cityscapes_tree(root, "val", ["munster"], count=3)
    write_cityscapes_tree(root, "test", ["berlin"], count=2, annotations=None)
    return root


def train(root, run, *words):
    return main(["train", CONFIG, f"data.root={root}", f"output_dir={run}", *SMALL, *words])


def lines(run, kind="train/loss"):
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in entries if kind in entry]


def weights(file):
    stored = torch.load(file, weights_only=True)
    return {key: value for key, value in stored["state_dict"].items() if key.startswith("model.")}


def assert_equal_weights(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)
