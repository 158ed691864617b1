"""Every spoilt data set of the test data through check_data and train, as a user would call them.

Single pictures go through predict in test_predict.py.
"""

import json
import math
import os
from pathlib import Path

import pytest

from densevision.cli import main

SMALL = ["model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35", "wandb.mode=disabled"]
SMALL += ["data.num_workers=0", "data.batch_size=2", "trainer.max_steps=1"]
DATA = os.environ.get("DENSEVISION_TEST_DATA")
CASES = json.loads((Path(DATA) / "nasty/cases.json").read_text(encoding="utf-8")) if DATA else []
CASES = {case["path"]: case["expect"] for case in CASES if case["kind"] in ("coco", "cityscapes")}


def words(nasty, case):
    root, _, name = case.partition("/")
    if root == "cityscapes":
        return [
            "lraspp_v3_cityscapes",
            f"data.root={nasty / case}",
            "data.val_split=train",
            "data.crop_size=64",
            *SMALL,
        ]
    keys = [f"data.{use}_images=images" for use in ("train", "val")]
    keys += [f"data.{use}_annotations={name}" for use in ("train", "val")]
    return ["ssdlite_v3_coco", f"data.root={nasty / root}", "data.image_size=64", *keys, *SMALL]


@pytest.mark.parametrize("case", CASES)
def test_a_spoilt_data_set_ends_as_it_should(test_data, tmp_path, capsys, case):
    said = {}
    for verb, more in (("check_data", []), ("train", [f"output_dir={tmp_path / 'run'}"])):
        status = main([verb, *words(test_data / "nasty", case), *more])
        said[verb] = "".join(capsys.readouterr())
        assert status == (1 if CASES[case] == "error" else 0), said[verb]
        assert "Traceback" not in said[verb]
    if CASES[case] == "error":
        assert "error: " in said["check_data"]
        assert "\nerror: " in f"\n{said['train']}"
        return
    assert ("note: " in said["check_data"]) or CASES[case] == "ok"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(line["train/loss"]) for line in lines if "train/loss" in line)
    assert any("train/loss" in line for line in lines)


@pytest.mark.data
def test_every_case_of_these_formats_is_run(test_data):
    cases = json.loads((test_data / "nasty" / "cases.json").read_text(encoding="utf-8"))
    assert set(CASES) == {case["path"] for case in cases if case["kind"] in ("coco", "cityscapes")}
    assert len(CASES) >= 16
