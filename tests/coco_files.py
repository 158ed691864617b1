"""Small data sets in COCO's layout, sound and spoilt, and what is said of them."""

import json

import numpy as np
import pytest

from datamodules import CocoDataModule
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from tests.trees import write_png

GOOD = {
    "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}],
    "categories": [{"id": 5, "name": "thing"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [1, 2, 10, 20], "area": 200, "iscrowd": 0}],
}


def datamodule(root, seed=0, **keys):
    keys = {"num_workers": 0, "batch_size": 1, "flip": 0.0, "image_size": [40, 60], **keys}
    return CocoDataModule(DataConfig(name="coco", root=None if root is None else str(root), **keys), seed)


def alone(root, name="annotations/instances_train2017.json", images="train2017", **keys):
    """A datamodule that trains on and judges by the same pictures."""
    names = {"train_images": images, "val_images": images, "train_annotations": name, "val_annotations": name}
    return datamodule(root, **names, **keys)


def message(action):
    with pytest.raises(UserError) as error:
        action()
    return str(error.value)


def written(root, content):
    """A tree of one picture whose annotation file holds ``content``; text is written as it is."""
    write_png(root / "train2017" / "a.png", np.full((40, 60, 3), 90, np.uint8))
    (root / "annotations").mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "annotations" / "instances_train2017.json").write_text(text)
    return alone(root)
