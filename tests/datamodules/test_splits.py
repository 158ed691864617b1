"""Pictures held out: the same ones everywhere, groups whole."""

import time

import numpy as np
import pytest

from datamodules import DATAMODULES
from datamodules.splits import held_out
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from tests.trees import write_cityscapes_tree, write_coco_tree

NAMES = [f"seq{k % 7}_{k:03d}" for k in range(100)]


def test_a_fraction_is_held_out_whatever_the_order():
    held = held_out(NAMES, 0.2, seed=0)
    assert held.sum() == 20
    order = np.random.default_rng(0).permutation(100)
    assert np.array_equal(held_out([NAMES[k] for k in order], 0.2, seed=0), held[order])
    assert not np.array_equal(held_out(NAMES, 0.2, seed=1), held)


def test_the_choice_never_changes():
    held = held_out(NAMES[:20], 0.2, seed=0)
    assert [name for name, out in zip(NAMES, held, strict=False) if out] == [
        "seq4_004",
        "seq5_005",
        "seq2_009",
        "seq6_013",
    ]


@pytest.mark.parametrize("group", [r"^(seq\d)_", r"seq\d"])
def test_groups_stay_whole(group):
    held = held_out(NAMES, 0.3, seed=0, group=group)
    sides = {name[:4]: set() for name in NAMES}
    for name, out in zip(NAMES, held, strict=True):
        sides[name[:4]].add(bool(out))
    assert all(len(side) == 1 for side in sides.values())
    assert abs(held.sum() - 30) <= 2


@pytest.mark.parametrize(
    ("sizes", "fraction", "wanted"),
    [
        ((204, 101, 62), 0.3, 101),
        ((204, 101, 62), 0.01, 62),
        ((204, 101, 62), 0.99, 305),
        ((50, 50), 0.8, 50),
        ((1, 99), 0.5, (1, 99)),
        ((3, 500, 7, 40, 90, 11), 0.2, range(124, 138)),
    ],
)
def test_groups_are_chosen_that_come_nearest(sizes, fraction, wanted):
    names = [f"g{group}_{k}" for group, size in enumerate(sizes) for k in range(size)]
    for seed in range(20):
        held = held_out(names, fraction, seed, "^g[0-9]+")
        assert held.sum() in (wanted if isinstance(wanted, tuple | range) else (wanted,))


def test_the_seed_draws_the_groups():
    sides = {tuple(held_out(NAMES, 0.3, seed, r"seq\d")) for seed in range(20)}
    assert len(sides) > 1


def test_groups_of_large_data_take_no_time():
    names = [f"g{k // 9}_{k}" for k in range(100_000)]
    began = time.process_time()
    held = held_out(names, 0.2, 0, "^g[0-9]+")
    assert abs(held.sum() - 20_000) <= 1000
    assert time.process_time() - began < 10


def test_a_share_that_groups_do_not_allow_is_said(tmp_path, caplog):
    write_cityscapes_tree(tmp_path, "train", ("aachen",), count=6)
    write_cityscapes_tree(tmp_path, "train", ("bochum",), count=4)
    keys = {"group": "^[a-z]+", "val_fraction": 0.2, "batch_size": 2, "num_workers": 0}
    module = DATAMODULES["cityscapes"](DataConfig(name="cityscapes", root=str(tmp_path), **keys))
    note = "of 10 pictures: held out where data.val_fraction asks for 2, as groups stay whole"
    assert module.check().splits["val"].notes[note] == 4
    module.setup()
    assert f"4 {note}" in caplog.text


@pytest.mark.parametrize(
    ("fraction", "group", "says", "key"),
    [
        (0.2, "seq", "leaves nothing on one side", "data.val_fraction"),
        (0.001, None, "leaves nothing on one side", "data.val_fraction"),
        (0.2, "(", "is no regular expression", "data.group"),
        (0.2, "city", "finds nothing in the name seq0_000", "data.group"),
    ],
)
def test_what_cannot_be_divided_is_a_sentence(fraction, group, says, key):
    with pytest.raises(UserError, match=says) as error:
        held_out(NAMES, fraction, 0, group)
    assert error.value.key == key


@pytest.mark.parametrize("name", ["cityscapes", "coco"])
def test_any_format_can_be_divided(tmp_path, name):
    if name == "cityscapes":
        write_cityscapes_tree(tmp_path, "train", ("aachen", "bochum"), count=5)
        keys = {"group": "^[a-z]+", "val_fraction": 0.5}
    else:
        content = write_coco_tree(tmp_path, "train2017", count=10)
        keys = {"image_size": [40, 60], "val_fraction": 0.3}
    keys |= {"batch_size": 2, "num_workers": 0}
    module = DATAMODULES[name](DataConfig(name=name, root=str(tmp_path), **keys))
    module.setup()
    train, val = (set(data.names) for data in (module.train_dataset, module.val_dataset))
    assert len(train | val) == 10
    assert not train & val
    assert {n for batch in module.eval_dataloader("val") for n in batch["names"]} == val
    assert {n for batch in module.eval_dataloader("train") for n in batch["names"]} == train
    if name == "cityscapes":
        assert len({n.split("_")[0] for n in train}) == len({n.split("_")[0] for n in val}) == 1
    else:
        boxes = {image["id"]: 0 for image in content["images"]}
        for annotation in content["annotations"]:
            boxes[annotation["image_id"]] += 1 - annotation["iscrowd"]
        for loader in (module.train_dataloader(), module.val_dataloader()):
            for batch in loader:
                assert [len(b) for b in batch["boxes"]] == [boxes[number] for number in batch["image_ids"]]
        assert len(module.val_dataset.truth.boxes) == sum(
            a["image_id"] in module.val_dataset.truth.image_ids for a in content["annotations"]
        )
