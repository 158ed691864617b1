"""Every spoilt input of the test data through check_data, train and predict, as a user would call them."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest

from densevision.cli import main
from densevision.io import list_images
from tests.checkpoints import write_checkpoint
from tests.trees import voc_xml, write_text

SMALL = ["model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35", "wandb.mode=disabled"]
SMALL += ["data.num_workers=0", "data.batch_size=2", "trainer.max_steps=1"]
DATA = os.environ.get("DENSEVISION_TEST_DATA")
LISTED = json.loads((Path(DATA) / "nasty/cases.json").read_text(encoding="utf-8")) if DATA else []
CASES = {case["path"]: case["expect"] for case in LISTED}


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory):
    """Of another data set, for pictures of which nothing could be learnt."""
    return write_checkpoint(tmp_path_factory.mktemp("other") / "best.ckpt")


def command(nasty, case, folder):
    """What check_data and train are called with, and what is predicted."""
    kind, _, name = case.partition("/")
    if kind == "cityscapes":
        tree = ["lraspp_v3_cityscapes", f"data.root={nasty / case}", "data.val_split=train", "data.crop_size=64"]
        return [*tree, *SMALL], sorted((nasty / case).rglob("*leftImg8bit.png"))
    if kind == "coco":
        keys = [f"data.{use}_images=images" for use in ("train", "val")]
        keys += [f"data.{use}_annotations={name}" for use in ("train", "val")]
        words = ["ssdlite_v3_coco", f"data.root={nasty / kind}", "data.image_size=64", *keys]
        return [*words, *SMALL], list_images([nasty / "coco/images"])
    words = ["ssdlite_v3_voc", "data.image_size=64", "data.val_split=train", *SMALL, "trainer.max_epochs=null"]
    if kind == "voc":
        alone = ["data.batch_size=1", "model.head.extras=[]"]  # a batch of one picture
        return [*words, f"data.root={nasty / case}", *alone], [nasty / case / "VOC2007/JPEGImages"]
    pictures = folder / "JPEGImages"  # a data set of the picture and of a good one
    pictures.mkdir(parents=True)
    good = "rgba.png" if name == "gray.jpg" else "gray.jpg"
    for file in (nasty / case, nasty / "images" / good):
        shutil.copy(file, pictures)
        write_text(folder / f"Annotations/{file.stem}.xml", voc_xml([("cat", 1, 1, 30, 30)], "", None))
    write_text(folder / "ImageSets/Main/train.txt", f"{Path(name).stem}\n{Path(good).stem}\n")
    return [*words, f"data.root={folder}"], [pictures]


@pytest.mark.parametrize("case", CASES)
def test_a_spoilt_input_ends_as_it_should(test_data, tmp_path, capsys, other_checkpoint, case):
    kind, run = case.split("/")[0], tmp_path / "run"
    words, pictures = command(test_data / "nasty", case, tmp_path / "data")

    def outcome(*arguments):
        status = main(list(map(str, arguments)))
        said = "".join(capsys.readouterr())
        assert "Traceback" not in said
        return status, said

    failed = int(CASES[case] == "error")
    status, said = outcome("check_data", *words)
    assert status == failed, said
    assert ("error: " if failed else "training can start") in said
    assert "note: " in said or CASES[case] != "warn"
    if kind == "images" and failed:
        assert Path(case).name in said

    status, said = outcome("train", *words, f"output_dir={run}")
    assert status == failed, said
    checkpoint = run / "checkpoints/best.ckpt"
    assert checkpoint.exists() != bool(failed)
    if failed:
        assert "\nerror: " in f"\n{said}"
        checkpoint = other_checkpoint
    else:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses = [line["train/loss"] for line in lines if "train/loss" in line]
        assert losses
        assert all(map(math.isfinite, losses))

    status, said = outcome("predict", checkpoint, *pictures, "--output", tmp_path / "out", "--device", "cpu")
    assert status == (failed if kind == "images" else 0), said
    assert (Path(case).name in said) >= bool(status)


@pytest.mark.data
def test_every_case_is_run(test_data):
    assert len(CASES) == 28
