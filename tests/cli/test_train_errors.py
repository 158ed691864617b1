"""What is wrong with a training, an evaluation or a checkpoint is told in a sentence."""

import numpy as np
import pytest
import torch
from PIL import Image

from densevision.cli import main
from tests.street_runs import CONFIG, SMALL, assert_equal_weights, train, weights
from tests.trees import label_path


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


def test_a_label_that_cannot_be_is_named_in_training(street, tmp_path, capsys):
    for picture in (street / "leftImg8bit" / "train").rglob("*.png"):
        Image.fromarray(np.full((32, 64), 77, np.uint8)).save(label_path(picture))
    assert train(street, tmp_path / "run", "trainer.max_steps=1") == 1
    said = capsys.readouterr().err
    assert "77" in said
    assert "_gtFine_labelIds.png" in said


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


def test_another_set_of_classes_is_refused(street, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=1") == 0
    file = run / "checkpoints" / "best.ckpt"
    stored = torch.load(file, weights_only=True)
    stored["densevision"]["label_map"]["names"][0] = "river"
    torch.save(stored, file)
    assert main(["evaluate", str(file)]) == 1
    assert "river" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["model.backbone.width_mult=0.5", "model.head.channels=64", "task=detection"])
def test_evaluation_refuses_what_only_training_changes(street, tmp_path, capsys, override):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=1") == 0
    assert main(["evaluate", str(run / "checkpoints/best.ckpt"), override]) == 1
    said = capsys.readouterr().err
    assert override.split("=")[0] in said
    assert said.startswith("error: ")


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
