"""Spoilt annotation files and pictures, drawn at random: each works or is one sentence that names the file."""

import copy
import json
import math

import cv2
import numpy as np
import pytest
import torch

from datamodules import CocoDataModule
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.metrics import DetectionScorer
from tests.trees import write_coco_tree, write_png

STRANGE = [None, True, 0, -1, 3, 2**31, 2**63, 10**400, 1.5, -0.0, 1e308, -1e308, math.nan, math.inf]
STRANGE += ["", "a", "0", "é", "\0", "\ud800", "../x", "/", "x" * 300, [], [1], [[]], {}, {"id": 1}, [1, 2, 3, 4]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    return root, write_coco_tree(root)


def run(root):
    """Set up, train on and judge by all pictures; return what the UserError says, if there is one."""
    name = "annotations/instances_train2017.json"
    keys = {"val_images": "train2017", "val_annotations": name, "image_size": [16, 24], "augment": "ssd"}
    module = CocoDataModule(DataConfig(name="coco", root=str(root), num_workers=0, batch_size=1, **keys))
    try:
        for batch in [*module.train_dataloader(), *module.val_dataloader()]:
            for boxes, labels in zip(batch["boxes"], batch["labels"], strict=True):
                assert torch.isfinite(boxes).all()
                assert (boxes[:, 2:] > boxes[:, :2]).all()
                assert ((boxes >= 0) & (boxes <= torch.tensor([24, 16, 24, 16]))).all()
                assert ((labels >= 0) & (labels < module.label_map.num_classes)).all()
        judge = DetectionScorer(module.val_dataset.truth, module.label_map)
        for image_id in module.val_dataset.truth.image_ids.tolist():
            judge.update([image_id], [np.array([[1.0, 2.0, 20.0, 14.0]])], [np.ones(1)], [np.zeros(1, int)])
        assert set(judge.compute().to_dict()["map_per_class"]) == set(module.label_map.names)
    except UserError as error:
        return str(error)
    return None


def places(value, path=()):
    """The paths of all values inside a json value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def spoilt(content, rng):
    """A copy with one to three of its values deleted, doubled or replaced by strange ones."""
    content = copy.deepcopy(content)
    for _ in range(rng.integers(1, 4)):
        everywhere = [path for path in places(content) if path]
        *way, last = everywhere[rng.integers(len(everywhere))]
        place = content
        for key in way:
            place = place[key]
        kind = rng.integers(4)
        if kind == 0:
            del place[last]
        elif kind == 1 and isinstance(place, list):
            place.append(copy.deepcopy(place[last]))
        else:
            place[last] = copy.deepcopy(STRANGE[rng.integers(len(STRANGE))])
    return content


def test_spoilt_values(tree):
    root, content = tree
    file, outcomes = root / "annotations/instances_train2017.json", []
    for seed in range(400):
        file.write_text(json.dumps(spoilt(content, np.random.default_rng(seed))))
        said = run(root)
        assert said is None or ("instances_train2017.json" in said and "\n" not in said), (seed, said)
        outcomes.append(said is None)
    assert 20 < sum(outcomes) < 380


def test_spoilt_bytes(tree):
    root, content = tree
    file, whole, outcomes = root / "annotations/instances_train2017.json", json.dumps(content).encode(), []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        spoilt_bytes = bytearray(whole[: rng.integers(len(whole))] if seed % 3 == 0 else whole)
        for _ in range(rng.integers(0, 4)):
            if spoilt_bytes:
                spoilt_bytes[rng.integers(len(spoilt_bytes))] = rng.integers(256)
        file.write_bytes(spoilt_bytes)
        said = run(root)
        assert said is None or ("instances_train2017.json" in said and "\n" not in said), (seed, said)
        outcomes.append(said is None)
    assert any(outcomes)
    assert not all(outcomes)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_spoilt_pictures(tmp_path, suffix):
    content = write_coco_tree(tmp_path, count=2)
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace(".png", suffix)
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(content))
    picture = cv2.resize(np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8), (60, 40))
    files = [write_png(tmp_path / "train2017" / image["file_name"], picture) for image in content["images"]]
    whole, outcomes = files[1].read_bytes(), []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        spoilt_bytes = bytearray(whole[: rng.integers(len(whole))] if seed % 3 == 0 else whole)
        for _ in range(rng.integers(1, 9)):
            if spoilt_bytes:
                spoilt_bytes[rng.integers(len(spoilt_bytes))] = rng.integers(256)
        files[1].write_bytes(spoilt_bytes)
        said = run(tmp_path)
        assert said is None or str(files[1]) in said, (seed, said)
        outcomes.append(said is None)
    assert not all(outcomes)
