"""evaluate --report: the table of the classes, the confusion matrix and the worst pictures."""

import json

import numpy as np
import pytest

from densevision.cli import main
from densevision.io import read_image, read_label, write_png
from densevision.metrics.segmentation import SegmentationScores
from densevision.tasks.segmentation import SegmentationTask
from densevision.tasks.segmentation_report import class_lines
from densevision.visualize import confusion_picture
from tests.checkpoints import write_checkpoint
from tests.trees import write_cityscapes_tree


@pytest.fixture
def street(tmp_path):
    write_cityscapes_tree(tmp_path / "cityscapes", "val", ["munster"], count=14)
    write_cityscapes_tree(tmp_path / "cityscapes", "test", ["berlin"], count=1, annotations=None)
    return tmp_path / "cityscapes"


def evaluate(tmp_path, street, *words):
    checkpoint = write_checkpoint(tmp_path / "x.ckpt", [f"data.root={street}", "data.num_workers=0"])
    return main(["evaluate", str(checkpoint), *words])


def test_a_report_has_table_confusions_and_the_worst_pictures(tmp_path, street, capsys):
    folder = tmp_path / "report"
    out = tmp_path / "out.json"
    assert evaluate(tmp_path, street, "--report", str(folder), "--json", str(out)) == 0
    assert str(folder / "report.md") in capsys.readouterr().out.replace("\n", "")
    report = json.loads((folder / "report.json").read_text())
    assert report["miou"] == json.loads(out.read_text())["miou"]
    assert [line["name"] for line in report["classes"]][:2] == ["road", "sidewalk"]
    assert np.array(report["confusion"]).shape == (19, 20)
    scores = [picture["miou"] for picture in report["worst"]]
    assert len(scores) == 12
    assert scores == sorted(scores)
    text = (folder / "report.md").read_text()
    assert "| road |" in text
    for picture in report["worst"]:
        assert picture["file"] in text
        drawn = read_image(folder / picture["file"])
        assert drawn.shape[1] > 3 * 64  # picture, truth and prediction
    assert read_image(folder / "confusion.png").shape[0] > 19 * 30


def test_pictures_without_a_labelled_pixel_are_not_among_the_worst(tmp_path, street):
    labels = sorted((street / "gtFine" / "val" / "munster").glob("*labelIds.png"))
    for file in labels[3:11]:
        write_png(file, np.zeros_like(read_label(file)))  # 0 is ignored
    assert evaluate(tmp_path, street, "--report", str(tmp_path / "report")) == 0
    worst = json.loads((tmp_path / "report" / "report.json").read_text())["worst"]
    scores = [picture["miou"] for picture in worst]
    assert len(scores) == 6
    assert scores == sorted(scores)


def test_a_folder_that_cannot_be_is_told_before_the_work(tmp_path, street, capsys, monkeypatch):
    monkeypatch.setattr(SegmentationTask, "validation_step", lambda *_: pytest.fail("it has been judged"))
    (tmp_path / "file").write_text("")
    assert evaluate(tmp_path, street, "--report", str(tmp_path / "file")) == 1
    assert "file cannot be made" in capsys.readouterr().err


def test_views_change_what_is_judged(tmp_path, street):
    figures = []
    for words in ([], ["evaluation.flip=true", "evaluation.scales=[0.5,1.5]"], ["evaluation.mode=slide",
                  "evaluation.window=[24,32]"]):  # fmt: skip
        out = tmp_path / "out.json"
        assert evaluate(tmp_path, street, "--json", str(out), *words) == 0
        figures.append(json.loads(out.read_text())["pixel_accuracy"])
    assert len(set(figures)) == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--split", "test", "--report", "x", "--save-predictions", "y"], "on a split with labels"),
        (["evaluation.scales=[0]"], "override 'evaluation.scales=[0]'"),
    ],
    ids=["no labels", "no scale"],
)
def test_what_cannot_be_is_told(tmp_path, street, capsys, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert evaluate(tmp_path, street, *words) == 1
    assert sentence in capsys.readouterr().err


def test_the_lines_of_a_small_matrix():
    scores = SegmentationScores(("a", "b", "c"), np.array([[6, 3, 1, 0], [0, 5, 0, 5], [0, 0, 0, 0]]))
    a, b, c = class_lines(scores)
    assert (a.recall, a.precision, a.share) == (0.6, 1.0, 0.5)
    assert (a.taken_for, a.taken_share) == ("b", 0.3)
    assert (b.taken_for, b.taken_share) == ("no class", 0.5)
    assert b.precision == 5 / 8
    assert c.taken_for == ""
    assert np.isnan(c.recall)


def test_the_confusion_picture_leaves_out_what_was_never_predicted():
    counts = np.array([[9, 1, 0], [2, 3, 0]])
    narrow = confusion_picture(counts, ["road", "car", "no class"])
    counts[0, 2] = 1
    wide = confusion_picture(counts, ["road", "car", "no class"])
    assert narrow.dtype == np.uint8
    assert narrow.shape[1] < wide.shape[1]
