"""Training and evaluation as a user calls them, on drawn data."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from densevision.cli import main
from tests.trees import label_path, write_cityscapes_tree

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


@pytest.fixture
def street(tmp_path):
    """A tree with a training, a validation and an unlabelled test split."""
    return draw_street(tmp_path / "cityscapes")


@pytest.fixture(scope="module")
def plainly_trained(tmp_path_factory):
    """The weights after two steps with all defaults."""
    folder = tmp_path_factory.mktemp("plain")
    assert train(draw_street(folder / "cityscapes"), folder / "run", "trainer.max_steps=2") == 0
    return weights(folder / "run" / "checkpoints" / "last.ckpt")


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


def test_the_same_command_goes_on_and_then_says_it_is_done(street, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=2", "optim.schedule=constant") == 0
    assert train(street, run, "trainer.max_steps=5", "optim.schedule=constant") == 0
    assert "going on from" in capsys.readouterr().out
    assert [entry["step"] for entry in lines(run)] == [1, 2, 3, 4, 5]
    assert train(street, run, "trainer.max_steps=5", "optim.schedule=constant") == 1
    assert "finished run of 5 steps" in capsys.readouterr().err


def test_a_run_is_repeated_by_its_seed(street, tmp_path):
    for name in ("a", "b"):
        assert train(street, tmp_path / name, "trainer.max_steps=3", "data.photometric=0.5") == 0
    assert train(street, tmp_path / "c", "trainer.max_steps=3", "data.photometric=0.5", "seed=1") == 0
    a, b, c = (weights(tmp_path / name / "checkpoints" / "last.ckpt") for name in "abc")
    assert_equal_weights(a, b)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_another_experiment_in_the_same_place_is_refused(street, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=1") == 0
    assert train(street, run, "trainer.max_steps=2", "optim.lr=0.5") == 1
    said = capsys.readouterr().err
    assert "optim.lr was 0.01, now 0.5" in said
    assert "trainer.resume=never" in said


def test_never_begins_anew_and_keeps_the_earlier_run(street, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=2") == 0
    assert train(street, run, "trainer.max_steps=1", "trainer.resume=never") == 0
    assert [entry["step"] for entry in lines(run)] == [1]
    assert [entry["step"] for entry in lines(tmp_path / "run.1")] == [1, 2]
    assert "run.1" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(street, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["trainer.val_every=1", "optim.schedule=constant"]
    assert train(street, run, "trainer.max_steps=2", *words) == 0
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    assert train(street, run, "trainer.max_steps=3", *words) == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert "last.ckpt is not a whole checkpoint" in said
    assert "previous.ckpt, step 1" in said
    assert [entry["step"] for entry in lines(run)] == [1, 2, 3]


def test_resume_from_a_path(street, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    constant = "optim.schedule=constant"
    assert train(street, first, "trainer.max_steps=2", constant) == 0
    checkpoint = first / "checkpoints" / "last.ckpt"
    assert train(street, second, "trainer.max_steps=3", constant, f"trainer.resume={checkpoint}") == 0
    assert [entry["step"] for entry in lines(second)] == [3]


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


def test_raspp_on_single_pictures_says_why_not(street, tmp_path, capsys):
    assert train(street, tmp_path / "run", "model.head.name=raspp", "data.batch_size=1", "trainer.max_steps=1") == 1
    assert "at least 2 pictures" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.batch_size=7"], ["6 pictures", "data.batch_size"]),
        (["model.backbone.name=mobilenet_v3_larg"], ["did you mean 'mobilenet_v3_large'", "override"]),
        (["model.head.name=lrasp"], ["did you mean 'lraspp'"]),
        (["data.name=cityscape"], ["did you mean 'cityscapes'"]),
        (["trainer.max_steps=null"], ["trainer.max_steps"]),
        (["loss.class_weights=[1,2]"], ["loss.class_weights", "19 numbers"]),
        (["loss.class_weights=squrt"], ["loss.class_weights", "squrt"]),
        (["data.root=/nowhere"], ["/nowhere"]),
        (["trainer.resume=nowhere.ckpt"], ["nowhere.ckpt"]),
        (["model.backbone.pretrained=nowhere.pth"], ["nowhere.pth"]),
        (["task=detection"], ["detection"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_mistakes_are_told_in_a_sentence_before_anything_is_written(street, tmp_path, capsys, words, expected):
    assert train(street, tmp_path / "run", "trainer.max_steps=1", *words) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    for word in expected:
        assert word in said
    assert not (tmp_path / "run").exists()


def test_a_damaged_picture_stops_with_its_name_from_any_worker(street, tmp_path, capsys):
    for picture in (street / "leftImg8bit" / "train").rglob("*.png"):
        picture.write_bytes(picture.read_bytes()[:200])
    assert train(street, tmp_path / "run", "trainer.max_steps=1", "data.num_workers=1") == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "_leftImg8bit.png" in said
    assert "Traceback" not in said


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


def test_another_set_of_classes_is_refused(street, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=1") == 0
    file = run / "checkpoints" / "best.ckpt"
    stored = torch.load(file, weights_only=True)
    stored["densevision"]["label_map"]["names"][0] = "river"
    torch.save(stored, file)
    assert main(["evaluate", str(file)]) == 1
    assert "river" in capsys.readouterr().err


def test_a_label_that_cannot_be_is_named_in_training(street, tmp_path, capsys):
    for picture in (street / "leftImg8bit" / "train").rglob("*.png"):
        Image.fromarray(np.full((32, 64), 77, np.uint8)).save(label_path(picture))
    assert train(street, tmp_path / "run", "trainer.max_steps=1") == 1
    said = capsys.readouterr().err
    assert "77" in said
    assert "_gtFine_labelIds.png" in said


def test_as_a_real_process_from_any_folder(street, tmp_path):
    tool = Path(__file__).parents[2] / "tools" / "train.py"
    words = [sys.executable, str(tool), CONFIG, f"data.root={street}", *SMALL, "trainer.max_steps=1"]
    environment = {key: value for key, value in os.environ.items() if key != "CITYSCAPES_DATASET"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / CONFIG / "checkpoints" / "best.ckpt").is_file()
    assert "Traceback" not in done.stderr
    assert "warning" not in done.stderr.lower()


@pytest.mark.parametrize("override", ["model.backbone.width_mult=0.5", "model.head.channels=64", "task=detection"])
def test_evaluation_refuses_what_only_training_changes(street, tmp_path, capsys, override):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=1") == 0
    assert main(["evaluate", str(run / "checkpoints/best.ckpt"), override]) == 1
    said = capsys.readouterr().err
    assert override.split("=")[0] in said
    assert said.startswith("error: ")


def test_evaluation_of_the_training_split_keeps_its_cities(street, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out.json"
    assert train(street, run, "trainer.max_steps=1") == 0
    words = ["--split", "train", "data.train_cities=[ulm]", "--json", str(out)]
    assert main(["evaluate", str(run / "checkpoints/best.ckpt"), *words]) == 0
    assert json.loads(out.read_text())["pictures"] == 3


def test_a_spoilt_checkpoint_is_an_error_whatever_is_wrong_with_it(street, tmp_path, capsys):
    """Seeded fuzz: bytes flipped anywhere, the file cut anywhere; torch alone takes flipped weights for good ones."""
    run, spoilt = tmp_path / "run", tmp_path / "spoilt.ckpt"
    assert train(street, run, "trainer.max_steps=1") == 0
    good = (run / "checkpoints" / "best.ckpt").read_bytes()
    rng = np.random.default_rng(0)
    for case in range(50):
        content = bytearray(good)
        place = int(rng.integers(len(content)))
        if case % 2:
            content[place] ^= 1 << int(rng.integers(8))
        else:
            del content[place:]
        spoilt.write_bytes(content)
        status = main(
            ["predict", str(spoilt), str(street / "leftImg8bit/test/berlin"), "--output", str(tmp_path / "out")]
        )
        said = capsys.readouterr().err
        if status == 0:  # a flip in what the archive says about itself, such as a date
            left, right = weights(spoilt), weights(run / "checkpoints" / "best.ckpt")
            assert_equal_weights(left, right)
        else:
            assert said.startswith("error: ")
            assert "spoilt.ckpt" in said


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored["densevision"].pop("config"),
        lambda stored: stored["densevision"].update(label_map=3),
        lambda stored: stored.update(state_dict=None),
        lambda stored: stored["state_dict"].update({"model.stem": "no tensor"}),
        lambda stored: stored.pop("densevision"),
    ],
    ids=["no config", "no classes", "no weights", "no tensor", "another project's"],
)
def test_a_checkpoint_of_other_content_is_an_error(street, tmp_path, capsys, change):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=1") == 0
    file = run / "checkpoints" / "best.ckpt"
    stored = torch.load(file, weights_only=True)
    change(stored)
    torch.save(stored, file)
    for verb in (
        ["evaluate", str(file)],
        ["predict", str(file), str(street / "leftImg8bit/test/berlin"), "--output", str(tmp_path / "x")],
    ):
        assert main(verb) == 1
        assert capsys.readouterr().err.startswith(f"error: {file}")


def test_what_cannot_be_written_is_an_error(street, tmp_path, capsys):
    run, file = tmp_path / "run", tmp_path / "file"
    file.write_text("in the way")
    assert train(street, file / "run", "trainer.max_steps=1") == 1
    assert train(street, run, "trainer.max_steps=1") == 0
    best = str(run / "checkpoints" / "best.ckpt")
    assert main(["evaluate", best, "--json", str(file / "out.json")]) == 1
    assert main(["evaluate", best, "--save-predictions", str(file)]) == 1
    assert main(["show_batch", CONFIG, f"data.root={street}", *SMALL, "--output", str(run)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if line.startswith("error: ")]) == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trainer.devices=abc"], "devices"),
        (["trainer.devices=0"], "devices"),
        (["trainer.accelerator=tpuu"], "tpuu"),
        (["trainer.num_nodes=2"], "torchrun"),
        (["seed=4294967296"], "between 0 and 4294967295"),
        (["trainer.resume=atuo"], "did you mean 'auto'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_wrong_ways_to_start_are_told_before_anything_is_written(street, tmp_path, capsys, words, expected):
    assert train(street, tmp_path / "run", "trainer.max_steps=1", *words) == 1
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_the_run(street, tmp_path, capsys):
    assert train(street, tmp_path / "run", "trainer.max_steps=4", "optim.lr=1e30") == 1
    said = capsys.readouterr().err
    assert "the loss is nan" in said or "the loss is inf" in said
    assert "optim.lr" in said


def test_a_new_start_clears_what_a_killed_writer_left(street, tmp_path):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=1", "optim.schedule=constant") == 0
    left = run / "checkpoints" / ".last.1a2b3c4d.partial.ckpt"
    left.write_bytes(b"half")
    assert train(street, run, "trainer.max_steps=2", "optim.schedule=constant") == 0
    assert not left.exists()


@pytest.mark.parametrize("place", ["step", "evaluation"])
def test_an_interrupt_saves_the_step_and_the_same_command_goes_on(street, tmp_path, capsys, monkeypatch, place):
    """Ctrl-C in a step, and in the evaluation that follows one: the run ends as the uninterrupted one."""
    from densevision.tasks.segmentation import SegmentationTask

    words = ["trainer.max_steps=4", "trainer.val_every=3"]
    assert train(street, tmp_path / "whole", *words) == 0
    name = "on_before_optimizer_step" if place == "step" else "validation_step"
    original = getattr(SegmentationTask, name)
    calls = iter(range(100))

    def interrupting(self, *arguments):
        if next(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)

    run = tmp_path / "run"
    # a shell that runs the tests in its background has them ignore interrupts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, name, interrupting)
        assert train(street, run, *words) == 130
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert "goes on from the last checkpoint" in capsys.readouterr().out
    assert lines(run)[-1]["step"] == (2 if place == "step" else 3)
    assert train(street, run, *words) == 0
    assert_equal_weights(weights(run / "checkpoints/last.ckpt"), weights(tmp_path / "whole/checkpoints/last.ckpt"))


def test_an_interrupt_in_the_last_evaluation_lets_the_run_end(street, tmp_path, monkeypatch):
    from densevision.tasks.segmentation import SegmentationTask

    original = SegmentationTask.validation_step

    def interrupting(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(SegmentationTask, "validation_step", interrupting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    write_cityscapes_tree(street, "one", ["munster"], count=1)
    assert train(street, tmp_path / "run", "trainer.max_steps=1", "data.val_split=one") == 0
    signal.signal(signal.SIGINT, before)
    assert (tmp_path / "run" / "summary.json").is_file()


@pytest.mark.slow
def test_the_published_recipe_runs_unchanged_on_full_size_scenes(tmp_path, capsys):
    root = tmp_path / "cityscapes"
    write_cityscapes_tree(root, "train", ["aachen"], count=6, size=(1024, 2048))
    write_cityscapes_tree(root, "val", ["munster"], count=1, size=(1024, 2048))
    words = ["data.batch_size=2", "trainer.max_steps=3", "wandb.mode=disabled"]
    assert main(["train", CONFIG, f"data.root={root}", f"output_dir={tmp_path / 'run'}", *words]) == 0
    assert "peak memory" in capsys.readouterr().out
