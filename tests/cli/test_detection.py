"""Detection by the commands that a user calls, on drawn data in COCO's layout."""

import json

import pytest
import torch
from PIL import Image

import densevision
from densevision.cli import main
from tests.trees import write_coco_tree

SMALL = [
    "model.backbone.name=mobilenet_v3_small",
    "model.backbone.width_mult=0.35",
    "data.image_size=64",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer.log_every=1",
    "wandb.mode=disabled",
]


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """A training and a validation split, and pictures without annotations."""
    root = tmp_path_factory.mktemp("coco")
    for split in ("train2017", "val2017", "test2017"):
        write_coco_tree(root, split)
    (root / "annotations" / "instances_test2017.json").unlink()
    info = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    del info["annotations"]
    (root / "annotations" / "image_info_test2017.json").write_text(json.dumps(info))
    return root


def train(root, run, *words, config="ssdlite_v3_coco"):
    return main(["train", config, f"data.root={root}", f"output_dir={run}", *SMALL, *words])


@pytest.fixture(scope="module")
def trained(coco, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    assert train(coco, run, "trainer.max_steps=3", "trainer.val_every=2") == 0
    return run


def weights(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_run_leaves_the_files_that_segmentation_leaves(trained):
    for name in ("config.yaml", "metrics.jsonl", "summary.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (trained / name).is_file(), name
    assert list((trained / "pictures").glob("*.png"))
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3]
    assert [line["step"] for line in lines if "val/map" in line] == [2, 3]
    assert {"val/map_50", "val/mar_100", "val/map/square"} <= set(lines[-1])
    summary = json.loads((trained / "summary.json").read_text())
    assert 0 <= summary["best"]["map"] <= 1


def test_evaluation_repeats_the_score_of_training_and_writes_cocos_file(trained, coco, tmp_path, capsys):
    out, results = tmp_path / "out.json", tmp_path / "results.json"
    last = str(trained / "checkpoints" / "last.ckpt")
    assert main(["evaluate", last, "--json", str(out), "--save-predictions", str(results)]) == 0
    figures = json.loads(out.read_text())
    evaluation = json.loads((trained / "summary.json").read_text())["evaluation"]
    assert figures["map"] == evaluation["map"]
    assert set(figures["map_per_class"]) == {"square", "bar"}
    assert figures["pictures"] == 4
    assert "mar_100" in capsys.readouterr().out
    entries = json.loads(results.read_text())
    assert {entry["category_id"] for entry in entries} == {3, 7}
    assert all(e["bbox"][0] >= 0 and e["bbox"][0] + e["bbox"][2] <= 60.001 for e in entries)
    assert max(e["bbox"][1] + e["bbox"][3] for e in entries) <= 40.001


def test_a_split_without_annotations_gives_a_results_file(trained, tmp_path, capsys):
    best = str(trained / "checkpoints" / "best.ckpt")
    assert main(["evaluate", best, "--split", "test2017"]) == 1
    assert "no labels" in capsys.readouterr().err
    results = tmp_path / "results.json"
    assert main(["evaluate", best, "--split", "test2017", "--save-predictions", str(results)]) == 0
    assert {entry["image_id"] for entry in json.loads(results.read_text())} <= {10, 20, 30, 40}


def test_prediction_draws_boxes_and_writes_them(trained, coco, tmp_path):
    best = str(trained / "checkpoints" / "best.ckpt")
    assert main(["predict", best, str(coco / "val2017"), "--output", str(tmp_path / "out")]) == 0
    assert Image.open(tmp_path / "out" / "003.png").size == (60, 40)
    written = json.loads((tmp_path / "out" / "003.json").read_text())
    assert written["size"] == [40, 60]
    first = written["detections"][0]
    assert (first["category_id"], first["name"]) in ((3, "square"), (7, "bar"))
    result = densevision.load(best).predict(coco / "val2017" / "003.png")
    assert result.boxes[0].tolist() == first["box"]
    assert result.scores[0] == result.scores.max() == pytest.approx(first["score"])
    assert (result.boxes.min() >= 0) & (result.boxes[:, 2].max() <= 60) & (result.boxes[:, 3].max() <= 40)


@pytest.mark.parametrize(
    "words",
    [
        ["loss.match_iou=0.3"],
        ["loss.focal_alpha=0.25"],
        ["loss.focal_gamma=1"],
        ["model.head.score=softmax"],
        ["optim.warmup_start=0.9"],
        ["model.head.norm.momentum=0.5"],
    ],
    ids=" ".join,
)
def test_each_option_changes_what_is_learnt(coco, trained, tmp_path, words):
    assert train(coco, tmp_path / "run", "trainer.max_steps=3", "trainer.val_every=2", *words) == 0
    plain, changed = weights(trained), weights(tmp_path / "run")
    assert any(not torch.equal(plain[key], changed[key]) for key in changed if key.startswith("model."))
    assert all(value.isfinite().all() for value in changed.values())


def test_torchvisions_variant_trains(coco, tmp_path):
    config = "ssdlite_v3_coco_torchvision"
    assert train(coco, tmp_path / "run", "trainer.max_steps=1", config=config) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.batch_size=1"], ["last map is a single cell", "data.batch_size"]),
        (["model.head.name=lraspp"], ["lraspp is no head for detection", "ssdlite"]),
        (["model.head.anchors=[[[0.1,0.1]]]"], ["6 lists"]),
        (["loss.class_weights=sqrt"], ["only segmentation"]),
        (["data.image_size=null"], ["data.image_size"]),
        (["task=segmentation"], ["coco has no labels for segmentation"]),
    ],
    ids=lambda value: value[0],
)
def test_mistakes_are_told_in_a_sentence_before_anything_is_written(coco, tmp_path, capsys, words, expected):
    assert train(coco, tmp_path / "run", "trainer.max_steps=1", *words) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    for word in expected:
        assert word in said
    assert not (tmp_path / "run").exists()
