"""The store of decoded pictures: equal to the files, window by window, whatever happens to it."""

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from datamodules import CityscapesDataModule, CocoDataModule
from datamodules.store import store_folders
from datamodules.stored_picture import _HEADER, RawPicture, StripPicture, header_of, whole, write_picture
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.io import read_image
from tests.stores import pictures, store, stored_files, with_size
from tests.trees import label_path, write_cityscapes_tree, write_coco_tree, write_png

KINDS = ("raw", "compressed")


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "cityscapes"
    for split in ("train", "val"):
        write_cityscapes_tree(root, split, ("aachen",), count=6, size=(96, 160))
    return root


def datamodule(root, cache="none", **keys):
    usual = {"num_workers": 0, "batch_size": 2, "scale_range": [0.5, 2.0], "photometric": 0.5}
    return CityscapesDataModule(DataConfig(name="cityscapes", root=str(root), cache=cache, **{**usual, **keys}), 3)


def spoil(file, place=-7):
    data = bytearray(file.read_bytes())
    data[place] ^= 0x40
    file.write_bytes(data)


def opened(path, array, kind):
    path.parent.mkdir(exist_ok=True)
    write_picture(path, array, array.shape[:2], (1, 2), kind == "compressed")
    return RawPicture(path) if kind == "raw" else StripPicture(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 3), (63, 5, 3), (64, 64, 3), (200, 131, 3), (129, 77), (1, 300), (300, 1)])
def test_every_window_equals_the_pictures(tmp_path, kind, shape):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, shape, np.uint8)
    picture = opened(tmp_path / "file", array, kind)
    assert picture.shape == shape
    assert np.array_equal(whole(picture), array)
    for _ in range(60):
        top, left = (int(rng.integers(side)) for side in shape[:2])
        bottom, right = top + int(rng.integers(1, 150)), left + int(rng.integers(1, 150))
        assert np.array_equal(picture[top:bottom, left:right], array[top:bottom, left:right])
    assert np.array_equal(picture[::3, 1::2], array[::3, 1::2])
    assert picture[5:5, 0:9].size == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keys", [{"crop_size": [64, 64]}, {"crop_size": [80, 90], "image_size": [64, 100]}])
def test_a_batch_from_the_store_equals_the_batch_without(tree, kind, keys):
    plain, cached = datamodule(tree, **keys), datamodule(tree, kind, **keys)
    for loaders in ((m.train_dataloader() for m in (plain, cached)), (m.val_dataloader() for m in (plain, cached))):
        for wanted, batch in zip(*loaders, strict=True):
            assert batch["names"] == wanted["names"]
            assert batch["sizes"] == wanted["sizes"] == [(96, 160)] * len(batch["names"])
            assert torch.equal(batch["images"], wanted["images"])
            assert torch.equal(batch["labels"], wanted["labels"])


@pytest.fixture
def coco(tmp_path):
    for split in ("train2017", "val2017"):
        write_coco_tree(tmp_path / "coco", split, count=6)
    return tmp_path / "coco"


def coco_datamodule(root, cache="none", **keys):
    usual = {"num_workers": 0, "batch_size": 2, "image_size": [40, 60], "photometric": 0.5, "vertical_flip": 0.5}
    return CocoDataModule(DataConfig(name="coco", root=str(root), cache=cache, **{**usual, **keys}), 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("augment", ["none", "ssd_crop", "ssdlite", "ssd"])
def test_a_batch_of_boxes_from_the_store_equals_the_batch_without(coco, kind, augment):
    for size in ([40, 60], [32, 32]):  # of the pictures and another
        keys = {"augment": augment, "image_size": size}
        plain, cached = coco_datamodule(coco, **keys), coco_datamodule(coco, kind, **keys)
        for loaders in ((m.train_dataloader() for m in (plain, cached)), (m.val_dataloader() for m in (plain, cached))):
            for wanted, batch in zip(*loaders, strict=True):
                assert {key: batch[key] for key in ("names", "image_ids", "sizes")}.items() <= wanted.items()
                assert torch.equal(batch["images"], wanted["images"])
                for key in ("boxes", "labels"):
                    assert all(torch.equal(a, b) for a, b in zip(batch[key], wanted[key], strict=True))


def test_boxes_follow_pictures_that_are_stored_shrunk(coco):
    plain, cached = coco_datamodule(coco, photometric=0.0), coco_datamodule(coco, "raw", photometric=0.0, cache_side=20)
    for wanted, batch in zip(plain.train_dataloader(), cached.train_dataloader(), strict=True):
        assert batch["sizes"] == wanted["sizes"]
        assert (batch["images"].float() - wanted["images"].float()).abs().mean() < 10
        for a, b in zip(batch["boxes"], wanted["boxes"], strict=True):
            assert torch.allclose(a, b, atol=1e-3)
    assert {header_of(file).shape for file in stored_files(coco.with_name("coco.densevision_cache"))} == {
        (20, 30, 3),
        (40, 60, 3),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_without_the_files_that_are_stored(tree, kind):
    module = datamodule(tree, kind, crop_size=[64, 64])
    wanted = list(module.train_dataloader())
    for file in tree.rglob("*.png"):
        file.write_bytes(b"")
    for batch, before in zip(module.train_dataloader(), wanted, strict=True):
        assert torch.equal(batch["images"], before["images"])


def test_splits_without_labels_are_stored_too(tmp_path):
    write_cityscapes_tree(tmp_path / "data", "test", ("berlin",), count=2, annotations=None)
    (batch, _) = datamodule(tmp_path / "data", "raw").eval_dataloader("test")
    assert "labels" not in batch
    assert len(stored_files(tmp_path / "data.densevision_cache")) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_is_filled_once_and_follows_changes(tmp_path, kind):
    paths, read = pictures(tmp_path), []

    def counting(path):
        read.append(path.name)
        return with_size(path)

    store(tmp_path, kind).build(paths, "picture", counting)
    assert len(read) == len(set(read)) == 12
    store(tmp_path, kind).build(paths, "picture", counting)
    assert len(read) == 12
    os.utime(paths[3], (1, 1))
    write_png(Path(paths[5]), np.zeros((3, 4, 3), np.uint8))
    shelf = store(tmp_path, kind).build(paths, "picture", counting)
    assert sorted(read[12:]) == ["3.png", "5.png"]
    assert np.array_equal(whole(shelf[5][0]), np.zeros((3, 4, 3), np.uint8))
    assert shelf[5][1] == (3, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", ["flip", "header", "cut", "remove", "zero"])
def test_a_damaged_file_is_made_anew_and_said(tmp_path, caplog, kind, harm):
    paths = pictures(tmp_path, count=1)
    shelf = store(tmp_path, kind).build(paths, "picture", with_size)
    (file,) = stored_files(tmp_path / "store")
    good = file.read_bytes()
    if harm == "flip":
        spoil(file)
    elif harm == "header":
        spoil(file, 20)
    elif harm == "remove":
        file.unlink()
    else:
        file.write_bytes(b"" if harm == "zero" else good[: len(good) // 2])
    picture, size = shelf[0]
    assert np.array_equal(whole(picture), read_image(paths[0]))
    assert size == (70, 40)
    assert f"holds of {paths[0]} is gone or damaged" in caplog.text
    assert "stored anew" in caplog.text
    assert file.read_bytes() == good


@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_stops_a_run_or_changes_a_batch(tmp_path, kind):
    """All of the header, the index and the begin of the first strip, and some further on."""
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (130, 60, 3), np.uint8), (0, 0), 2)
    path = write_png(tmp_path / "data" / "0.png", image)
    shelf = store(tmp_path, kind).build([str(path)], "picture", with_size)
    (file,) = stored_files(tmp_path / "store")
    good = file.read_bytes()
    places = [*range(200), *np.random.default_rng(1).integers(200, len(good), 50).tolist()]
    for place, bit in ((place, bit) for place in places for bit in range(8)):
        data = bytearray(good)
        data[place] ^= 1 << bit
        file.write_bytes(data)
        shelf._compared[0] = 0  # as in a new run
        assert np.array_equal(whole(shelf[0][0]), image), (place, bit)
        unused = _HEADER.size + 4 <= place < 64 or file.read_bytes() == good
        assert unused, f"bit {bit} of byte {place} was not noticed"


def test_a_store_of_an_earlier_format_is_made_anew_and_said(tmp_path, capsys):
    paths = pictures(tmp_path, count=3)
    store(tmp_path, "compressed").build(paths, "picture", with_size)
    capsys.readouterr()
    files = stored_files(tmp_path / "store")
    good = [file.read_bytes() for file in files]
    for file, data in zip(files, good, strict=True):
        packed = b"DVSTORE2" + data[8 : _HEADER.size]
        file.write_bytes(packed + struct.pack("<I", zlib.crc32(packed)) + data[_HEADER.size + 4 :])
    store(tmp_path, "compressed").build(paths, "picture", with_size)
    assert [file.read_bytes() for file in files] == good
    assert capsys.readouterr().err.count("what is there is of another version's format") == 1
    store(tmp_path, "compressed").build(paths, "picture", with_size)
    assert capsys.readouterr().err == ""


def test_many_damaged_files_are_few_lines(tmp_path, caplog):
    paths = pictures(tmp_path)
    shelf = store(tmp_path).build(paths, "picture", with_size)
    for file in stored_files(tmp_path / "store"):
        spoil(file)
    assert all(np.array_equal(whole(shelf[k][0]), read_image(paths[k])) for k in range(12))
    assert len(caplog.records) == 2
    assert "(10 such pictures so far)" in caplog.text


def test_what_cannot_be_stored_anew_is_said(tmp_path, caplog):
    paths = pictures(tmp_path, count=1)
    shelf = store(tmp_path).build(paths, "picture", with_size)
    (file,) = stored_files(tmp_path / "store")
    file.unlink()
    file.parent.rmdir()
    file.parent.write_bytes(b"a file where the folder was")
    assert np.array_equal(whole(shelf[0][0]), read_image(paths[0]))
    assert "could not be stored anew (" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_data_sets_of_one_place_do_not_read_each_others_pictures(tmp_path, caplog, kind):
    paths = pictures(tmp_path, count=1)
    mine = store(tmp_path, kind).build(paths, "picture", with_size)
    wanted = whole(mine[0][0])
    write_png(Path(paths[0]), np.zeros((70, 40, 3), np.uint8))  # as on another machine, with the same store
    assert not whole(store(tmp_path, kind).build(paths, "picture", with_size)[0][0]).any()
    write_png(Path(paths[0]), wanted)
    assert np.array_equal(whole(mine[0][0]), wanted)
    assert "another data set that shares data.cache_dir" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_rows_of_a_window_are_read(tmp_path, kind):
    picture = opened(tmp_path / "file", np.random.default_rng(0).integers(0, 256, (640, 50, 3), np.uint8), kind)
    spoil(tmp_path / "file")  # the last rows
    assert picture[0:576, 10:20].shape == (576, 10, 3)
    with pytest.raises(Exception, match="checksum"):
        picture[570:640, 10:20]


def test_what_a_file_takes(tmp_path):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (256, 512, 3), np.uint8), (0, 0), 1.5)
    for kind in KINDS:
        opened(tmp_path / kind, image, kind)
    png = len(cv2.imencode(".png", image)[1])
    assert (tmp_path / "raw").stat().st_size == image.size + 64 + 4 * 52  # a checksum for 5 rows
    assert (tmp_path / "compressed").stat().st_size < 1.1 * png


def test_a_picture_that_cannot_be_read_stops_the_building_which_goes_on_later(tree):
    picture = sorted(tree.glob("leftImg8bit/train/*/*.png"))[4]
    good = picture.read_bytes()
    picture.write_bytes(good[:-20])
    with pytest.raises(UserError, match="is cut short"):
        datamodule(tree, "raw", crop_size=[64, 64]).setup()
    picture.write_bytes(good)
    datamodule(tree, "raw", crop_size=[64, 64]).setup()


def test_labels_are_checked_whole_though_windows_are_read(tree):
    file = label_path(sorted(tree.glob("leftImg8bit/train/*/*.png"))[0])
    write_png(file, np.full((96, 160), 77, np.uint8))
    with pytest.raises(UserError, match="holds the label id 77"):
        datamodule(tree, "compressed", crop_size=[64, 64]).setup()


def test_the_store_and_its_data_can_move_together(tree, tmp_path):
    datamodule(tree, "raw", crop_size=[64, 64]).setup()
    before = {file.name: file.stat().st_mtime_ns for file in stored_files(Path(f"{tree}.densevision_cache"))}
    assert len(before) == 24
    (tmp_path / "moved").mkdir()
    tree.rename(tmp_path / "moved" / "cityscapes")
    Path(f"{tree}.densevision_cache").rename(tmp_path / "moved" / "cityscapes.densevision_cache")
    datamodule(tmp_path / "moved" / "cityscapes", "raw", crop_size=[64, 64]).setup()
    after = stored_files(tmp_path / "moved" / "cityscapes.densevision_cache")
    assert before == {file.name: file.stat().st_mtime_ns for file in after}


def test_where_the_store_is(tmp_path, monkeypatch):
    root = tmp_path / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    mine, other = store_folders("/scratch", root)[0], store_folders("/scratch", tmp_path / "b" / "data")[0]
    assert mine.parent == other.parent == Path("/scratch")
    assert mine != other
    assert store_folders(None, root) == (
        tmp_path / "data.densevision_cache",
        tmp_path / "user" / "densevision" / mine.name,
    )
    root.mkdir()
    for there, named in ((tmp_path, "data"), (root, "."), (root, "../data")):
        monkeypatch.chdir(there)
        assert store_folders("/scratch", Path(named)) == (mine, None)
        assert store_folders(None, Path(named)) == store_folders(None, root)
    assert store_folders("/scratch", Path("/"))[0].name.startswith("root-")


@pytest.mark.parametrize("cache_dir", [None, "../cache"])
def test_the_root_may_be_the_working_directory(coco, monkeypatch, cache_dir):
    monkeypatch.chdir(coco)
    coco_datamodule(".", "raw", cache_dir=cache_dir).setup()
    (folder,) = coco.parent.glob("coco.densevision_cache" if cache_dir is None else "cache/coco-*")
    assert len(stored_files(folder)) == 12


def test_a_store_that_is_filled_is_used_though_it_cannot_be_written(tree, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    datamodule(tree, "raw", crop_size=[64, 64]).setup()
    (beside := Path(f"{tree}.densevision_cache") / "lock").unlink()
    beside.mkdir()  # so nothing can be added, by the superuser either
    datamodule(tree, "raw", crop_size=[64, 64]).setup()
    assert not (tmp_path / "user").exists()
    (picture, *_) = sorted(tree.glob("leftImg8bit/train/*/*.png"))
    os.utime(picture, (1, 1))
    datamodule(tree, "raw", crop_size=[64, 64]).setup()
    assert len(stored_files(next((tmp_path / "user" / "densevision").iterdir()))) == 6
    assert f"caching 6 pictures in {tmp_path / 'user'}" in capfd.readouterr().err


def test_where_it_is_filled_is_said(tree, capfd):
    datamodule(tree, "raw", crop_size=[64, 64]).setup()
    assert f"caching 6 pictures in {tree}.densevision_cache" in capfd.readouterr().err


def test_a_folder_that_cannot_be_written_is_a_sentence(tree, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot be written: Not a directory; set data\.cache_dir"):
        datamodule(tree, "raw", cache_dir=str(tmp_path / "file")).setup()
