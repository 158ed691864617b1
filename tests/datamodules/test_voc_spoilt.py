"""Spoilt VOC data: what cannot be meant is an error that names the file, what can be put right is, and is said."""

import shutil

import numpy as np
import pytest

from densevision.errors import UserError
from densevision.structures import SampleKey
from tests.datamodules.test_voc import boxes_of, masks_of, message, one_picture
from tests.trees import voc_xml, write_png, write_voc_tree


def box(**corners):
    values = {"xmin": 2, "ymin": 2, "xmax": 9, "ymax": 9, **corners}
    return voc_xml([("cat", values["xmin"], values["ymin"], values["xmax"], values["ymax"])])


BOMB = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        (voc_xml([("cat", 1, 1, 9, 9)])[:-30], "p.xml is not whole xml: unclosed token"),
        ("", "p.xml is empty (0 bytes)"),
        ("<html><body>404</body></html>", "p.xml is not VOC's format: it holds <html>"),
        ('{"a": 1}', "p.xml is not whole xml"),
        (BOMB + voc_xml([("&b;", 1, 1, 9, 9)]), "p.xml declares entities"),
        ('<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + voc_xml([("&a;", 1, 1, 9, 9)]), "declares"),
        (voc_xml([("&a;", 1, 1, 9, 9)]), "p.xml is not whole xml: undefined entity"),
        ('<?xml version="1.0" encoding="nonsense"?>' + voc_xml([]), "p.xml is not whole xml: unknown encoding"),
        (box(xmin="nan"), "p.xml, object 1 has the bndbox xmin 'nan', ymin '2'"),
        (box(ymax="inf"), "ymax 'inf'; four numbers of pixels are expected"),
        (box(ymax="1e300"), "four numbers of pixels are expected"),
        (box(xmin="ten"), "xmin 'ten'"),
        (box(xmin=""), "xmin ''"),
        (voc_xml([("cat", 1, 1, 9, 9), ("", 1, 1, 9, 9)]), "p.xml, object 2 has no name"),
        (voc_xml([("cat", 1, 1, 9, 9)]).replace("bndbox", "polygon"), "p.xml, object 1 has the bndbox xmin ''"),
        (box().replace("</bndbox>", "</bndbox><bndbox/>"), "p.xml, object 1 has 2 bndbox; one is expected"),
        (voc_xml([("cat", 1, 1, 9, 9, "perhaps")]), "p.xml, object 1 has the difficult 'perhaps'"),
    ],
)  # fmt: skip
def test_an_xml_that_cannot_be_meant_is_an_error(tmp_path, xml, says):
    assert says in message(lambda: boxes_of(one_picture(tmp_path, xml), val_split="train"))


@pytest.mark.parametrize(
    ("xml", "says", "left"),
    [
        (box(xmin=50, xmax=10), "less than a pixel wide or high, left out of training (in JPEGImages/p.png)", 0),
        (box(xmin=100, xmax=120), "1 of 1 boxes: wholly outside", 0),
        (box(xmax=90), "1 of 1 boxes: reaching beyond", 1),
        (voc_xml([("cat", 1, 1, 9, 9)], size=(60, 40)), "1 of 1 pictures looked at: of another size", 1),
        (voc_xml([("cat", 1, 1, 9, 9)], size=None), None, 1),
        (voc_xml([("cat", 1, 1, 9, 9)], size=("x", "-3")), None, 1),
        (voc_xml([("cat", 1, 1, 9, 9)], name="../../other.jpg"), "1 of 1 xml files: naming another picture", 1),
        (voc_xml([("cat", 1, 1, 9, 9)], name="p"), None, 1),
        ('<?xml version="1.0" encoding="utf-16"?>' + voc_xml([("cat", 1, 1, 9, 9)]), None, 1),
        (voc_xml([("cat", 1, 1, 9, 9, "")]), None, 1),
        (voc_xml([]), "0 boxes to learn from", 0),
    ],
)  # fmt: skip
def test_what_can_be_put_right_is_put_right_and_said(tmp_path, caplog, xml, says, left):
    root = one_picture(tmp_path, xml)
    if "utf-16" in xml:
        (root / "Annotations/p.xml").write_bytes(xml.encode("utf-16"))
    module = boxes_of(root, val_split="train")
    assert len(module.train_dataset[SampleKey(0, 0)]["boxes"]) == left
    assert (says in caplog.text) if says else not caplog.text


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("p\nq\n", "Annotations/q.xml does not exist (1 of 2 pictures have no xml file)"),
        ("../p\n", "train.txt: the name '../p' leads out of the folder of pictures"),
        ("/etc/passwd\n", "leads out of the folder"),
        ("p\0\n", "is one that no file can have"),
        (" \n", "train.txt lists no pictures"),
    ],
)
def test_a_list_that_cannot_be_meant_is_an_error(tmp_path, names, says):
    assert says in message(lambda: boxes_of(one_picture(tmp_path, box(), names), val_split="train"))


def test_a_name_listed_twice_counts_once_and_is_said(tmp_path, caplog):
    module = boxes_of(one_picture(tmp_path, box(), "p\np.png\n"), val_split="train")
    assert len(module.train_dataset) == 1
    assert "1 of 2 lines of" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "keys", "says"),
    [
        (lambda r: (r / "JPEGImages/p.png").unlink(), {}, "p.jpg does not exist: 1 of the 1 pictures"),
        (lambda r: shutil.copy(r / "JPEGImages/p.png", r / "JPEGImages/p.jpg"), {}, "have one name"),
        (lambda r: (r / "ImageSets/Main/train.txt").unlink(), {}, "unknown split 'train'"),
        (lambda r: shutil.rmtree(r / "ImageSets"), {"val_split": "val"}, "name lists of pictures in data.train_list"),
        (lambda r: None, {"train_list": "none.txt"}, "none.txt does not exist: it is to list the pictures"),
        (lambda r: None, {"train_list": 3}, "expected a text file below data.root"),
        (lambda r: None, {"images": "photos"}, "has no folder photos"),
        (lambda r: None, {"classes": ["cats", "dog"]}, "'cat', which data.classes does not list; did you mean 'cats'?"),
        (lambda r: shutil.rmtree(r), {}, None),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_tree_is_a_sentence(tmp_path, spoil, keys, says):
    root = one_picture(tmp_path / "data", box())
    spoil(root)
    if says is None:
        with pytest.raises(UserError, match=r"no VOC data set[\s\S]*host\.robots\.ox\.ac\.uk"):
            boxes_of(root)
        return
    assert says in message(lambda: boxes_of(root, **{"val_split": "train", **keys}))


def spoil_mask(write):
    return lambda tree: write(tree / "SegmentationClass/train_1.png")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_mask(lambda p: write_png(p, np.zeros((20, 30), np.uint8))), "train_1.png is 20x30"),
        (spoil_mask(lambda p: write_png(p, np.full((40, 60), 77, np.uint8))), "train_1.png holds the label id 77"),
        (spoil_mask(lambda p: write_png(p, np.full((40, 60, 3), 9, np.uint8))), "train_1.png holds RGB colours"),
        (spoil_mask(lambda p: p.write_bytes(p.read_bytes()[:90])), "train_1.png is cut short"),
        (spoil_mask(lambda p: p.unlink()), "train_1.png has no label: looked for"),
        (lambda tree: shutil.rmtree(tree / "SegmentationClass"), "has no folder SegmentationClassPNG or"),
        (lambda tree: (tree / "JPEGImages/train_1.png").unlink(), "train_1.jpg does not exist"),
    ],
)
def test_what_is_wrong_with_masks_is_a_sentence(tmp_path, spoil, says):
    tree = write_voc_tree(tmp_path)
    spoil(tree)
    assert says in message(lambda: list(masks_of(tree, crop_size=[32, 32]).train_dataloader()))
