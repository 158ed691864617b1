"""The Cityscapes tree: what is found, what the numbers mean, and what is said when something is wrong."""

import json
import logging

import cv2
import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.labels import labels as official_labels
from PIL import Image

from datamodules import DATAMODULES, CityscapesDataModule
from datamodules.cityscapes import CITYSCAPES, ENVIRONMENT_VARIABLE
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.structures import IGNORE_INDEX, SampleKey
from tests.trees import SCENE_IDS, label_path, write_cityscapes_tree, write_png


def datamodule(root, **keys):
    root = None if root is None else str(root)
    return CityscapesDataModule(
        DataConfig(name="cityscapes", root=root, **{"num_workers": 0, "batch_size": 1, "flip": 0.0, **keys})
    )


def alone(root, **keys):
    """A datamodule over a tree that has ``train`` only."""
    return datamodule(root, val_split="train", **keys)


def message(action):
    with pytest.raises(UserError) as error:
        action()
    return str(error.value)


def test_the_label_map_is_the_official_one():
    evaluated = sorted((label for label in official_labels if not label.ignoreInEval), key=lambda label: label.trainId)
    assert CITYSCAPES.ids == tuple(label.id for label in evaluated)
    assert CITYSCAPES.names == tuple(label.name for label in evaluated)
    assert CITYSCAPES.colors == tuple(label.color for label in evaluated)
    assert set(CITYSCAPES.ignored_ids) == {label.id for label in official_labels if label.ignoreInEval}
    assert CITYSCAPES.num_classes == 19


def test_every_id_becomes_its_train_id(tmp_path):
    (picture,) = write_cityscapes_tree(tmp_path, count=1, size=(1, 35))
    write_png(label_path(picture), np.array([[*range(34), 255]], np.uint8))
    module = alone(tmp_path)
    module.setup("fit")
    wanted = [next(label.trainId for label in official_labels if label.id == number) for number in range(34)]
    label = module.train_dataset[SampleKey(0, 0)]["label"]
    assert label.tolist() == [[IGNORE_INDEX if number in (-1, 255) else number for number in [*wanted, 255]]]


def test_splits_and_cities_are_chosen(tmp_path):
    write_cityscapes_tree(tmp_path, "train", ("aachen", "bochum", "ulm"), count=2)
    write_cityscapes_tree(tmp_path, "val", ("lindau", "munster"), count=3)
    module = datamodule(tmp_path, train_cities=["ulm", "aachen"], val_cities=["lindau"])
    module.setup("fit")
    assert [pair.name.split("_")[0] for pair in module.train_dataset.pairs] == ["aachen"] * 2 + ["ulm"] * 2
    assert module.val_dataset.pairs[0].name == "lindau_000000_000019_leftImg8bit"
    assert len(module.val_dataset) == len(module.eval_dataloader("val")) == 3
    assert len(module.eval_dataloader("train")) == 4


def test_the_class_histogram_counts_stored_pixels(tmp_path):
    pictures = write_cityscapes_tree(tmp_path, count=3)
    counts = alone(tmp_path, image_size=[8, 8]).class_pixel_counts()
    stored = np.bincount(np.concatenate([cv2.imread(str(label_path(p)), -1).ravel() for p in pictures]))
    assert counts.dtype == np.int64
    assert {CITYSCAPES.ids[i]: n for i, n in enumerate(counts) if n} == {i: stored[i] for i in SCENE_IDS if stored[i]}


def test_coarse_labels_train_and_fine_ones_judge(tmp_path, caplog):
    write_cityscapes_tree(tmp_path, "train", count=1, annotations="gtCoarse")
    (judged,) = write_cityscapes_tree(tmp_path, "val", count=1)
    write_png(label_path(judged, "gtCoarse"), np.zeros((32, 64), np.uint8))
    write_cityscapes_tree(tmp_path, "train_extra", count=2, annotations="gtCoarse")
    module = datamodule(tmp_path, annotations="gtCoarse")
    assert len(list(module.train_dataloader())) == 1
    assert (next(iter(module.val_dataloader()))["labels"] != IGNORE_INDEX).any()
    assert not caplog.records
    extra = datamodule(tmp_path, annotations="gtCoarse", train_split="train_extra", val_split="train")
    with caplog.at_level(logging.WARNING):
        assert len(list(extra.train_dataloader())) == 2
    assert "judged by gtCoarse" in caplog.text


def test_a_split_without_labels_is_evaluated_without_and_not_trained_on(tmp_path):
    write_cityscapes_tree(tmp_path, "test", ("berlin",), count=2, annotations=None)
    (batch, _) = datamodule(tmp_path).eval_dataloader("test")
    assert "labels" not in batch
    assert batch["names"] == ["berlin_000000_000019_leftImg8bit"]
    said = message(lambda: datamodule(tmp_path, train_split="test").setup("fit"))
    assert "(2 of 2 pictures have no label)" in said


def test_no_data_set_is_one_message_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    said = message(lambda: datamodule(None).setup())
    for part in ("data.root is not set", ENVIRONMENT_VARIABLE, "cityscapes-dataset.com", "make demo"):
        assert part in said
    for part in ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"):
        assert part in said
    assert f"{tmp_path / 'none'}, which does not exist" in message(lambda: datamodule(tmp_path / "none").setup())
    assert f"{tmp_path}, which has no folder leftImg8bit" in message(lambda: datamodule(tmp_path).setup())
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    assert f"{ENVIRONMENT_VARIABLE} names {tmp_path}" in message(lambda: datamodule(None).setup())


def test_the_environment_names_the_data_set_where_the_configuration_does_not(tmp_path, monkeypatch):
    write_cityscapes_tree(tmp_path)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    alone(None).setup()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"train_split": "trian"}, "unknown split 'trian'; did you mean 'train'"),
        ({"train_cities": ["achen"]}, "unknown city 'achen'; did you mean 'aachen'"),
        ({"val_split": "val"}, "unknown split 'val'"),
    ],
)
def test_unknown_splits_and_cities_name_the_nearest(tmp_path, keys, says):
    write_cityscapes_tree(tmp_path)
    assert says in message(lambda: datamodule(tmp_path, **{"val_split": "train", **keys}).setup())


def test_an_empty_split_says_what_was_looked_for(tmp_path):
    (tmp_path / "leftImg8bit" / "train" / "aachen").mkdir(parents=True)
    assert "_leftImg8bit.png" in message(lambda: alone(tmp_path).setup())


def test_what_is_no_picture_of_the_tree_is_passed_over(tmp_path):
    (picture,) = write_cityscapes_tree(tmp_path, count=1)
    for name in ("._" + picture.name, "Thumbs.db", "aachen_000000_000019_disparity.png"):
        (picture.parent / name).write_bytes(b"")
    assert len(alone(tmp_path).eval_dataloader("train")) == 1


def test_a_label_in_colour_is_refused(tmp_path):
    (picture,) = write_cityscapes_tree(tmp_path, count=1)
    Image.new("RGB", (64, 32)).save(label_path(picture))
    assert "RGB colours" in message(lambda: list(alone(tmp_path).train_dataloader()))


def test_datamodules_are_found_by_name():
    assert DATAMODULES["cityscapes"] is CityscapesDataModule


TREES = {  # case -> what the error says; () is none
    "cityscapes/size_mismatch": ("_leftImg8bit.png is 360x480", "_gtFine_labelIds.png is 180x240"),
    "cityscapes/ids_above_33": ("006720_gtFine_labelIds.png holds the label ids 40, 77", "check_data"),
    "cityscapes/missing_label": ("006720_leftImg8bit.png has no label", "006720_gtFine_labelIds.png", "1 of 2"),
    "cityscapes/palette_label": (),
    "cityscapes/all_ignored": (),
}


@pytest.mark.parametrize("case", TREES)
def test_nasty_trees(test_data, case):
    root = test_data / "nasty" / case
    if TREES[case]:
        said = message(lambda: [list(alone(root).train_dataloader()), list(alone(root).val_dataloader())])
        for part in TREES[case]:
            assert part in said
        return
    samples = [sample["labels"][0] for sample in alone(root).val_dataloader()]
    assert len(samples) == 2
    file = sorted(root.glob("gtFine/train/*/*.png"))[1]
    if case.endswith("palette_label"):
        indices = np.asarray(Image.open(file))
        assert np.array_equal(np.array(CITYSCAPES.ids)[samples[1][samples[1] != IGNORE_INDEX]], indices[indices > 0])
    else:
        assert (samples[1] == IGNORE_INDEX).all()
    assert torch.unique(samples[0]).numel() > 3


def test_a_missing_label_is_told_at_the_start(test_data):
    said = message(lambda: alone(test_data / "nasty/cityscapes/missing_label").setup("fit"))
    assert "has no label" in said


def test_every_nasty_tree_has_its_test(test_data):
    cases = json.loads((test_data / "nasty" / "cases.json").read_text(encoding="utf-8"))
    told = {c["path"]: c["expect"] for c in cases if c["path"].startswith("cityscapes/")}
    assert told == {case: "error" if wanted else "ok" for case, wanted in TREES.items()}


def test_camvid_is_read_as_it_is_stored(test_data):
    root = test_data / "camvid_cityscapes"
    module = datamodule(root, image_size=[176, 240], batch_size=8)
    module.setup()
    assert (len(module.train_dataset), len(module.val_dataset)) == (367, 101)
    sample = module.val_dataset[SampleKey(0, 100)]
    pair = module.val_dataset.pairs[100]
    image, ids = (np.asarray(Image.open(path)) for path in (pair.image, pair.label))
    area = cv2.resize(image, (240, 176), interpolation=cv2.INTER_AREA)
    assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), area)
    kept = np.isin(ids, CITYSCAPES.ids)
    assert np.array_equal(sample["label"].numpy() != IGNORE_INDEX, kept)
    assert np.array_equal(np.array(CITYSCAPES.ids)[sample["label"].numpy()[kept]], ids[kept])
