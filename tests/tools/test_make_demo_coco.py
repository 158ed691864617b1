"""The demo's boxes are those of its instances."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools.coco import COCO

TOOL = Path(__file__).parents[2] / "tools" / "make_demo_coco.py"


def test_boxes_enclose_the_instances_and_specks_are_counted(tmp_path):
    ids = np.full((20, 30), 7, np.uint16)
    ids[2:8, 3:13] = 26001  # a car
    ids[10:18, 20:24] = 24004  # a person
    ids[0, 0] = 26002  # a speck
    for split in ("train", "val"):
        folder = tmp_path / "gtFine" / split / "ulm"
        folder.mkdir(parents=True)
        Image.fromarray(ids).save(folder / "ulm_000000_000000_gtFine_instanceIds.png")
    done = subprocess.run([sys.executable, TOOL, tmp_path], capture_output=True, text=True, timeout=60, check=True)
    assert "1 pictures, 2 boxes, 1 specks left out" in done.stdout
    truth = COCO(str(tmp_path / "annotations" / "instances_val.json"))
    assert {(a["category_id"], tuple(a["bbox"]), a["area"]) for a in truth.dataset["annotations"]} == {
        (26, (3, 2, 10, 6), 60),
        (24, (20, 10, 4, 8), 32),
    }
    assert truth.dataset["images"] == [
        {"id": 1, "file_name": "ulm/ulm_000000_000000_leftImg8bit.png", "height": 20, "width": 30}
    ]
    json.loads((tmp_path / "annotations" / "instances_train.json").read_text())


def test_a_folder_without_scenes_is_told(tmp_path):
    done = subprocess.run([sys.executable, TOOL, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
