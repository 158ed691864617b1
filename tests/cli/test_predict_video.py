"""densevision predict on videos, patterns, batches and with the evaluation's views."""

import json

import cv2
import numpy as np
import pytest

from densevision.cli import run
from densevision.inference import load
from densevision.io import read_label, write_png
from densevision.video import Video
from tests.checkpoints import write_checkpoint
from tests.exports import LABELS, picture, write_small_checkpoint


def write_frames(path, count=5, size=(48, 64)):
    codec = "mp4v" if path.suffix == ".mp4" else "MJPG"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, size[::-1])
    for seed in range(count):
        writer.write(picture(*size, seed=seed))
    writer.release()
    return path


def predict(*arguments):
    return run("predict", [*map(str, arguments), "--device", "cpu"])


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.ckpt")


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_video_becomes_a_drawn_video_and_a_line_a_frame(segmenter, tmp_path, capsys, suffix, batch):
    video = write_frames(tmp_path / f"drive{suffix}")
    assert predict(segmenter, video, "--output", tmp_path / "out", "--batch-size", batch) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["drive.jsonl", "drive.mp4"]
    drawn = list(Video(tmp_path / "out" / "drive.mp4"))
    assert [frame.shape for frame in drawn] == [(48, 64, 3)] * 5
    lines = [json.loads(line) for line in (tmp_path / "out" / "drive.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line["seconds"] for line in lines] == [0.0, 0.1, 0.2, 0.3, 0.4]
    predictor = load(segmenter)
    for line, frame in zip(lines, Video(video), strict=True):
        expected = predictor.predict(frame).to_dict()
        assert line["size"] == [48, 64]
        assert {one["name"]: one["share"] for one in line["classes"]} == pytest.approx(
            {one["name"]: one["share"] for one in expected["classes"]}, abs=1e-3
        )
    said = capsys.readouterr().out
    assert "5 frames" in said
    assert "frames/s" in said


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "not a video that can be read"), (b"<html>" * 50, "not a video that can be read")],
    ids=["empty", "no video"],
)
def test_a_bad_video_is_a_sentence_and_the_rest_goes_on(segmenter, tmp_path, capfd, content, sentence):
    (tmp_path / "bad.mp4").write_bytes(content)
    good = write_frames(tmp_path / "good.avi", count=2)
    write_png(tmp_path / "a.png", picture())
    assert predict(segmenter, tmp_path / "bad.mp4", good, tmp_path / "a.png", "--output", tmp_path / "out") == 1
    said = capfd.readouterr()
    assert sentence in said.err
    assert "Traceback" not in said.err
    assert "2 of 3 files predicted" in said.out
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a.png", "a_labelIds.png", "good.jsonl", "good.mp4"]


def test_a_video_that_breaks_off_keeps_what_it_had_and_says_so(segmenter, tmp_path, capfd):
    whole = write_frames(tmp_path / "whole.avi", count=20)
    data = whole.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    assert predict(segmenter, tmp_path / "cut.avi", "--output", tmp_path / "out") == 1
    said = capfd.readouterr().err
    assert "cut.avi" in said
    if (tmp_path / "out" / "cut.jsonl").exists():
        assert 1 <= len((tmp_path / "out" / "cut.jsonl").read_text().splitlines()) < 20


def test_patterns_are_expanded_where_no_shell_did(segmenter, tmp_path, capsys):
    for name in ("a.png", "b.png", "c.bmp"):
        write_png(tmp_path / "in" / name, picture())
    assert predict(segmenter, f"{tmp_path}/in/*.png", "--output", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*_labelIds.png")) == [
        "a_labelIds.png",
        "b_labelIds.png",
    ]
    assert predict(segmenter, f"{tmp_path}/in/*.gif", "--output", tmp_path / "out") == 1
    assert "no file fits the pattern" in capsys.readouterr().err


@pytest.mark.parametrize("head", ["lraspp", "ssdlite", "classifier"])
def test_a_batch_predicts_what_single_pictures_do(tmp_path, head):
    predictor = load(write_small_checkpoint(tmp_path / "best.ckpt", "mobilenet_v3_small", head))
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        write_png(path, picture(100, 120 if number < 3 else 90, seed=number))
    single, batched = (list(predictor.predict_many(paths, batch_size)) for batch_size in (1, 2))
    for (path, one), (other_path, other) in zip(single, batched, strict=True):
        assert path == other_path
        assert one.picture.shape == other.picture.shape
        if head == "lraspp":
            assert (one.class_map == other.class_map).mean() > 0.999
        elif head == "ssdlite":
            np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)
        else:
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_the_evaluations_views_are_options(segmenter, tmp_path, capsys):
    write_png(tmp_path / "a.png", picture(64, 96))
    words = ["--evaluation", "flip=true", "scales=[0.75,1]"]
    assert predict(segmenter, tmp_path / "a.png", "--output", tmp_path / "out", *words) == 0
    expected = load(segmenter, overrides=["evaluation.flip=true", "evaluation.scales=[0.75,1]"]).predict(
        tmp_path / "a.png"
    )
    found = read_label(tmp_path / "out" / "a_labelIds.png")
    np.testing.assert_array_equal(found, expected.label_ids)
    assert predict(segmenter, tmp_path / "a.png", "--output", tmp_path / "out", "--evaluation", "flipp=true") == 1
    assert "did you mean" in capsys.readouterr().err


def test_detections_are_written_as_cocos_results(tmp_path, capsys):
    checkpoint = write_small_checkpoint(tmp_path / "best.ckpt", "mobilenet_v1", "ssdlite")
    for name in ("000012.png", "x.png"):
        write_png(tmp_path / "in" / name, picture())
    results = tmp_path / "results.json"
    assert predict(checkpoint, tmp_path / "in", "--output", tmp_path / "out", "--coco-results", results) == 0
    rows = json.loads(results.read_text())
    expected = load(checkpoint).predict(tmp_path / "in" / "x.png")
    mine = [row for row in rows if row["image_id"] == "x.png"]
    assert {row["image_id"] for row in rows} == {12, "x.png"}
    assert [row["category_id"] for row in mine] == [LABELS.ids[label] for label in expected.labels]
    boxes = np.array([row["bbox"] for row in mine])
    np.testing.assert_allclose(boxes[:, :2] + boxes[:, 2:], expected.boxes[:, 2:], atol=1e-3)
