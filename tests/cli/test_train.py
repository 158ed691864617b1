"""Training and evaluation as a user calls them, on drawn data."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from densevision.cli import main
from tests.street_runs import CONFIG, SMALL, assert_equal_weights, draw_street, lines, train, weights
from tests.trees import write_cityscapes_tree


@pytest.fixture(scope="module")
def plainly_trained(tmp_path_factory):
    """The weights after two steps with all defaults."""
    folder = tmp_path_factory.mktemp("plain")
    assert train(draw_street(folder / "cityscapes"), folder / "run", "trainer.max_steps=2") == 0
    return weights(folder / "run" / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("steps", [1, 4])
def test_a_run_leaves_all_its_files(street, tmp_path, capsys, steps):
    run = tmp_path / "run"
    assert train(street, run, f"trainer.max_steps={steps}", "trainer.val_every=2") == 0
    said = capsys.readouterr().out
    for name in ("config.yaml", "metrics.jsonl", "summary.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (run / name).is_file(), name
    assert (run / "pictures" / f"step_{steps:08d}.png").is_file()
    assert str(run) in said
    assert "peak memory" in said
    assert [entry["step"] for entry in lines(run)] == list(range(1, steps + 1))
    assert all(math.isfinite(entry["train/loss"]) and entry["train/images_per_second"] > 0 for entry in lines(run))
    assert all(0 < entry["train/data_wait"] < 1 for entry in lines(run))
    assert [entry["step"] for entry in lines(run, "val/miou")] == ([1] if steps == 1 else [2, 4])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == steps
    assert 0 <= summary["best"]["miou"] <= 1
    resolved = yaml.safe_load((run / "config.yaml").read_text())
    assert resolved["model"]["preprocess"] == "half"
    assert resolved["model"]["backbone"]["norm"]["eps"] == 1e-3


def test_checkpoints_load_without_running_code_and_say_what_they_are(street, tmp_path):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=1") == 0
    stored = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["densevision"]
    assert stored["label_map"]["names"][0] == "road"
    assert stored["config"]["model"]["backbone"]["width_mult"] == 0.35


def test_a_run_is_repeated_by_its_seed(street, tmp_path):
    for name in ("a", "b"):
        assert train(street, tmp_path / name, "trainer.max_steps=3", "data.photometric=0.5") == 0
    assert train(street, tmp_path / "c", "trainer.max_steps=3", "data.photometric=0.5", "seed=1") == 0
    a, b, c = (weights(tmp_path / name / "checkpoints" / "last.ckpt") for name in "abc")
    assert_equal_weights(a, b)
    assert any(not torch.equal(a[key], c[key]) for key in a)


@pytest.mark.parametrize(
    "words",
    [
        ["loss.class_weights=sqrt"],
        ["loss.ohem=0.05", "loss.ohem_min_kept=0.1"],
        ["optim.clip_norm=0.01"],
        ["optim.ema_decay=0.9"],
        ["trainer.bn_recalibration=2"],
        ["optim.backbone_lr_mult=0.1"],
        ["optim.name=adamw"],
        ["optim.name=muon"],
        ["optim.name=rmsprop", "optim.lr=1e-4"],
        ["optim.warmup_steps=2"],
        ["trainer.precision=bf16-mixed"],
        ["trainer.accumulate=2"],
        ["data.flip=0"],
        ["data.scale_range=[1,1]"],
        ["model.backbone.norm.momentum=0.5"],
    ],
    ids=" ".join,
)
def test_each_option_changes_what_is_learnt(plainly_trained, street, tmp_path, words):
    assert train(street, tmp_path / "run", "trainer.max_steps=2", *words) == 0
    changed = weights(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert any(not torch.equal(plainly_trained[key], changed[key]) for key in changed)
    assert all(value.isfinite().all() for value in changed.values())


def test_channels_last_differs_by_rounding_alone_and_is_judged_as_in_training(plainly_trained, street, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out.json"
    assert train(street, run, "trainer.max_steps=2", "trainer.channels_last=true") == 0
    trained = weights(run / "checkpoints" / "last.ckpt")
    assert trained["model.backbone.stem.conv.weight"].is_contiguous(memory_format=torch.channels_last)
    for name, value in plainly_trained.items():
        torch.testing.assert_close(trained[name], value, rtol=1e-3, atol=1e-3, msg=name)
    assert main(["evaluate", str(run / "checkpoints" / "last.ckpt"), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["miou"] == lines(run, "val/miou")[-1]["val/miou"]


@pytest.mark.parametrize(
    "words",
    [
        ["data.batch_size=1"],
        ["data.crop_size=[37,53]", "data.batch_size=3"],
        ["data.crop_size=[100,200]"],
        ["data.batch_size=4"],
        ["data.crop_size=null"],
        ["data.image_size=[20,30]", "data.crop_size=null"],
    ],
    ids=["one picture", "odd crop", "crop beyond picture", "rest left out", "whole pictures", "small pictures"],
)
def test_unusual_sizes_train(street, tmp_path, words):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=2", "data.scale_range=[1,1]", *words) == 0
    assert all(math.isfinite(entry["train/loss"]) for entry in lines(run))


def test_evaluation_repeats_the_score_of_training(street, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out.json"
    assert train(street, run, "trainer.max_steps=3", "trainer.val_every=1") == 0
    summary = json.loads((run / "summary.json").read_text())
    assert main(["evaluate", str(run / "checkpoints/last.ckpt"), "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["miou"] == summary["evaluation"]["miou"]
    assert set(result["iou"]) >= {"road", "car"}
    assert result["pictures"] == 3
    assert f"{100 * result['miou']:.2f}" in capsys.readouterr().out


def test_predictions_of_an_unlabelled_split_are_label_ids_of_the_pictures_size(street, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "submission"
    assert train(street, run, "trainer.max_steps=1") == 0
    best = str(run / "checkpoints" / "best.ckpt")
    assert main(["evaluate", best, "--split", "test", "data.image_size=[24,40]"]) == 1
    assert "no labels" in capsys.readouterr().err
    words = ["--split", "test", "--save-predictions", str(out), "data.image_size=[24,40]"]
    assert main(["evaluate", best, *words]) == 0
    files = sorted(out.glob("*.png"))
    assert [file.name[:20] for file in files] == ["berlin_000000_000019", "berlin_000001_000019"]
    for file in files:
        ids = np.array(Image.open(file))
        assert ids.shape == (32, 64)
        assert set(np.unique(ids)) <= {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33}


def test_as_a_real_process_from_any_folder(street, tmp_path):
    tool = Path(__file__).parents[2] / "tools" / "train.py"
    words = [sys.executable, str(tool), CONFIG, f"data.root={street}", *SMALL, "trainer.max_steps=1"]
    environment = {key: value for key, value in os.environ.items() if key != "CITYSCAPES_DATASET"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / CONFIG / "checkpoints" / "best.ckpt").is_file()
    assert "Traceback" not in done.stderr
    assert "warning" not in done.stderr.lower()


def test_evaluation_of_the_training_split_keeps_its_cities(street, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out.json"
    assert train(street, run, "trainer.max_steps=1") == 0
    words = ["--split", "train", "data.train_cities=[ulm]", "--json", str(out)]
    assert main(["evaluate", str(run / "checkpoints/best.ckpt"), *words]) == 0
    assert json.loads(out.read_text())["pictures"] == 3


@pytest.mark.slow
def test_the_published_recipe_runs_unchanged_on_full_size_scenes(tmp_path, capsys):
    root = tmp_path / "cityscapes"
    write_cityscapes_tree(root, "train", ["aachen"], count=6, size=(1024, 2048))
    write_cityscapes_tree(root, "val", ["munster"], count=1, size=(1024, 2048))
    words = ["data.batch_size=2", "trainer.max_steps=3", "wandb.mode=disabled"]
    assert main(["train", CONFIG, f"data.root={root}", f"output_dir={tmp_path / 'run'}", *words]) == 0
    assert "peak memory" in capsys.readouterr().out
