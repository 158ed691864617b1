"""check_data and show_batch on data with boxes, as a user calls them."""

import json

import pytest
import yaml

from densevision.cli import main
from densevision.io import read_image
from tests.trees import write_coco_tree, write_voc_tree


@pytest.fixture
def tree(tmp_path):
    for split in ("train2017", "val2017"):
        write_coco_tree(tmp_path, split)
    return tmp_path


def command(verb, root, *words):
    return main([verb, "ssdlite_v3_coco", f"data.root={root}", "data.batch_size=2", *map(str, words)])


def test_boxes_classes_and_anchors_are_described(tree, tmp_path, capsys):
    assert command("check_data", tree, "--json", tmp_path / "report.json") == 0
    out, err = capsys.readouterr()
    assert "train: 4 pictures in split 'train' (height x width: 4 of 40x60)" in out
    assert "5 boxes (1.2 a picture, at most 3) and 1 crowds; stored areas: 100 % small" in out
    assert "train: note: 1 pictures without a box, which teach what is background" in out
    assert "nothing is wrong" in out
    assert err == ""
    report = json.loads((tmp_path / "report.json").read_text())
    train = report["splits"]["train"]
    assert train["boxes"]["boxes"] == 5 == sum(kind["count"] for kind in train["classes"].values())
    assert report["anchors"]["fitted"]["any"] >= report["anchors"]["configured"]["any"]
    # what is proposed can be pasted into a configuration
    proposed = yaml.safe_load(out[out.index("model:\n") : out.index("\n\nnothing is wrong")])
    assert proposed["model"]["head"]["anchors"] == report["anchors"]["fitted"]["anchors"]


def test_the_proposed_anchors_are_taken_and_match_as_said(tree, tmp_path, capsys):
    command("check_data", tree, "--json", tmp_path / "first.json")
    fitted = json.loads((tmp_path / "first.json").read_text())["anchors"]["fitted"]
    keys = f"model.head.anchors={json.dumps(fitted['anchors'])}"
    assert command("check_data", tree, keys, "--json", tmp_path / "second.json") == 0
    configured = json.loads((tmp_path / "second.json").read_text())["anchors"]["configured"]
    assert configured["by_map"] == pytest.approx(fitted["by_map"])


def test_many_small_boxes_are_told_of_the_finer_map(tree, tmp_path, capsys):
    """A box of 40x60 pixels that is 6x8 of the network's 320 falls between the cells of 16."""
    box = {"image_id": 10, "category_id": 3, "area": 1.0, "iscrowd": 0}
    write_coco_tree(tree, annotations=[{**box, "id": n + 1, "bbox": [5.0 * n, 3.0 * n, 1.1, 1.0]} for n in range(9)])
    command("check_data", tree, "--json", tmp_path / "report.json")
    anchors = json.loads((tmp_path / "report.json").read_text())["anchors"]
    assert anchors["finer"] > anchors["fitted"]["any"] + 0.1
    said = f"with model.head.first_map=c3_expansion fitted anchors reach {100 * anchors['finer']:.1f}"
    assert said in capsys.readouterr().out
    command("check_data", tree, "model.head.first_map=c3_expansion", "--json", tmp_path / "finer.json")
    finer = json.loads((tmp_path / "finer.json").read_text())["anchors"]
    assert finer["fitted"]["any"] == pytest.approx(anchors["finer"], abs=0.01)
    assert finer["strides"][0] == 8
    assert finer["finer"] is None
    assert "first_map" not in capsys.readouterr().out


def test_what_is_wrong_with_boxes_and_pictures_is_told_at_once(tree, tmp_path, capsys):
    content = write_coco_tree(tree)
    content["annotations"][0]["bbox"][2] = 0
    (tree / "annotations/instances_train2017.json").write_text(json.dumps(content))
    (tree / "train2017/001.png").unlink()
    (tree / "train2017/003.png").write_bytes(b"<html>")
    (tree / "annotations/instances_val2017.json").write_text("{")
    assert command("check_data", tree) == 1
    out = capsys.readouterr().out
    for said in (
        f"train: error: {tree}/train2017/001.png does not exist",
        f"train: error: {tree}/train2017/003.png is not an image",
        "train: note: 1 of 6 boxes: less than a pixel wide or high, left out of training (annotation ids 1)",
        f"val: error: {tree}/annotations/instances_val2017.json is not whole json",
        "errors: 3; training cannot start",
    ):
        assert said in out


def test_what_training_would_stop_at_is_told(tree, capsys):
    content = write_coco_tree(tree, "val2017")
    del content["annotations"]
    (tree / "annotations/instances_val2017.json").write_text(json.dumps(content))
    for key in ([], ["data.val_annotations=null"]):
        assert command("check_data", tree, *key) == 1
        out = capsys.readouterr().out
        assert "val: error: " in out
        assert "has pictures without annotations: nothing can be learnt or judged by it" in out
        assert "errors: 1; training cannot start" in out


def test_boxes_that_are_nowhere_are_told(tmp_path, capsys):
    for file in write_voc_tree(tmp_path).glob("Annotations/*.xml"):
        file.unlink()
    words = [f"data.root={tmp_path}", "data.batch_size=2"]
    assert main(["check_data", "custom_detection", "data.name=voc", *words]) == 1
    assert capsys.readouterr().out.count("has pictures without annotations") == 2


def test_no_boxes_are_no_reason_to_fail(tree, capsys):
    write_coco_tree(tree, annotations=[])
    assert command("check_data", tree) == 0
    assert "train: note: 0 boxes to learn from" in capsys.readouterr().out


@pytest.mark.parametrize(("word", "panels"), [([], 2), (["--anchors"], 3)])
def test_a_batch_is_drawn_with_its_boxes_and_their_anchors(tree, tmp_path, capsys, word, panels):
    sizes = ["data.image_size=[64,80]", "data.augment=none", "--count", 1]
    assert command("show_batch", tree, *sizes, *word, "--output", tmp_path / "grid.png") == 0
    drawn = read_image(tmp_path / "grid.png")
    assert panels * 80 <= drawn.shape[1] < (panels + 1) * 80
    assert "1 training pictures" in capsys.readouterr().out


def test_anchors_are_a_detectors(tmp_path, capsys):
    words = ["show_batch", "lraspp_v3_cityscapes", "--anchors", "--output", str(tmp_path / "grid.png")]
    assert main(words) == 1
    assert "the task is segmentation" in capsys.readouterr().err


def test_the_recipe_for_few_pictures_has_the_anchors_that_are_proposed(test_data, tmp_path):
    words = [f"data.root={test_data / 'bccd/coco'}", "--json", str(tmp_path / "report.json")]
    assert main(["check_data", "finetune/ssdlite_v2_bccd", *words]) == 0
    anchors = json.loads((tmp_path / "report.json").read_text())["anchors"]
    assert anchors["configured"]["by_map"] == pytest.approx(anchors["fitted"]["by_map"])
    assert anchors["configured"]["any"] > 0.98
