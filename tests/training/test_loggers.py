"""W&B: one offline run, readable by W&B's own reader, and where it goes by default."""

import json
import os
import subprocess
import sys

import pytest

from densevision.cli import main
from densevision.training.loggers import wandb_mode
from tests.trees import write_cityscapes_tree


def test_an_offline_run_holds_losses_scores_and_pictures(tmp_path):
    root, run = tmp_path / "cityscapes", tmp_path / "run"
    write_cityscapes_tree(root, "train", count=4)
    write_cityscapes_tree(root, "val", count=2)
    words = ["data.crop_size=[32,64]", "data.batch_size=2", "data.num_workers=0", "trainer.log_every=1"]
    words += ["trainer.max_steps=2", "trainer.val_every=1", "trainer.pictures_every=1", "wandb.mode=offline"]
    words += ["model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35", "wandb.group=trees"]
    assert main(["train", "lraspp_v3_cityscapes", f"data.root={root}", f"output_dir={run}", *words]) == 0

    (folder,) = (run / "wandb").glob("offline-run-*")
    reader = [sys.executable, "-m", "wandb", "leet", "inspect", "--json"]
    lines = subprocess.run([*reader, folder], capture_output=True, text=True, check=True, timeout=60).stdout
    history = [line for line in map(json.loads, lines.splitlines()) if line["type"] == "history"]
    values = {key for line in history for key in json.dumps(line).split('"')}
    assert {"train/loss", "train/lr", "train/images_per_second", "val/miou", "val/iou/road"} <= values
    assert len(list((folder / "files" / "media" / "images").rglob("*.png"))) == 2 * 2
    summary = subprocess.run([*reader, "--summary", folder], capture_output=True, text=True, check=True, timeout=60)
    assert "mobilenet_v3_small" in summary.stdout


@pytest.mark.parametrize(
    ("asked", "environment", "expected"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_MODE": "disabled"}, "disabled"),
        ("offline", {"WANDB_MODE": "online"}, "offline"),
        ("disabled", {}, "disabled"),
    ],
)
def test_without_a_login_nothing_goes_online(monkeypatch, tmp_path, asked, environment, expected):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode(asked) == expected
