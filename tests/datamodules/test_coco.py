"""COCO's layout: what is found, what is left out and said, and what is an error that names it."""

import json
import logging
import pickle

import numpy as np
import pytest
import torch

from datamodules import DATAMODULES, CocoDataModule
from datamodules.annotations import distinct_colors, usable_boxes
from datamodules.coco import ENVIRONMENT_VARIABLE
from datamodules.coco_json import read_coco
from densevision.io import read_image
from densevision.structures import SampleKey
from tests.coco_files import GOOD, datamodule, message, written
from tests.trees import write_coco_tree, write_png


@pytest.fixture
def tree(tmp_path):
    for split in ("train2017", "val2017"):
        write_coco_tree(tmp_path, split)
    return tmp_path


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
