"""The templates for users' own data: checked, trained for a step and predicted with, in every format."""

import json

import numpy as np
import pytest

from datamodules.voc import VOC
from densevision.cli import main
from tests.trees import write_coco_tree, write_png, write_voc_tree

SMALL = ["model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35", "data.num_workers=0"]
SMALL += ["data.batch_size=2", "trainer.max_steps=1", "trainer.bn_recalibration=0", "wandb.mode=disabled"]


def write_folders(root):
    for split in ("train", "val"):
        for k in range(3):
            values = np.random.default_rng(k).integers(0, 2, (40, 60)).astype(np.uint8)
            write_png(root / f"images/{split}/{split}{k}.png", np.dstack([values * 200] * 3) + np.uint8(k))
            write_png(root / f"masks/{split}/{split}{k}.png", values)
    (root / "classes.txt").write_text("soil\nplant\n")
    return ["data.crop_size=32"]


def write_coco(root):
    for split in ("train2017", "val2017"):
        write_coco_tree(root, split)
    return ["data.image_size=64", "data.eval_batch_size=1"]


def write_yolo(root):
    for split in ("train", "val"):
        content = write_coco_tree(root, f"images/{split}")
        (root / f"labels/{split}").mkdir(parents=True)
        for image in content["images"]:
            boxes = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            lines = [_line(a["category_id"] == 3, *a["bbox"]) for a in boxes]
            (root / f"labels/{split}/{image['file_name'][:-4]}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [bar, square]\n")
    return ["data.name=yolo", "data.image_size=64", "data.eval_batch_size=1"]


def write_voc(root):
    write_voc_tree(root)
    return ["data.name=voc"]


def write_voc_boxes(root):
    return [*write_voc(root), "data.image_size=64", "data.eval_batch_size=1"]


def write_voc_masks(root):
    return [*write_voc(root), "data.crop_size=32"]


def _line(label, x, y, width, height):
    return f"{int(label)} {(x + width / 2) / 60} {(y + height / 2) / 40} {width / 60} {height / 40}"


@pytest.mark.parametrize(
    ("config", "write", "names"),
    [
        ("custom_segmentation", write_folders, ["soil", "plant"]),
        ("custom_detection", write_coco, ["square", "bar"]),
        ("custom_detection", write_yolo, ["bar", "square"]),
        ("custom_detection", write_voc_boxes, list(VOC.names)),
        ("custom_segmentation", write_voc_masks, ["background", *VOC.names]),
    ],
    ids=["folders", "coco", "yolo", "voc boxes", "voc masks"],
)
def test_a_template_works_on_a_data_set_as_it_comes(tmp_path, capsys, config, write, names):
    words = [config, f"data.root={tmp_path / 'data'}", *SMALL, *write(tmp_path / "data")]
    report = tmp_path / "report.json"
    assert main(["check_data", *words, "--json", str(report)]) == 0
    assert list(json.loads(report.read_text())["splits"]["train"]["classes"]) == names
    assert main(["train", *words, f"output_dir={tmp_path / 'run'}", "data.cache=raw"]) == 0
    pictures = sorted((tmp_path / "data").rglob("*.png"))[:2]
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert main(["predict", str(checkpoint), *map(str, pictures), "--output", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(checkpoint), "--json", str(report)]) == 0
    is_voc = "data.name=voc" in words and config == "custom_detection"
    assert ("map_voc07" in capsys.readouterr().out) == ("map_voc12" in json.loads(report.read_text())) == is_voc
    assert main(["show_batch", *words, "--output", str(tmp_path / "batch.png")]) == 0


def test_a_template_without_data_says_what_to_set(capsys):
    for config in ("custom_segmentation", "custom_detection"):
        assert main(["check_data", config]) == 1
        assert "data.root" in capsys.readouterr().err
