"""YOLO's files: boxes as shares, whatever way the pictures are named."""

import os

import numpy as np
import pytest
import torch

from datamodules import CocoDataModule, YoloDataModule
from datamodules.yolo import find_pictures
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.structures import SampleKey
from tests.trees import write_png

YAML = "path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"


def write_yolo(root, text=YAML, lines="0 0.5 0.5 0.5 0.5\n"):
    """Two pictures of 40x60 a split; the first has ``lines``, the second no text file."""
    for split in ("train", "val"):
        for k in range(2):
            write_png(root / f"images/{split}/{k}.png", np.full((40, 60, 3), 90, np.uint8))
        (root / f"labels/{split}").mkdir(parents=True)
        (root / f"labels/{split}/0.txt").write_text(lines)
    (root / "data.yaml").write_text(text)
    return root


def datamodule(root, **keys):
    keys = {"num_workers": 0, "batch_size": 1, "flip": 0.0, "image_size": [40, 60], **keys}
    return YoloDataModule(DataConfig(name="yolo", root=None if root is None else str(root), **keys))


def ready(root, **keys):
    module = datamodule(root, **keys)
    module.setup()
    return module


def message(action):
    with pytest.raises(UserError) as error:
        action()
    return str(error.value)


@pytest.mark.parametrize("name", ["", "data.yaml"])
def test_boxes_are_shares_of_the_picture(tmp_path, name):
    module = ready(write_yolo(tmp_path, lines="1 0.5 0.25 0.5 0.5\n\n0 0.5 0.5 1 1\n") / name)
    sample = module.train_dataset[SampleKey(0, 0)]
    assert sample["boxes"].tolist() == [[0, 0, 60, 40], [15, 0, 45, 20]]
    assert sample["labels"].tolist() == [0, 1]
    assert module.label_map.names == ("cat", "dog")
    assert sample["name"] == "images/train/0.png"


def test_a_picture_without_a_text_file_is_background(tmp_path):
    assert ready(write_yolo(tmp_path)).train_dataset[SampleKey(0, 1)]["boxes"].shape == (0, 4)


def test_outlines_give_their_bounding_boxes(tmp_path):
    module = ready(write_yolo(tmp_path, lines="0 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75\n"))
    assert module.train_dataset[SampleKey(0, 0)]["boxes"].tolist() == [[15, 10, 45, 30]]


def test_what_is_left_out_is_counted_and_said(tmp_path, caplog):
    ready(write_yolo(tmp_path, lines="0 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5\n1 0.9 0.5 0.5 0.5\n1 0.5 0.5 0 0.5\n"))
    for said in ("1 of 4 boxes: written twice", "reaching beyond their pictures", "less than a pixel wide"):
        assert said in caplog.text


def test_pictures_may_be_listed_in_text_files(tmp_path):
    write_yolo(tmp_path, YAML.replace("images/train", "train.txt").replace("[cat, dog]", "{3: cat, 7: dog}"))
    (tmp_path / "train.txt").write_text("./images/train/1.png\nimages/train/0.png\n")
    (tmp_path / "labels/train/0.txt").write_text("7 0.5 0.5 0.5 0.5")
    (tmp_path / "labels/val/0.txt").write_text("")
    module = ready(tmp_path)
    assert module.label_map.ids == (3, 7)
    assert list(module.train_dataset.names) == ["images/train/0.png", "images/train/1.png"]
    assert module.train_dataset[SampleKey(0, 0)]["labels"].tolist() == [1]
    assert message(lambda: find_pictures(tmp_path, tmp_path / "data.yaml", ["images/train", "none"])).endswith(
        "neither a folder nor a list of pictures"
    )


def test_a_split_may_be_held_out(tmp_path):
    write_yolo(tmp_path, "train: images\nnames: [cat, dog]\n")
    module = ready(tmp_path, val_fraction=0.25)
    assert (len(module.train_dataset), len(module.val_dataset)) == (3, 1)


@pytest.mark.parametrize("cache", ["raw", "compressed"])
def test_the_cache_changes_nothing(tmp_path, cache):
    write_yolo(tmp_path / "data")
    for module in (ready(tmp_path / "data"), ready(tmp_path / "data", cache=cache)):
        sample = module.val_dataset[SampleKey(0, 0)]
        assert (sample["image"] == 90).all()
        assert sample["boxes"].tolist() == [[15, 10, 45, 30]]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("0 0.5 0.5 0.5\n", "0.txt, line 1: expected 'class x y width height'"),
        ("0 0.5 0.5 0.5 0.5\n0 a b c d\n", "0.txt, line 2: expected"),
        ("0 nan 0.5 0.5 0.5\n", "expected shares of the picture's sides"),
        ("0 320 240 50 50\n", "expected shares of the picture's sides, 0 to 1, got '0 320 240 50 50'"),
        ("2 0.5 0.5 0.5 0.5\n", "class 2 is none of those that the data set names (0 to 1)"),
        ("0.5 0.5 0.5 0.5 0.5\n", "class 0.5 is none"),
        ("inf 0.5 0.5 0.5 0.5\n", "class inf is none"),
        ("0 0.5 0.5 0.5 0.5 0.5 0.5 0.5\n", "expected 'class x y width height'"),
    ],
)
def test_a_line_that_cannot_be_meant_is_an_error(tmp_path, lines, says):
    assert says in message(datamodule(write_yolo(tmp_path, lines=lines)).setup)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "cannot be read as yaml"),
        ("- a\n", "is not YOLO's format"),
        ("train: images/train\nval: images/val\n", "has no 'names'"),
        (YAML.replace("[cat, dog]", "[cat, cat]"), "names the class 'cat' twice"),
        (YAML.replace("[cat, dog]", "{a: cat}"), "has no 'names'"),
        (YAML.replace("val: images/val\n", ""), "unknown split 'val'"),
        (YAML.replace("images/val", "images/none"), "which is neither a folder nor a list"),
        (YAML.replace("images/val", "labels"), "no pictures in 'labels'"),
        (YAML.replace("path: .", "path: /nowhere/at/all"), None),
        (YAML.replace("images/val", ".."), "leads out of the folder"),
        (YAML.replace("[cat, dog]", "[cat, null]"), "the name of class 1 is None"),
        (YAML.replace("[cat, dog]", "[cat, no]"), "the name of class 1 is False; a text is expected, in quotes if"),
        (YAML.replace("[cat, dog]", str([["cat"] * 40] * 40)), "the name of class 0 is ['cat', 'cat', 'cat', 'cat',"),
        (YAML.replace("[cat, dog]", '["\\ud800", dog]'), "the class name '\\ud800' holds half a character"),
        (YAML + "made: 2024-02-30\n", "cannot be read as yaml"),
        (YAML + "deep: " + "[" * 3000, "cannot be read as yaml"),
        (YAML.replace("images/val", "x" * 5000), "which is neither a folder nor a list"),
        (YAML.replace("images/val", "{a: b}"), "is neither a folder nor a list of pictures"),
    ],
)
def test_what_is_wrong_with_the_yaml_is_a_sentence(tmp_path, text, says):
    module = datamodule(write_yolo(tmp_path / "data", text))
    write_png(tmp_path / "beside.png", np.zeros((4, 4, 3), np.uint8))
    if says is None:
        module.setup()
    else:
        assert says in message(module.setup)


@pytest.mark.parametrize("entry", ["images/val/0\0.png", "../beside.png", "/beside.png"])
def test_a_listed_name_that_cannot_be_is_a_sentence(tmp_path, entry):
    write_yolo(tmp_path, YAML.replace("images/val", "val.txt"))
    (tmp_path / "val.txt").write_text(f"images/val/1.png\n{entry}\n")
    said = message(datamodule(tmp_path).setup)
    assert f"lists {os.path.normpath(entry)!a}" in said


def test_where_the_data_set_is_has_to_be_said(tmp_path):
    assert "data.root=FILE" in message(datamodule(None).setup)
    assert "holds 0 yaml files" in message(datamodule(tmp_path).setup)
    assert "does not exist" in message(datamodule(tmp_path / "none").setup)


def test_coco128_is_the_same_as_its_coco_json(test_data):
    root = test_data / "coco128_yolo"
    yolo = ready(root, val_split="train", image_size=[320, 320])
    names = {"train_images": "images/train2017", "val_images": "images/train2017"}
    names |= {f"{use}_annotations": "annotations/instances_train2017.json" for use in ("train", "val")}
    keys = {"num_workers": 0, "batch_size": 1, "image_size": [320, 320]}
    coco = CocoDataModule(DataConfig(name="coco", root=str(root), **keys, **names))
    coco.setup()
    theirs = {name.split("/")[-1]: k for k, name in enumerate(coco.val_dataset.names)}
    assert len(yolo.val_dataset) == len(theirs) == 32
    boxes = 0
    for index, name in enumerate(yolo.val_dataset.names):
        ours, other = yolo.val_dataset[SampleKey(0, index)], coco.val_dataset[SampleKey(0, theirs[name.split("/")[-1]])]
        order, other_order = (np.lexsort(np.round(s["boxes"].numpy()).T) for s in (ours, other))
        assert torch.allclose(ours["boxes"][order], other["boxes"][other_order], atol=0.02)
        assert torch.equal(ours["labels"][order], other["labels"][other_order])
        boxes += len(ours["boxes"])
    assert boxes == 184
    assert yolo.label_map.names == coco.label_map.names


def test_a_yaml_beside_its_folders_that_says_they_are_above_is_read(tmp_path):
    """As Roboflow exports: ``../train/images`` is ``train/images`` beside the yaml, whatever lies above."""
    text = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cat, dog]\n"
    write_yolo(tmp_path / "data", text)
    for split, new in (("train", "train"), ("val", "valid")):
        (tmp_path / "data" / new).mkdir()
        for kind in ("images", "labels"):
            (tmp_path / "data" / kind / split).rename(tmp_path / "data" / new / kind)
    write_png(tmp_path / "train/images/other.png", np.zeros((4, 4, 3), np.uint8))
    module = ready(tmp_path / "data")
    assert list(module.train_dataset.names) == ["train/images/0.png", "train/images/1.png"]
    assert len(module.train_dataset[SampleKey(0, 0)]["boxes"]) == 1


@pytest.mark.parametrize("linked", [False, True])
def test_a_list_may_hold_absolute_paths_below_the_data_set(tmp_path, linked):
    root = write_yolo(tmp_path / "data", YAML.replace("images/train", "train.txt"))
    (root / "train.txt").write_text("".join(f"{root}/images/train/{k}.png\n" for k in range(2)))
    if linked:
        (tmp_path / "link").symlink_to(root)
    module = ready(tmp_path / "link" if linked else root)
    assert list(module.train_dataset.names) == ["images/train/0.png", "images/train/1.png"]
    assert len(module.train_dataset[SampleKey(0, 0)]["boxes"]) == 1


def test_texts_without_a_picture_and_pictures_of_one_text_are_said(tmp_path, caplog):
    write_yolo(tmp_path)
    (tmp_path / "labels/train/7.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "labels/train/classes.txt").write_text("cat\ndog\n")
    (tmp_path / "images/train/7.heic").write_bytes(b"x")
    write_png(tmp_path / "images/train/0.bmp", np.zeros((40, 60, 3), np.uint8))
    ready(tmp_path)
    assert "1 of 3 text files in labels/train: without a picture, left out ('7.txt')" in caplog.text
    assert "1 of 3 pictures: with the text file of another of the same name" in caplog.text


def test_a_number_of_classes_that_the_names_are_not_is_an_error(tmp_path):
    module = datamodule(write_yolo(tmp_path, YAML + "nc: 3\n"))
    assert "data.yaml says nc: 3 and gives 2 names" in message(module.setup)
