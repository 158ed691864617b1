"""Pictures and masks in folders: every way to name them and to write classes."""

import shutil

import numpy as np
import pytest
from PIL import Image

from datamodules import FoldersDataModule
from datamodules.class_list import read_classes
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.structures import IGNORE_INDEX, SampleKey
from tests.trees import write_png

COLORS = ((0, 0, 0), (200, 30, 30), (30, 200, 30), (9, 9, 9))
LIST = "name,r,g,b\nbackground,0,0,0\ncell,200,30,30\nnucleus,30,200,30\nvoid,9,9,9\n"
NAMES = ["background", "cell", "nucleus", "void"]


def indices(seed, ignored=True):
    return np.random.default_rng(seed).integers(0, 4 if ignored else 3, (12, 16)).astype(np.uint8)


def write_mask(path, values, form):
    """As grey values, a palette, colours, or colours with transparency."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "grey":
        write_png(path, values)
    elif form == "palette":
        image = Image.fromarray(values, "P")
        image.putpalette(np.array(COLORS, np.uint8).ravel().tolist())
        image.save(path)
    else:
        colors = np.array(COLORS, np.uint8)[values]
        if form == "rgba":
            colors = np.dstack([colors, np.full(values.shape, 128, np.uint8)])
        Image.fromarray(colors).save(path)


def write_folders(root, form="grey", splits=("train", "val"), count=4):
    for number, split in enumerate(splits):
        for k in range(count):
            write_png(root / f"images/{split}/{k}.png", np.full((12, 16, 3), 20 * k, np.uint8))
            write_mask(root / f"masks/{split}/{k}.png", indices(10 * number + k), form)
    return root


def datamodule(root, **keys):
    usual = {"num_workers": 0, "batch_size": 2, "flip": 0.0, "classes": NAMES, "ignored_classes": ["void"]}
    return FoldersDataModule(DataConfig(name="folders", root=str(root), **{**usual, **keys}))


def message(action):
    with pytest.raises(UserError) as error:
        action()
    return str(error.value)


def expected(values):
    return np.where(values == 3, IGNORE_INDEX, values)


@pytest.mark.parametrize("form", ["grey", "palette"])
def test_values_are_read_by_a_list_of_names(tmp_path, form):
    module = datamodule(write_folders(tmp_path, form))
    module.setup()
    assert module.label_map.names == ("background", "cell", "nucleus")
    assert len(set(module.label_map.colors)) == 3
    sample = module.val_dataset[SampleKey(0, 1)]
    assert np.array_equal(sample["label"], expected(indices(11)))


@pytest.mark.parametrize("form", ["grey", "palette", "rgb", "rgba"])
@pytest.mark.parametrize("cache", ["none", "raw", "compressed"])
def test_colours_are_read_by_a_colour_map(tmp_path, form, cache):
    write_folders(tmp_path / "data", form)
    (tmp_path / "data" / "classes.txt").write_text(LIST)
    module = datamodule(tmp_path / "data", classes="classes.txt", cache=cache)
    module.setup()
    assert module.label_map.colors == COLORS[:3]
    for index in range(4):
        sample = module.train_dataset[SampleKey(0, index)]
        assert np.array_equal(sample["label"], expected(indices(index)))
        assert (sample["image"] == 20 * index).all()


def write_grey(root, text, *masks, form="L"):
    """A data set with one split of grey masks of these values, and a colour map."""
    (root / "masks/train").mkdir(parents=True)
    (root / "classes.txt").write_text(text)
    for k, values in enumerate(masks):
        write_png(root / f"images/train/{k}.png", np.zeros((1, len(values), 3), np.uint8))
        image = Image.fromarray(np.array([values], np.uint8))
        image.convert("1", dither=0).save(root / f"masks/train/{k}.png") if form == "1" else image.save(
            root / f"masks/train/{k}.png"
        )
    return datamodule(root, classes="classes.txt", val_split="train", ignored_classes=[])


MIXED = "soil,0,0,0\nplant,200,30,30\nsky,100,100,100\n"


@pytest.mark.parametrize(
    ("text", "values", "form", "wanted", "note"),
    [
        # all colours are grey: the values are colours
        ("soil,0,0,0\nplant,255,255,255\n", [0, 255, 255], "L", [0, 1, 1], "are the classes' colours"),
        ("plant,255,255,255\nsoil,0,0,0\n", [0, 255, 255], "L", [1, 0, 0], "are the classes' colours"),
        ("plant,255,255,255\nsoil,0,0,0\n", [0, 255, 255], "1", [1, 0, 0], "are the classes' colours"),
        ("soil,0,0,0\nplant,128,128,128\n", [0, 128, 255], "L", [0, 1, 255], "are the classes' colours"),
        # unless they are no colours and all are numbers
        ("soil,0,0,0\nplant,255,255,255\n", [0, 1, 1], "L", [0, 1, 1], "are numbers of classes"),
        # some colours are not grey: the values are numbers
        (MIXED, [0, 1, 2, 255], "L", [0, 1, 2, 255], "are numbers of classes"),
        (MIXED.replace("100", "255"), [0, 1, 2, 255], "L", [0, 1, 2, 255], "are numbers of classes"),
        # unless they are no numbers and all are colours
        (MIXED, [0, 100, 0], "L", [0, 2, 0], "are the classes' colours"),
    ],
)
def test_grey_masks_with_a_colour_map_hold_colours_or_numbers(tmp_path, text, values, form, wanted, note):
    module = write_grey(tmp_path, text, values, form=form)
    report = module.check()
    assert any(f"grey masks, whose values {note}" in said for said in report.splits["train"].notes)
    assert module.read_split("train", False)[SampleKey(0, 0)]["label"].tolist() == [wanted]


@pytest.mark.parametrize(
    ("text", "values", "says"),
    [
        ("soil,0,0,0\nplant,255,255,255\n", [0, 7, 255], "0.png holds the colours (7, 7, 7) at 1 pixels"),
        (MIXED, [0, 1, 100], "0.png holds the label id 100; known ids are 0..2"),
    ],
)
def test_a_grey_that_is_neither_a_colour_nor_a_number_is_an_error(tmp_path, text, values, says):
    (said,) = write_grey(tmp_path, text, values).check().splits["train"].errors
    assert says in said


def test_classes_that_no_mask_shows_are_noted(tmp_path):
    text = "soil,0,0,0\nplant,1,1,1\nsky,2,2,2\n"
    report = write_grey(tmp_path, text, [0, 0], [0, 255]).check()
    assert report.splits["train"].notes["classes without a single labelled pixel (plant, sky)"] == 2


def test_what_is_left_out_is_counted_and_said(tmp_path, caplog):
    write_folders(tmp_path)
    (tmp_path / "images/train/1.png").unlink()
    (tmp_path / "images/train/9.heic").write_bytes(b"x")
    Image.fromarray(indices(2)).save(tmp_path / "masks/train/2.bmp")
    notes = datamodule(tmp_path).check().splits["train"].notes
    masks, images = tmp_path / "masks/train", tmp_path / "images/train"
    wanted = {
        f"of 4 masks in {masks}: without a picture, left out (1.png)",
        f"masks in {masks}: of one name with another, left out (2.bmp)",
        f"of 4 files in {images}: no pictures by name, left out (9.heic)",
    }
    assert wanted <= {note for note, count in notes.items() if count == 1}
    datamodule(tmp_path).setup()
    assert all(note in caplog.text for note in wanted)
    assert len(caplog.records) == 3


def test_masks_of_both_splits_in_one_folder_are_not_left_out(tmp_path, caplog):
    write_folders(tmp_path / "own")
    for split in ("train", "val"):
        for k in range(4):
            write_png(tmp_path / f"images/{split}/{split}{k}.png", np.zeros((12, 16, 3), np.uint8))
            write_mask(tmp_path / f"masks/{split}{k}.png", indices(k), "grey")
    datamodule(tmp_path, masks="masks").setup()
    assert not caplog.records


def test_another_colour_map_is_another_meaning(tmp_path):
    """Of the same files and the same values: what is cached for one must not serve the other."""
    write_folders(tmp_path / "data", "rgb")
    seen = []
    for text in (
        LIST,
        LIST.replace("200,30,30", "0,0,1").replace("30,200,30", "200,30,30").replace("0,0,1", "30,200,30"),
    ):
        (tmp_path / "data" / "classes.txt").write_text(text)
        module = datamodule(tmp_path / "data", classes="classes.txt", cache="raw")
        module.setup()
        seen.append(module.val_dataset[SampleKey(0, 0)]["label"].numpy())
    swapped = np.array([0, 2, 1, IGNORE_INDEX])
    assert np.array_equal(swapped[indices(10)], seen[1])
    assert np.array_equal(expected(indices(10)), seen[0])


def test_values_may_be_given(tmp_path):
    write_folders(tmp_path)
    for split in ("train", "val"):
        for k in range(4):
            write_mask(tmp_path / f"masks/{split}/{k}.png", (indices(k) * 50).astype(np.uint8), "grey")
    (tmp_path / "labels.csv").write_text("# mine\nbackground,0\ncell,50\n\nnucleus\t100\nvoid,150\n")
    module = datamodule(tmp_path, classes="labels.csv")
    module.setup()
    assert module.label_map.ids == (0, 50, 100)
    assert np.array_equal(module.train_dataset[SampleKey(0, 2)]["label"], expected(indices(2)))


@pytest.mark.parametrize(
    ("images", "masks", "suffix", "layout"),
    [
        ("{split}/images", "{split}/masks", "", "{split}/{kind}/{k}.png"),
        ("{split}", "{split}", "_mask", "{split}/{k}{mask}.png"),
        ("{split}", "{split}/masks", "", "{split}/{kind:.0}{inside}{k}.png"),
        ("pictures/{split}", "annotations/{split}", "_seg", "{folder}/{split}/sub/{k}{seg}.png"),
    ],
)
def test_folders_may_lie_as_they_like(tmp_path, images, masks, suffix, layout):
    write_folders(tmp_path / "own")
    for split in ("train", "val"):
        for k in range(4):
            for kind in ("images", "masks"):
                mask = kind == "masks"
                place = layout.format(
                    split=split, k=k, kind=kind, mask="_mask" * mask, inside="masks/" * mask, seg="_seg" * mask,
                    folder="annotations" if mask else "pictures",
                )  # fmt: skip
                (tmp_path / "new" / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(tmp_path / "own" / kind / split / f"{k}.png", tmp_path / "new" / place)
    module = datamodule(tmp_path / "new", images=images, masks=masks, mask_suffix=suffix)
    module.setup()
    assert len(module.train_dataset) == len(module.val_dataset) == 4
    assert len(set(module.train_dataset.names)) == 4
    assert np.array_equal(module.val_dataset[SampleKey(0, 3)]["label"], expected(indices(13)))


def test_one_folder_is_divided_by_a_seed(tmp_path):
    write_folders(tmp_path, splits=("all",), count=10)
    keys = {"images": "images/all", "masks": "masks/all"}
    assert "hold some pictures out" in message(datamodule(tmp_path, **keys).setup)
    module = datamodule(tmp_path, **keys, val_fraction=0.3)
    module.setup()
    assert (len(module.train_dataset), len(module.val_dataset)) == (7, 3)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda root: (root / "masks/train/2.png").unlink(), "2.png has no label: looked for"),
        (lambda root: shutil.rmtree(root / "images/val"), "no folder"),
        (lambda root: write_mask(root / "masks/train/0.png", np.full((12, 16), 7, np.uint8), "grey"), "label id 7"),
        (
            lambda root: Image.new("RGB", (16, 12), (1, 2, 3)).save(root / "masks/train/0.png"),
            "colours (1, 2, 3) at 192",
        ),
        (lambda root: Image.new("RGB", (16, 12)).save(root / "masks/train/0.png", "JPEG"), "is a JPEG"),
        (lambda root: (root / "masks/train/0.png").write_bytes(b"<html>"), "is not an image"),
        (lambda root: shutil.copy(root / "images/train/0.png", root / "images/train/0.jpg"), "have one name"),
    ],
)
def test_what_is_wrong_with_the_files_is_a_sentence(tmp_path, spoil, says):
    write_folders(tmp_path, "rgb")
    (tmp_path / "classes.txt").write_text(LIST)
    spoil(tmp_path)
    assert says in message(lambda: list(datamodule(tmp_path, classes="classes.txt").train_dataloader()))


@pytest.mark.parametrize(
    ("classes", "ignored", "says"),
    [
        ("none.txt", [], "lists the classes: a line is 'name', 'name, value'"),
        ("a\nb\na", [], "names the class 'a' twice"),
        ("a,1\nb,1", [], "the same value"),
        ("a,1,1,1\nb,1,1,1", [], "the same colour"),
        ("a,1\nb", [], "the same for all"),
        ("a,300", [], "expected a number from 0 to 255, got '300'"),
        ("", [], "lists no classes"),
        ("a\n,1", [], "classes.txt, line 2: ',1' has no name"),
        ("a\n\nb\0c", [], "classes.txt, line 3: 'b\\x00c' has no name that can be printed"),
        ('a\n"b\nc', [], "classes.txt, line 2: '\"b' cannot be read"),
        ("a\n" + "b" * 200_000, [], "classes.txt, line 2: "),
        ("a\nb\udce9b\nc", [], "classes.txt, line 2: b'b\\xe9b' is no text in UTF-8"),
        ("a,99999999999999999999999999", [], "expected a number from 0 to 255"),
        ("a\nb", ["c"], "unknown class 'c'"),
        ("a", ["a"], "lists 0 classes"),
        (3, [], "expected a list of names or a text file"),
        (["a", "a"], [], "data.classes names the class 'a' twice"),
    ],
)
def test_what_is_wrong_with_the_classes_is_a_sentence(tmp_path, classes, ignored, says):
    if isinstance(classes, str) and not classes.endswith(".txt"):
        (tmp_path / "classes.txt").write_text(classes, errors="surrogateescape")
        classes = "classes.txt"
    assert says in message(lambda: read_classes(classes, tmp_path, ignored))


def test_the_voc_palette_is_read_as_indices(test_data):
    classes = ["background", *(f"class {k}" for k in range(1, 21))]
    root = test_data / "voc_from_coco/VOCdevkit/VOC2012"
    keys = {"images": "JPEGImages", "masks": "SegmentationClass", "val_fraction": 0.25, "ignored_classes": []}
    module = datamodule(root, classes=classes, **keys)
    module.setup()
    pair = module.val_dataset.pairs[0]
    assert np.array_equal(module.val_dataset.read_indices(pair.label), np.asarray(Image.open(pair.label)))
    assert (len(module.train_dataset), len(module.val_dataset)) == (30, 10)
