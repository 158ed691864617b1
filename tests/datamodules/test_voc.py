"""Pascal VOC: the same boxes as in COCO's layout, every way the folders are laid out, and what is wrong with files."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import CocoDataModule, VocDataModule, VocMasksDataModule
from datamodules.voc import VOC, VOC_MASKS
from datamodules.voc_xml import read_objects
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.structures import SampleKey
from tests.trees import voc_xml, write_png, write_text, write_voc_tree

SIZES = {"num_workers": 0, "batch_size": 1, "flip": 0.0}


def boxes_of(root, **keys):
    module = VocDataModule(DataConfig(name="voc", root=str(root), **{**SIZES, "image_size": [40, 60], **keys}))
    module.setup()
    return module


def masks_of(root, **keys):
    module = VocMasksDataModule(DataConfig(name="voc", root=str(root), **{**SIZES, **keys}))
    module.setup()
    return module


def message(action):
    with pytest.raises(UserError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def one_picture(root, xml, names="p\n"):
    """A tree of the picture p of 40x60 with this xml."""
    write_png(root / "JPEGImages/p.png", np.full((40, 60, 3), 90, np.uint8))
    write_text(root / "Annotations/p.xml", xml)
    write_text(root / "ImageSets/Main/train.txt", names)
    return root


def test_corners_count_from_1_and_both_belong_to_the_box(tmp_path):
    objects = [("cat", 1, 1, 60, 40), ("dog", 11, 21, 11, 21), ("cat", "10.5", "2.5", "20.5", "8.5")]
    module = boxes_of(one_picture(tmp_path, voc_xml(objects)), val_split="train")
    sample = module.train_dataset[SampleKey(0, 0)]
    assert sample["boxes"].tolist() == [[0, 0, 60, 40], [10, 20, 11, 21], [9.5, 1.5, 20.5, 8.5]]
    assert [module.label_map.names[k] for k in sample["labels"]] == ["cat", "dog", "cat"]
    assert sample["name"] == "JPEGImages/p.png"


def test_bccd_is_the_same_as_in_cocos_layout(test_data):
    size = [480, 640]
    voc = boxes_of(test_data / "bccd", image_size=size)
    coco = CocoDataModule(DataConfig(name="coco", root=str(test_data / "bccd/coco"), **SIZES, image_size=size))
    coco.setup()
    assert sorted(voc.label_map.names) == sorted(coco.label_map.names)
    for ours, theirs, total in (
        (voc.train_dataset, coco.train_dataset, 2805),
        (voc.val_dataset, coco.val_dataset, 1138),
    ):
        assert ours.box_report().boxes.shape == theirs.box_report().boxes.shape == (total, 4)
        place = {name: k for k, name in enumerate(theirs.names)}
        assert sorted(name.split("/")[-1] for name in ours.names) == sorted(place)
        for index, name in enumerate(ours.names):
            rows = []
            for dataset, k in ((ours, index), (theirs, place[name.split("/")[-1]])):
                truth = dataset.annotations.subset(np.array([k]))
                kinds = [dataset.label_map.names[label] for label in truth.labels]
                rows.append(sorted(zip(kinds, truth.boxes.tolist(), truth.areas.tolist(), strict=True)))
            assert rows[0] == rows[1]


def test_difficult_objects_are_cocos_crowds(test_data):
    root = test_data / "voc_from_coco"
    module = boxes_of(root, image_size=[64, 64])
    assert module.label_map == VOC
    annotations = module.val_dataset.annotations
    assert annotations.crowd.sum() == 1
    assert len(module.train_dataset.annotations.boxes) + len(annotations.boxes) == 142
    assert sum(len(module.val_dataset[SampleKey(0, k)]["labels"]) for k in range(16)) == 55


def test_a_labelling_tools_files_are_read(test_data):
    module = boxes_of(test_data / "voc_labelme_sample", image_size=[64, 64])
    assert module.label_map == VOC
    first = module.train_dataset.annotations
    assert first.boxes[0].tolist() == pytest.approx([190, 106.369, 123, 223], abs=1e-3)
    assert not first.crowd.any()


def test_a_difficult_object_is_not_learnt_and_said(tmp_path, caplog):
    module = boxes_of(write_voc_tree(tmp_path))
    assert [len(module.train_dataset[SampleKey(0, k)]["boxes"]) for k in range(4)] == [0, 1, 2, 2]
    assert module.train_dataset.truth.voc
    assert module.train_dataset.truth.crowd.sum() == 1
    assert "1 of 6 objects: difficult" in caplog.text


def labelimg(root):
    """One folder a split, xml beside pictures."""
    tree = write_voc_tree(root / "was")
    for split in ("train", "val"):
        (root / split).mkdir()
        for file in [*tree.glob(f"JPEGImages/{split}*"), *tree.glob(f"Annotations/{split}*")]:
            shutil.move(file, root / split)
    shutil.rmtree(root / "was")
    return {}


def one_folder(root):
    labelimg(root)
    for split in ("train", "val"):
        for file in (root / split).iterdir():
            shutil.move(file, root)
        (root / split).rmdir()
    return {"val_fraction": 0.5}


def kaggle(root):
    tree = write_voc_tree(root / "was")
    shutil.move(tree / "JPEGImages", root / "images")
    shutil.move(tree / "Annotations", root / "annotations")
    return {"val_fraction": 0.5}


def own_lists(root):
    tree = write_voc_tree(root)
    shutil.move(tree / "ImageSets/Main", root / "lists")
    lines = (root / "lists/val.txt").read_text().splitlines()
    (root / "lists/val.txt").write_text("\ufeff" + "\r\n".join(f"{line}.png" for line in lines))
    lines = (root / "lists/train.txt").read_text().splitlines()
    (root / "lists/train.txt").write_text("\n".join(f"{line}  {k % 3 - 1}" for k, line in enumerate(lines)))
    return {"train_list": "lists/train.txt", "val_list": "lists/val.txt"}


def other_names(root):
    tree = write_voc_tree(root)
    shutil.move(tree / "JPEGImages", tree / "photos")
    shutil.move(tree, root / "mine")
    return {"images": "photos", "root": root / "mine"}


@pytest.mark.parametrize("lay", [write_voc_tree, labelimg, one_folder, kaggle, own_lists, other_names])
def test_every_layout_has_the_same_pictures(tmp_path, lay):
    keys = lay(tmp_path)
    module = boxes_of(**{"root": tmp_path, **(keys if isinstance(keys, dict) else {})})
    assert (len(module.train_dataset), len(module.val_dataset)) == (4, 4)
    both = [*module.train_dataset.names, *module.val_dataset.names]
    assert sorted(name.split("/")[-1] for name in both) == [
        f"{split}_{k}.png" for split in ("train", "val") for k in range(4)
    ]
    assert module.label_map.names == VOC.names
    assert len(module.train_dataset.annotations.boxes) + len(module.val_dataset.annotations.boxes) == 12
    for dataset in (module.train_dataset, module.val_dataset):
        assert all(dataset[SampleKey(0, k)]["image"].shape == (3, 40, 60) for k in range(4))


def test_several_years_are_one_split_by_their_lists(tmp_path):
    first = write_voc_tree(tmp_path)
    shutil.copytree(first, first.with_name("VOC2012"))
    assert "holds VOC2007, VOC2012: name one as data.root" in message(lambda: boxes_of(tmp_path / "VOCdevkit"))
    lists = [f"VOC{year}/ImageSets/Main/train.txt" for year in (2007, 2012)]
    keys = {"train_list": lists, "val_list": "VOC2012/ImageSets/Main/val.txt"}
    module = boxes_of(tmp_path / "VOCdevkit", **keys)
    assert (len(module.train_dataset), len(module.val_dataset)) == (8, 4)
    assert module.train_dataset.names[4] == "VOC2012/JPEGImages/train_0.png"
    lists = [name.replace("Main", "Segmentation") for name in lists]
    masks = masks_of(tmp_path / "VOCdevkit", train_list=lists, val_list=lists[:1])
    assert len(set(masks.train_dataset.names)) == 8


@pytest.mark.parametrize(
    ("names", "keys", "expected"),
    [
        (("person", "tv/monitor", "Potted Plant"), {}, VOC.names),
        (("person", "helmet"), {}, ("helmet", "person")),
        (("person", "helmet"), {"classes": ["person", "helmet", "vest"]}, ("person", "helmet", "vest")),
        (("person", "helmet"), {"ignored_classes": ["person"]}, ("helmet",)),
        ((), {}, VOC.names),
    ],
)
def test_classes_come_from_the_data_or_are_vocs(tmp_path, caplog, names, keys, expected):
    objects = [(name, 1 + k, 1, 20, 20) for k, name in enumerate(names)]
    module = boxes_of(one_picture(tmp_path, voc_xml(objects)), val_split="train", **keys)
    assert module.label_map.names == expected
    assert module.label_map.ids == tuple(range(1, len(expected) + 1))
    learnt = [module.label_map.names[k] for k in module.train_dataset[SampleKey(0, 0)]["labels"]]
    assert len(learnt) == len(names) - len(keys.get("ignored_classes", []))
    assert ("class names that VOC has not (helmet)" in caplog.text) == ("helmet" in names and "classes" not in keys)
    assert ("1 of 2 objects: of classes that are ignored" in caplog.text) == ("ignored_classes" in keys)


def test_both_splits_have_the_classes_of_both(tmp_path):
    tree = write_voc_tree(tmp_path, {"train": 2, "val": 2})
    write_text(tree / "Annotations/val_0.xml", voc_xml([("zebra", 1, 1, 9, 9)]))
    module = boxes_of(tree)
    assert "zebra" in module.label_map.names
    assert module.read_part("train", True).label_map == module.label_map


def test_a_split_without_xml_can_be_predicted_on_only(tmp_path):
    tree = write_voc_tree(tmp_path, {"train": 2, "val": 2, "test": 2})
    for file in tree.glob("Annotations/test*"):
        file.unlink()
    module = boxes_of(tree)
    loader = module.eval_dataloader("test")
    assert not loader.source.has_labels
    assert [batch["names"] for batch in loader] == [["JPEGImages/test_0.png"], ["JPEGImages/test_1.png"]]
    assert "unknown split 'tests'; did you mean 'test'?" in message(lambda: module.eval_dataloader("tests"))


@pytest.mark.parametrize("cache", ["raw", "compressed"])
def test_the_cache_changes_nothing(tmp_path, cache):
    tree = write_voc_tree(tmp_path)
    for read, key in ((boxes_of, "boxes"), (masks_of, "label")):
        plain, stored = read(tree), read(tree, cache=cache, cache_dir=str(tmp_path / "cache"))
        for k in range(4):
            one, other = plain.train_dataset[SampleKey(0, k)], stored.train_dataset[SampleKey(0, k)]
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one[key], other[key])


def test_masks_are_indices_with_borders_ignored(test_data):
    module = masks_of(test_data / "voc_from_coco", batch_size=2, crop_size=[64, 64])
    assert module.label_map == VOC_MASKS
    assert (len(module.train_dataset), len(module.val_dataset)) == (24, 16)
    for index in (0, 7):
        pair = module.val_dataset.pairs[index]
        stored = np.asarray(Image.open(pair.label))
        assert np.array_equal(module.val_dataset[SampleKey(0, index)]["label"].numpy(), stored)
    with Image.open(module.val_dataset.pairs[0].label) as mask:
        palette = np.array(mask.getpalette()).reshape(-1, 3)
    assert np.array_equal(palette[:21], VOC_MASKS.colors), "the classes are drawn in VOC's colours"
    counts = module.class_pixel_counts()
    assert counts[0] > counts[15] > counts[12] > 0


def test_labelmes_list_of_classes_is_taken(test_data, tmp_path):
    tree = tmp_path / "VOC2012"
    shutil.copytree(test_data / "voc_labelme_sample/VOCdevkit/VOC2012", tree)
    assert masks_of(tree).label_map == VOC_MASKS
    shutil.copy(test_data / "voc_labelme_sample/class_names.txt", tree)
    assert masks_of(tree).label_map.names[16] == "potted plant"
    (tree / "SegmentationClass").rename(tree / "SegmentationClassPNG")
    shutil.rmtree(tree / "ImageSets")
    assert (len(masks_of(tree, val_fraction=0.3).train_dataset)) == 2


def test_the_reader_of_xml_is_plain_about_what_it_reads(tmp_path):
    file = write_text(tmp_path / "a.xml", voc_xml([("tv  monitor", 3, 4, 10, 20, 1)], "a.jpg", (30, 50)))
    said = read_objects(file)
    assert (said.filename, said.size, said.names) == ("a.jpg", (30, 50), ("tv monitor",))
    assert said.difficult.tolist() == [True]
    assert said.boxes.tolist() == [[2, 3, 8, 17]]
