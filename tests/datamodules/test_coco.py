"""COCO's layout: what is found, what is left out and said, and what is an error that names it."""

import copy
import json
import logging
import math
import pickle

import numpy as np
import pytest
import torch

from datamodules import DATAMODULES, CocoDataModule
from datamodules.annotations import distinct_colors, usable_boxes
from datamodules.coco import ENVIRONMENT_VARIABLE
from datamodules.coco_json import read_coco
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.io import read_image
from densevision.structures import SampleKey
from tests.trees import write_coco_tree, write_png

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


@pytest.fixture
def tree(tmp_path):
    for split in ("train2017", "val2017"):
        write_coco_tree(tmp_path, split)
    return tmp_path


def written(root, content):
    """A tree of one picture whose annotation file holds ``content``; text is written as it is."""
    write_png(root / "train2017" / "a.png", np.full((40, 60, 3), 90, np.uint8))
    (root / "annotations").mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "annotations" / "instances_train2017.json").write_text(text)
    return alone(root)


def test_samples_are_what_the_file_says(tree):
    content = write_coco_tree(tree)
    module = datamodule(tree)
    module.setup()
    assert module.label_map.ids == (3, 7)
    assert module.label_map.names == ("square", "bar")
    for index, image in enumerate(content["images"]):
        sample = module.train_dataset[SampleKey(0, index)]
        own = [a for a in content["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        x, y, width, height = np.array([a["bbox"] for a in own], np.float32).reshape(-1, 4).T
        assert sample["boxes"].dtype == torch.float32
        assert sample["boxes"].shape == (len(own), 4)
        np.testing.assert_array_equal(sample["boxes"], np.stack([x, y, x + width, y + height], axis=1))
        assert sample["labels"].tolist() == [0 if a["category_id"] == 3 else 1 for a in own]
        assert (sample["name"], sample["image_id"]) == (image["file_name"], image["id"])
        assert sample["size"] == (40, 60)
        stored = read_image(tree / "train2017" / image["file_name"])
        assert np.array_equal(sample["image"].permute(1, 2, 0), stored)


def test_the_truth_is_the_file_unchanged(tree):
    content = write_coco_tree(tree, "val2017", count=5)
    content["annotations"][0]["bbox"] = [-5, 1.25, 100, 0]  # what training leaves out counts in COCO's evaluation
    del content["annotations"][1]["area"], content["annotations"][1]["iscrowd"]
    content["annotations"] = content["annotations"][::-1]
    (tree / "annotations/instances_val2017.json").write_text(json.dumps(content))
    module = datamodule(tree)
    module.setup("validate")
    truth = module.val_dataset.truth
    assert truth.image_ids.tolist() == [10, 20, 30, 40, 50]
    by_id = {a["id"]: a for a in content["annotations"]}
    assert sorted(truth.annotation_ids.tolist()) == sorted(by_id)
    assert (np.diff(truth.box_image_ids) >= 0).all()
    for row, number in enumerate(truth.annotation_ids.tolist()):
        entry = by_id[number]
        assert truth.box_image_ids[row] == entry["image_id"]
        assert truth.category_ids[row] == entry["category_id"]
        assert truth.boxes[row].tolist() == entry["bbox"]
        assert truth.areas[row] == entry.get("area", entry["bbox"][2] * entry["bbox"][3])
        assert truth.crowd[row] == bool(entry.get("iscrowd", 0))


def test_batches_list_the_boxes_and_pictures_without_any_are_kept(tree):
    batches = list(datamodule(tree, batch_size=2, image_size=[20, 30]).train_dataloader())
    assert [batch["images"].shape for batch in batches] == [(2, 3, 20, 30)] * 2
    counts = {name: len(boxes) for b in batches for name, boxes in zip(b["names"], b["boxes"], strict=True)}
    assert counts == {"000.png": 0, "001.png": 1, "002.png": 1, "003.png": 3}  # one of the third's is a crowd
    (batch, *_) = datamodule(tree, eval_batch_size=4).val_dataloader()
    assert batch["image_ids"] == [10, 20, 30, 40]
    assert batch["boxes"][0].shape == (0, 4)


def test_evaluation_resizes_boxes_with_the_picture(tree):
    large, small = (datamodule(tree, image_size=size) for size in ([40, 60], [10, 120]))
    for one, other in zip(large.val_dataloader(), small.val_dataloader(), strict=True):
        assert other["images"].shape == (1, 3, 10, 120)
        np.testing.assert_allclose(other["boxes"][0], one["boxes"][0] * torch.tensor([2, 0.25, 2, 0.25]), rtol=1e-6)


@pytest.mark.parametrize("augment", ["none", "ssd_crop", "ssdlite", "ssd"])
def test_a_sample_follows_from_seed_epoch_and_index(tree, augment):
    def sample(seed, epoch):
        module = datamodule(tree, seed, augment=augment, flip=0.5, vertical_flip=0.5, photometric=0.5)
        module.setup("fit")
        module.train_dataset[SampleKey(7, 0)]  # what was asked for before has no influence
        return module.train_dataset[SampleKey(epoch, 3)]

    one, same = sample(0, 0), sample(0, 0)
    assert torch.equal(one["image"], same["image"])
    assert torch.equal(one["boxes"], same["boxes"])
    assert len({sample(seed, epoch)["image"].numpy().tobytes() for seed in (0, 1) for epoch in range(6)}) > 2


def test_crowds_judge_but_do_not_teach(tree):
    module = datamodule(tree)
    module.setup()
    assert module.val_dataset.truth.crowd.sum() == 1
    assert module.val_dataset[SampleKey(0, 2)]["boxes"].shape == (1, 4)


def test_splits_are_found_by_key_by_name_and_without_annotations(tree):
    write_coco_tree(tree, "extra", count=2)
    content = write_coco_tree(tree, "test2017", count=3)
    (tree / "annotations/instances_test2017.json").unlink()
    del content["annotations"]
    (tree / "annotations/image_info_test2017.json").write_text(json.dumps(content))
    module = datamodule(tree)
    assert len(module.eval_dataloader("val")) == 4
    assert len(module.eval_dataloader("extra")) == 2
    loader = module.eval_dataloader("test2017")
    assert not loader.source.has_labels
    assert loader.source.truth is None
    batches = list(loader)
    assert [batch["image_ids"] for batch in batches] == [[10], [20], [30]]
    assert "boxes" not in batches[0]
    assert "unknown split 'tset2017'; did you mean 'test2017'?" in message(lambda: module.eval_dataloader("tset2017"))
    said = message(lambda: datamodule(tree, val_annotations="annotations/image_info_test2017.json").setup())
    assert "pictures without annotations" in said


@pytest.mark.parametrize(("names", "ids"), [(["000000000139.jpg", "7.png"], [139, 7]), (["b.png", "7.png"], [1, 2])])
def test_a_folder_without_annotations_can_be_predicted_on(tree, names, ids):
    for name in names:
        write_png(tree / "new" / name, np.zeros((5, 6, 3), np.uint8))
    loader = datamodule(tree, val_images="new", val_annotations=None).eval_dataloader("val")
    found = {batch["names"][0]: batch["image_ids"][0] for batch in loader}
    assert found == dict(zip(sorted(names), sorted(ids) if ids == [1, 2] else ids, strict=True))


def test_the_environment_names_the_data_set_where_the_configuration_does_not(tree, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tree))
    datamodule(None).setup()
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    said = message(lambda: datamodule(None).setup())
    for part in ("data.root is not set", ENVIRONMENT_VARIABLE, "cocodataset.org", "make demo TASK=detection"):
        assert part in said
    assert f"{tree / 'none'}, which does not exist" in message(lambda: datamodule(tree / "none").setup())
    assert "data.image_size" in message(lambda: datamodule(tree, image_size=None).setup())
    assert DATAMODULES["coco"] is CocoDataModule


def test_splits_must_list_the_same_categories(tree):
    write_coco_tree(tree, "val2017", categories=[{"id": 3, "name": "square"}, {"id": 7, "name": "rod"}])
    assert "7 rod; there 3 square, 7 bar" in message(lambda: datamodule(tree).setup())


def test_categories_of_one_name_stay_apart(tmp_path):
    content = {**GOOD, "categories": [{"id": 5, "name": "thing"}, {"id": 0, "name": "thing"}]}
    module = written(tmp_path, content)
    module.setup()
    assert module.label_map.names == ("thing (0)", "thing (5)")


def test_colours_of_classes_differ():
    assert len(set(distinct_colors(1203))) == 1203
    first = np.array(distinct_colors(20), int)
    assert (np.abs(first[:, None] - first).sum(axis=2) + 1000 * np.eye(20)).min() > 40


def test_boxes_are_clipped_and_judged_once():
    boxes = np.array([[-5, -5, 10, 10], [50, 30, 20, 20], [60, 5, 5, 5], [5, 5, 0, 9], [5, 5, -3, 9], [2, 3, 1, 1]])
    clipped, keep = usable_boxes(boxes.astype(float), np.zeros(6, bool), 40, 60)
    assert keep.tolist() == [True, True, False, False, False, True]
    assert clipped[keep].tolist() == [[0, 0, 5, 5], [50, 30, 60, 40], [2, 3, 3, 4]]
    assert not usable_boxes(boxes.astype(float), np.ones(6, bool), 40, 60)[1].any()


def test_what_is_left_out_is_counted_and_logged_once(tree, caplog):
    content = write_coco_tree(tree)
    for number, box in enumerate(([0, 0, 0, 5], [0, 0, 5, -5], [70, 5, 5, 5], [50, 30, 30, 30])):
        content["annotations"].append({**GOOD["annotations"][0], "id": 50 + number, "image_id": 20, "bbox": box})
    content["annotations"].append({**GOOD["annotations"][0], "id": 60, "image_id": 999})
    for entry in content["annotations"][6:]:
        entry["category_id"] = 3
    (tree / "annotations/instances_train2017.json").write_text(json.dumps(content))
    module = datamodule(tree)
    with caplog.at_level(logging.WARNING):
        module.setup("fit")
    said = [record.message.removeprefix(f"{tree}/annotations/instances_train2017.json: ") for record in caplog.records]
    assert said == [
        "1 of 11 annotations: of pictures that the file does not list, left out",
        "2 of 10 boxes: less than a pixel wide or high, left out of training (annotation ids 50, 51)",
        "1 of 10 boxes: wholly outside their pictures, left out of training (annotation ids 52)",
        "1 of 10 boxes: reaching beyond their pictures, clipped (annotation ids 53)",
    ]
    boxes = module.train_dataset[SampleKey(0, 1)]["boxes"]
    assert boxes[-1].tolist() == [50, 30, 60, 40]
    assert len(boxes) == 2


def test_repeated_annotation_ids_are_numbered_anew(tmp_path):
    module = written(tmp_path, {**GOOD, "annotations": GOOD["annotations"] * 3})
    module.setup()
    assert module.val_dataset.truth.annotation_ids.tolist() == [1, 2, 3]
    assert "2 of 3 annotations: with the id of another" in "\n".join(module.check().lines())


def test_a_picture_of_two_ids_and_areas_below_0_are_counted(tmp_path):
    content = write_coco_tree(tmp_path)
    content["images"][1]["file_name"] = "./" + content["images"][3]["file_name"]
    content["annotations"][0]["area"] = -7
    path = tmp_path / "annotations/instances_train2017.json"
    path.write_text(json.dumps(content))
    annotations = read_coco(path)[0]
    assert set(annotations.notes) == {
        "of 4 pictures: listed under another id, too (003.png, ...)",
        "of 6 annotations: with an area below 0, so the box's is taken",
    }
    assert annotations.areas[0] == np.prod(content["annotations"][0]["bbox"][2:])


def test_the_size_of_the_file_counts(tree, caplog):
    content = write_coco_tree(tree)
    for image in content["images"]:
        image["height"], image["width"] = image["width"], image["height"]
    (tree / "annotations/instances_train2017.json").write_text(json.dumps(content))
    good = datamodule(tree, train_annotations="annotations/instances_val2017.json", train_images="val2017")
    assert len(next(iter(good.val_dataloader()))["boxes"]) == 1
    module = datamodule(tree)
    with caplog.at_level(logging.WARNING):
        module.setup("fit")
    assert "4 of 4 pictures looked at: of another size than annotated" in caplog.text
    assert "outside" not in caplog.text
    assert module.train_dataset[SampleKey(0, 3)]["size"] == (40, 60)


def test_missing_pictures_are_told_at_the_start_with_their_number(tree):
    for name in ("001.png", "003.png"):
        (tree / "train2017" / name).unlink()
    said = message(lambda: datamodule(tree).setup("fit"))
    assert said.startswith(f"{tree}/train2017/001.png does not exist: 2 of the 4 pictures")


def test_pictures_may_lie_in_folders_of_their_own(tree):
    content = write_coco_tree(tree)
    for image in content["images"]:
        image["file_name"] = "train2017/" + image["file_name"]
    (tree / "annotations/instances_train2017.json").write_text(json.dumps(content))
    module = datamodule(tree, train_images=".")
    module.setup("fit")
    assert module.train_dataset[SampleKey(0, 0)]["image"].shape == (3, 40, 60)


def test_the_index_is_arrays_that_processes_share(tree):
    module = datamodule(tree)
    module.setup("fit")
    parts = vars(module.train_dataset.annotations).values()
    assert not any(isinstance(part, list | dict) and len(part) for part in parts)
    copied = pickle.loads(pickle.dumps(module.train_dataset))  # spawned workers get it so
    assert copied[SampleKey(0, 3)]["name"] == "003.png"


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
