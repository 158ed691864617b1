"""Pictures in a folder a class: which classes there are, which part of a picture is seen, and what mistakes say."""

import cv2
import numpy as np
import pytest
import torch
import torchvision

from datamodules import DATAMODULES
from datamodules.class_folders import EvalCrop, TrainCrop
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.structures import SampleKey
from tests.trees import write_class_tree


def module(root, name="class_folders", **changes):
    values = {"image_size": [32, 32], "batch_size": 4, "num_workers": 0, "eval_batch_size": 4, **changes}
    return DATAMODULES[name](DataConfig(name=name, root=str(root), **values), seed=1)


def test_classes_are_the_sorted_folders_and_batches_hold_them(tmp_path):
    write_class_tree(tmp_path, ("dog", "cat", "eel"))
    data = module(tmp_path)
    data.setup()
    assert data.label_map.names == ("cat", "dog", "eel")
    assert len(set(data.label_map.colors)) == 3
    (batch, *rest) = list(data.val_dataloader())
    assert batch["images"].shape == (4, 3, 32, 32)
    assert batch["images"].dtype == torch.uint8
    labels = [label for part in (batch, *rest) for label in part["labels"].tolist()]
    names = [name for part in (batch, *rest) for name in part["names"]]
    assert sorted(labels) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(name.split("/")[1] == data.label_map.names[label] for name, label in zip(names, labels, strict=True))
    assert all(len(part["labels"]) == 4 for part in data.train_dataloader())


def test_a_training_sample_follows_from_seed_epoch_and_index(tmp_path):
    write_class_tree(tmp_path, ("a", "b"))
    first, second = module(tmp_path), module(tmp_path)
    for data in (first, second):
        data.setup()
    sample = first.train_dataset[SampleKey(3, 1)]["image"]
    assert torch.equal(sample, second.train_dataset[SampleKey(3, 1)]["image"])
    assert not torch.equal(sample, first.train_dataset[SampleKey(4, 1)]["image"])


def test_a_part_of_the_training_split_is_held_out(tmp_path):
    write_class_tree(tmp_path, ("a", "b"), count=10)
    data = module(tmp_path, val_fraction=0.2)
    data.setup()
    names = [*data.train_dataset.names, *data.val_dataset.names]
    assert len(set(names)) == 20
    assert all(name.startswith("train/") for name in names)
    assert len(data.val_dataset) == 4
    assert data.val_dataset[SampleKey(0, 0)]["label"] == data.label_map.names.index(names[16].split("/")[1])


@pytest.mark.parametrize("cache", ["raw", "compressed"])
def test_the_store_changes_no_sample(tmp_path, cache):
    write_class_tree(tmp_path / "data", ("a", "b"))
    plain, stored = module(tmp_path / "data"), module(tmp_path / "data", cache=cache, cache_dir=str(tmp_path / "c"))
    for data in (plain, stored):
        data.setup()
    for index in range(len(plain.val_dataset)):
        for use in ("train_dataset", "val_dataset"):
            images = [getattr(data, use)[SampleKey(0, index)]["image"] for data in (plain, stored)]
            assert torch.equal(*images)


def test_training_crops_are_distributed_as_torchvisions():
    """Mean area, aspect and place of 4000 windows, against 4000 of RandomResizedCrop."""
    crop, rng = TrainCrop((8, 8), (0.08, 1.0), 0.5), np.random.default_rng(0)
    ours = np.array([crop._window(60, 90, rng) for _ in range(4000)], float)
    torch.manual_seed(0)
    picture = torch.zeros(3, 60, 90)
    draw = torchvision.transforms.RandomResizedCrop.get_params
    theirs = np.array([draw(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)], float)
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.6)
    np.testing.assert_allclose(ours.std(0), theirs.std(0), atol=0.6)


@pytest.mark.parametrize(("shape", "window"), [((64, 128), (4, 60, 36, 92)), ((64, 64), (4, 60, 4, 60))])
def test_the_middle_is_evaluated(shape, window):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    top, bottom, left, right = window
    np.testing.assert_array_equal(EvalCrop((56, 56), 0.875)(image), image[top:bottom, left:right])


def test_a_picture_smaller_than_the_crop_is_enlarged():
    assert EvalCrop((56, 40), 0.875)(np.zeros((5, 3, 3), np.uint8)).shape == (56, 40, 3)
    assert TrainCrop((56, 40), (0.08, 1), 0.5)(np.zeros((1, 200, 3), np.uint8), np.random.default_rng(0)).shape == (
        56, 40, 3
    )  # fmt: skip


def test_mistakes_are_sentences(tmp_path):
    write_class_tree(tmp_path, ("cat", "dog"))
    for changes, said in (
        ({"train_split": "trian"}, "trian is no folder"),
        ({"image_size": None}, "one size for all"),
        ({"name": "imagenet"}, "has 2 class folders, not 1000"),
    ):
        with pytest.raises(UserError, match=said):
            module(tmp_path, **changes).setup()
    with pytest.raises(UserError, match="say where"):
        DATAMODULES["class_folders"](DataConfig(name="class_folders", image_size=[8, 8])).setup()
    (tmp_path / "val" / "cta").mkdir()
    with pytest.raises(UserError, match="unknown class 'cta'; did you mean 'cat'"):
        module(tmp_path).setup()


def test_check_reads_every_picture(tmp_path):
    write_class_tree(tmp_path, ("cat", "dog"))
    report = module(tmp_path).check()
    assert report.can_train
    assert report.splits["train"].class_counts.tolist() == [3, 3]
    file = next((tmp_path / "train" / "cat").iterdir())
    file.write_bytes(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()[:40])
    report = module(tmp_path).check()
    assert not report.can_train
    assert str(file) in report.splits["train"].errors[0]


def test_jfif_is_read_and_what_is_left_out_is_counted_and_said(tmp_path, caplog):
    write_class_tree(tmp_path, ("cat", "dog"))
    image = cv2.imencode(".jpg", np.full((40, 40, 3), 99, np.uint8))[1].tobytes()
    for name in ("cat/a.jfif", "cat/b.jpe", "cat/c.heic", "cat/more/d.jpg", "e.jpg"):
        (tmp_path / "train" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "train" / name).write_bytes(image)
    report = module(tmp_path).check().splits["train"]
    assert report.class_counts.tolist() == [5, 3]
    folder = tmp_path / "train"
    wanted = {
        f"files in {folder}: no pictures by name, left out (c.heic)",
        f"files in {folder}: in folders within class folders, left out (d.jpg)",
        f"files in {folder}: beside the class folders, left out (e.jpg)",
    }
    assert wanted <= {note for note, count in report.notes.items() if count == 1}
    module(tmp_path).setup()
    assert all(note in caplog.text for note in wanted)
