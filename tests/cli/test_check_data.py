"""check_data as a user calls it: everything that is wrong at once, and the exit status."""

import json

import numpy as np
import pytest

from densevision.cli import main
from densevision.io import read_image, read_label
from tests.trees import label_path, write_cityscapes_tree, write_coco_tree, write_png


@pytest.fixture
def tree(tmp_path):
    for split in ("train", "val"):
        write_cityscapes_tree(tmp_path, split, ("aachen",), count=3)
    return tmp_path


def check(root, *words):
    return main(["check_data", "lraspp_v3_cityscapes", f"data.root={root}", "data.batch_size=2", *map(str, words)])


def test_good_data_may_train(tree, tmp_path, capsys):
    assert check(tree, "--json", tmp_path / "report.json") == 0
    out, err = capsys.readouterr()
    assert "train: 3 pictures in split 'train' (height x width: 3 of 32x64)" in out
    assert "nothing is wrong" in out
    assert err == ""
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["can_train"] is True
    train = report["splits"]["train"]
    assert sum(c["count"] for c in train["classes"].values()) == 3 * 32 * 64
    assert train["classes"]["train"] == {"count": 0, "items": 0}
    assert train["sizes"] == {"32x64": 3}


def test_all_that_is_wrong_is_told_at_once(tree, tmp_path, capsys):
    train = sorted(tree.glob("leftImg8bit/train/*/*.png"))
    val = sorted(tree.glob("leftImg8bit/val/*/*.png"))
    train[0].write_bytes(train[0].read_bytes()[:-20])
    label_path(train[0]).write_bytes(b"")
    label_path(train[1]).unlink()
    write_png(label_path(val[0]), np.full((32, 64), 77, np.uint8))
    write_png(label_path(val[1]), np.full((32, 63), 7, np.uint8))
    write_png(label_path(val[2]), np.zeros((32, 64), np.uint8))
    assert check(tree, "data.batch_size=4", "--json", tmp_path / "report.json") == 1
    out = capsys.readouterr().out
    for said in (
        f"train: error: {train[0]} is cut short",
        f"train: error: {label_path(train[0])} is empty",
        f"train: error: {train[1]} has no label: looked for {label_path(train[1])}",
        f"val: error: {label_path(val[0])} holds the label id 77",
        f"its label {label_path(val[1])} is 32x63",
        "val: note: 1 label maps without a single labelled pixel",
        "fewer than one batch of 4",
        "errors: 6; training cannot start",
    ):
        assert said in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["can_train"], len(report["splits"]["train"]["errors"]), len(report["errors"])) == (False, 3, 1)


def test_what_is_wrong_is_drawn(tree, tmp_path, capsys):
    train = sorted(tree.glob("leftImg8bit/train/*/*.png"))
    label = read_label(label_path(train[0]))
    label[4:9, 10:30] = 77
    write_png(label_path(train[0]), label)
    train[1].write_bytes(b"<html>")
    assert check(tree, "--pictures", tmp_path / "wrong") == 1
    drawn = {file.name: read_image(file) for file in (tmp_path / "wrong").iterdir()}
    assert set(drawn) == {"train_000000.png", "train_000001.png"}
    magenta = (drawn["train_000000.png"] == (255, 0, 255)).all(axis=-1)
    assert magenta.sum() == 5 * 20
    assert f"2 pictures in {tmp_path / 'wrong'}" in capsys.readouterr().out


def test_boxes_that_are_clipped_or_left_out_are_drawn(tmp_path):
    boxes = [[5, 5, 20, 20], [-10, 5, 30, 10], [50, 30, 0, 0]]
    annotations = [{"id": k, "image_id": 10, "category_id": 3, "bbox": box} for k, box in enumerate(boxes)]
    for split in ("train2017", "val2017"):
        write_coco_tree(tmp_path / "coco", split, annotations=annotations)
    words = ["check_data", "ssdlite_v3_coco", f"data.root={tmp_path / 'coco'}", "data.batch_size=2"]
    assert main([*words, "--pictures", str(tmp_path / "wrong")]) == 0
    drawn = read_image(tmp_path / "wrong" / "train_000000.png")
    assert (drawn == (255, 0, 255)).all(axis=-1).sum() > 40
    assert drawn.shape[1] == 60


def test_pictures_that_both_splits_have_are_told(tree, tmp_path, capsys):
    train, val = (sorted(tree.glob(f"leftImg8bit/{split}/*/*.png")) for split in ("train", "val"))
    write_png(val[1], read_image(train[2]))
    write_png(train[1], read_image(train[0]))
    assert check(tree, "--json", tmp_path / "report.json") == 0
    out = capsys.readouterr().out
    assert (
        f"val: note: 1 pictures are in the training split too, pixel for pixel ({val[1].stem} = {train[2].stem})" in out
    )
    assert "train: note: 1 pictures occur a second time" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["leaks"] == [[val[1].stem, train[2].stem]]
    assert report["splits"]["train"]["repeated"] == [[train[1].stem, train[0].stem]]


def test_a_split_that_judges_itself_is_said(tree, capsys):
    assert check(tree, "data.val_split=train") == 0
    assert "split that is trained on, too" in capsys.readouterr().out


def test_pictures_of_several_sizes_need_a_crop(tree, capsys):
    write_cityscapes_tree(tree, "train", ("bochum",), count=1, size=(40, 64))
    assert check(tree) == 0
    assert check(tree, "data.crop_size=null") == 1
    assert "pictures of 2 sizes, which cannot share a batch; set data.crop_size" in capsys.readouterr().out


def test_an_unknown_split_does_not_hide_what_is_wrong_with_the_other(tree, capsys):
    (tree / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png").unlink()
    assert check(tree, "data.val_split=vall") == 1
    out = capsys.readouterr().out
    assert "unknown split 'vall'; did you mean 'val'?" in out
    assert "has no label" in out


def test_no_data_is_one_sentence_and_no_traceback(tmp_path, capsys):
    assert check(tmp_path / "none") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: override 'data.root=")
    assert "make demo" in err


@pytest.mark.parametrize(
    ("case", "status", "says"),
    [
        ("size_mismatch", 1, "they must be equal"),
        ("ids_above_33", 1, "holds the label ids 40, 77"),
        ("missing_label", 1, "has no label: looked for"),
        ("palette_label", 0, "nothing is wrong"),
        ("all_ignored", 0, "without a single labelled pixel"),
    ],
)
def test_nasty_trees(test_data, capsys, case, status, says):
    assert check(test_data / "nasty/cityscapes" / case, "data.val_split=train") == status
    assert says in capsys.readouterr().out
