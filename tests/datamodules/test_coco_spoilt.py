"""COCO files that are not as they should be: errors that name them, and what is counted and said."""

import copy
import json
import logging
import math

import numpy as np
import pytest
import torch

from datamodules.coco_json import read_coco
from densevision.errors import UserError
from densevision.io import read_image
from tests.coco_files import GOOD, alone, datamodule, message, written
from tests.trees import write_coco_tree


def edited(path, value):
    """GOOD with the value at a path, or without it."""
    content = copy.deepcopy(GOOD)
    *way, last = path
    place = content
    for key in way:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


BOX = ("annotations", 0, "bbox")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("{", "is not whole json"),
        ("[]", "it holds a list, not an object"),
        ("3", "it holds a number"),
        ("\x00\x01", "json"),
        ("[" * 100_000, "nested too deeply"),
        ('{"images": ' + "9" * 5000 + "}", "is not json"),
        (edited(["images"], None), "it has no 'images'"),
        (edited(["images"], {}), "'images' is an object"),
        (edited(["images"], []), "lists no images"),
        (edited(["categories"], []), "lists no categories"),
        (edited(["images", 0], 7), "images[0] is a number, not an object"),
        (edited(["images", 0, "id"], None), "images[0] has no 'id'"),
        (edited(["images", 0, "id"], "1"), "images[0] (id '1') has the id '1'; a whole number is expected"),
        (edited(["images", 0, "id"], 2**70), "is too large"),
        (edited(["images", 0, "file_name"], 5), "has the file_name 5"),
        (edited(["images", 0, "file_name"], "../a.png"), "leads out of the folder"),
        (edited(["images", 0, "file_name"], "/etc/passwd"), "leads out of the folder"),
        (edited(["images", 0, "file_name"], "\0"), "is one that no file can have"),
        (edited(["images", 0, "file_name"], "\ud800"), "is one that no file can have"),
        (edited(["images", 0, "height"], "40"), "has the height '40'"),
        (edited(["images"], GOOD["images"] * 2), "ids of images must differ; repeated: 1"),
        (edited(["categories"], GOOD["categories"] * 2), "ids of categories must differ; repeated: 5"),
        (edited(["categories", 0, "name"], None), "categories[0] (id 5) has no 'name'"),
        (edited(["annotations"], {"1": {}}), "'annotations' is an object"),
        (edited(["annotations", 0, "image_id"], 1.5), "has the image_id 1.5"),
        (edited(["annotations", 0, "category_id"], 91), "1 of 1 annotations are of categories that it does not list"),
        (edited(BOX, None), "annotations[0] (id 1) has no 'bbox'"),
        (edited(BOX, [1, 2, 3]), "has the bbox [1, 2, 3]; a list of four numbers"),
        (edited(BOX, [1, 2, 3, "4"]), "a list of four numbers"),
        (edited(BOX, [1, 2, 3, True]), "a list of four numbers"),
        (edited(BOX, [1, 2, 3, float("nan")]), "annotation ids 1"),
        (edited(BOX, [1, 2, 3, float("inf")]), "annotation ids 1"),
        (edited(BOX, [1, 2, 3, 1e300]), "beyond all pictures"),
        (edited(BOX, [1, 2, 3, 10**400]), "too large"),
        (edited(["annotations", 0, "area"], "big"), "has the area 'big'"),
        (edited(["annotations", 0, "area"], float("nan")), "an area that is not finite"),
        (edited(["annotations", 0, "iscrowd"], "no"), "has the iscrowd 'no'"),
        *(
            (edited(["annotations", 0, "iscrowd"], flag), "neither 0 nor 1")
            for flag in (-5, 1.5, 2, math.nan, math.inf)
        ),
        (edited(["images", 0, "file_name"], "a.jpg/"), "is one that no file can have"),
    ],
)
def test_a_file_of_another_shape_is_a_sentence_that_names_it(tmp_path, content, says):
    said = message(lambda: written(tmp_path, content).setup())
    assert "instances_train2017.json" in said
    assert says in said
    assert said.count("\n") == 0


NASTY = {  # file -> (what the error says, what the warnings say); empty is none
    "_good": ("", ""),
    "zero_negative_boxes": ("", "3 of 11 boxes: less than a pixel wide or high"),
    "boxes_outside": ("", "2 of 11 boxes: reaching beyond their pictures"),
    "missing_image_file": ("000000000000_gone.jpg does not exist: 1 of the 3", ""),
    "unknown_category": ("2 of 11 annotations are of categories that it does not list: ids 12, 91", ""),
    "empty_annotations": ("", "0 boxes to learn from"),
    "truncated": ("is not whole json", ""),
    "nan_box": ("1 of 11 annotations have a box that is not finite or beyond all pictures: annotation ids 10051", ""),
    "size_disagrees": ("", "3 of 3 pictures looked at: of another size than annotated"),
    "image_without_boxes": ("", ""),
    "minimal_fields": ("", ""),
}


def nasty(test_data, name, **keys):
    return alone(test_data / "nasty/coco", f"annotations/{name}.json", "images", image_size=[320, 320], **keys)


@pytest.mark.parametrize("name", NASTY)
def test_nasty_files(test_data, name, caplog):
    error, warning = NASTY[name]
    with caplog.at_level(logging.WARNING):
        if error:
            assert error in message(lambda: nasty(test_data, name).setup())
            return
        module = nasty(test_data, name, augment="ssd", batch_size=3)
        (batch,) = module.train_dataloader()
        assert len(list(module.val_dataloader())) == 3
    assert bool(caplog.records) == bool(warning)
    assert warning in caplog.text
    for boxes in batch["boxes"]:
        assert torch.isfinite(boxes).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes.numel() == 0 or (boxes.min() >= 0 and boxes.max() <= 320)
    report = nasty(test_data, name).check()
    assert report.can_train
    assert warning in "\n".join(report.lines())


def test_every_nasty_file_has_its_test(test_data):
    cases = json.loads((test_data / "nasty" / "cases.json").read_text(encoding="utf-8"))
    told = {c["path"].split("/")[-1][:-5]: c["expect"] for c in cases if c["path"].startswith("coco/")}
    assert told == {n: "error" if error else "warn" if warning else "ok" for n, (error, warning) in NASTY.items()}


def test_a_minimal_file_is_judged_as_the_full_one(test_data):
    truths = []
    for name in ("_good", "minimal_fields"):
        module = nasty(test_data, name)
        module.setup()
        truths.append(module.val_dataset.truth)
    good, minimal = truths
    assert np.array_equal(good.boxes, minimal.boxes)
    assert np.array_equal(minimal.areas, minimal.boxes[:, 2] * minimal.boxes[:, 3])
    assert not minimal.crowd.any()


PICTURES = {  # of images/: whether it can be read
    "truncated.jpg": False,
    "zero_byte.jpg": False,
    "webpage.jpg": False,
    "gray.jpg": True,
    "rgba.png": True,
    "exif_orient6.jpg": True,
    "one_by_one.png": True,
    "palette_transparent.png": True,
    "näme with spåce (1).jpg": True,
}


@pytest.mark.parametrize("name", PICTURES)
def test_nasty_pictures_in_a_data_set(test_data, tmp_path, name):
    folder = test_data / "nasty" / "images"
    content = edited(["images", 0, "file_name"], name)
    content["annotations"][0]["bbox"] = [0, 0, 1, 1]
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    module = alone(folder, str(tmp_path / "annotations.json"), ".", augment="ssd", image_size=[32, 48])
    report = module.check()
    assert report.can_train == PICTURES[name]
    if not PICTURES[name]:
        said = message(lambda: list(module.train_dataloader()))
        assert said in report.splits["train"].errors
        assert name in said
        return
    (batch,) = module.train_dataloader()
    assert batch["images"].shape == (1, 3, 32, 48)
    (batch,) = module.val_dataloader()
    assert batch["boxes"][0].shape == (1, 4)
    assert batch["sizes"][0] == read_image(folder / name).shape[:2]


def test_real_pictures_agree_with_their_annotations(test_data):
    module = datamodule(test_data / "coco_mini", image_size=[64, 64])
    module.setup()
    assert (len(module.train_dataset), len(module.val_dataset), module.label_map.num_classes) == (162, 81, 80)
    assert module.label_map.ids[-1] == 90
    crowd = module.val_dataset.truth.crowd
    assert (crowd.sum(), (~crowd).sum()) == (11, 804)
    assert not module.train_dataset.notes()


def test_sizes_ids_and_names_that_cannot_be_are_said(tmp_path):
    content = write_coco_tree(tmp_path)
    file = tmp_path / "annotations" / "instances_train2017.json"
    content["images"][0]["width"], content["images"][1]["height"] = float("nan"), 1e300
    content["annotations"][0]["id"], content["annotations"][1]["id"] = "a", None
    file.write_text(json.dumps(content))
    notes = read_coco(file)[0].notes
    assert notes["of 4 pictures: with a width or height that no picture has, so the file's own is used"] == 2
    count = len(content["annotations"])
    assert notes[f"of {count} annotations: with an id that is no whole number, so all are numbered anew from 1"] == 2
    content["categories"][0]["name"] = "cat\x1b[31m"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"the category name 'cat\\x1b\[31m' cannot be printed"):
        read_coco(file)
