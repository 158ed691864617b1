"""Reading pictures: every kind there is, and what is none."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from densevision.errors import UserError
from densevision.io import (
    atomic_write,
    exif_orientation,
    list_images,
    read_image,
    read_label,
    resize_image,
    resize_label,
    stored_size,
    write_json,
    write_png,
)
from tests.pictures import png_of, save


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_lossless_formats_come_back_as_they_were(tmp_path, picture, suffix):
    path = save(tmp_path / f"a{suffix}", picture, **({"lossless": True} if suffix == ".webp" else {}))
    assert np.array_equal(read_image(path), picture)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_grey_becomes_three_equal_channels(tmp_path, picture, suffix):
    image = read_image(save(tmp_path / f"a{suffix}", picture, "L"))
    assert image.shape == picture.shape
    assert (image == image[..., :1]).all()


def test_alpha_is_dropped(tmp_path, picture):
    alpha = np.full((*picture.shape[:2], 1), 7, np.uint8)
    assert np.array_equal(read_image(save(tmp_path / "a.png", np.concatenate([picture, alpha], 2), "RGBA")), picture)


@pytest.mark.parametrize("transparency", [None, 3])
def test_palette_pictures_give_colours_and_palette_labels_give_indices(tmp_path, picture, transparency):
    image = Image.fromarray(picture).quantize(200)
    indices, colours = np.asarray(image), np.asarray(image.convert("RGB"))
    image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    assert np.array_equal(read_image(tmp_path / "a.png"), colours)
    assert np.array_equal(read_label(tmp_path / "a.png"), indices)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_keep_the_upper_8(tmp_path, suffix):
    values = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    assert np.abs(read_image(tmp_path / f"a{suffix}")[..., 0] - (values / 257)).max() < 1.01


def test_cmyk_becomes_rgb(tmp_path, picture):
    image = read_image(save(tmp_path / "a.jpg", picture, "CMYK", quality=95))
    assert np.abs(image.astype(int) - picture).mean() < 6


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_ignored_in_every_format(tmp_path, picture, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a{suffix}", picture, exif=exif, **({"quality": 98} if suffix == ".jpg" else {}))
    assert exif_orientation(path) == orientation
    assert read_image(path).shape == picture.shape
    assert np.abs(read_image(path).astype(int) - picture).mean() < 3


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_labels_of_few_bits_are_class_numbers(tmp_path, bits):
    label = (np.arange(64).reshape(8, 8) % 2**bits).astype(np.uint8)
    rows = np.packbits(np.unpackbits(label[..., None], axis=2)[..., -bits:].reshape(8, -1), axis=1)
    data = png_of(label.shape, bits, 0, b"".join(b"\0" + row.tobytes() for row in rows))
    (tmp_path / "a.png").write_bytes(data)
    assert np.array_equal(read_label(tmp_path / "a.png"), label)


@pytest.mark.parametrize(
    ("name", "mode", "says"), [("a.png", "RGB", "RGB colours"), ("a.png", "I;16", "16-bit"), ("a.jpg", "L", "JPEG")]
)
def test_labels_that_are_no_class_numbers_are_refused(tmp_path, picture, name, mode, says):
    array = picture[..., 0].astype(np.uint16) * 200 if mode == "I;16" else picture
    path = save(tmp_path / name, array, mode)
    with pytest.raises(UserError, match=says) as error:
        read_label(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "not an image"),
        (b"\xff\xd8\xff\xe0", "cut short|not an image"),
        (None, "not exist"),
    ],
)
@pytest.mark.parametrize("read", [read_image, read_label])
def test_what_is_no_picture_is_told_in_a_sentence(tmp_path, content, says, read):
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PPM", "ICO", "TGA"])
def test_formats_that_are_not_meant_are_not_tried(tmp_path, picture, kind, monkeypatch):
    """PostScript would be drawn by a program, if one is there: by this one."""
    called = tmp_path / "called"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {called}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    Image.fromarray(picture).save(tmp_path / "a.jpg", kind)
    for read in (read_image, read_label):
        with pytest.raises(UserError, match=r"a\.jpg is not an image of a kind that can be read \(BMP, GIF, JPEG"):
            read(tmp_path / "a.jpg")
    assert stored_size(tmp_path / "a.jpg") is None
    assert exif_orientation(tmp_path / "a.jpg") == 1
    assert not called.exists()


def test_a_camera_s_several_pictures_in_a_jpeg_are_its_first(tmp_path, picture):
    other = Image.fromarray(picture[::-1])
    Image.fromarray(picture).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[other], quality=98)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - picture).mean() < 3
    assert stored_size(tmp_path / "a.jpg") == (48, 64)
    with pytest.raises(UserError, match="is a JPEG"):
        read_label(tmp_path / "a.jpg")


@pytest.mark.parametrize(("dtype", "says"), [(np.float32, "floating-point"), (np.int32, "32-bit")])
def test_values_without_a_white_are_refused(tmp_path, dtype, says):
    Image.fromarray(np.linspace(0, 60000, 48 * 64).reshape(48, 64).astype(dtype)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match=says):
        read_image(tmp_path / "a.tiff")


IMAGES = {  # case -> (shape) or what the error says
    "images/truncated.jpg": "cut short",
    "images/zero_byte.jpg": "empty",
    "images/gray.jpg": (240, 320, 3),
    "images/rgba.png": (240, 320, 3),
    "images/exif_orient6.jpg": (320, 240, 3),
    "images/one_by_one.png": (1, 1, 3),
    "images/palette_transparent.png": (240, 320, 3),
    "images/webpage.jpg": "not an image",
    "images/näme with spåce (1).jpg": (240, 320, 3),
}


@pytest.mark.parametrize("case", IMAGES)
def test_nasty_pictures(test_data, case):
    path = test_data / "nasty" / case
    if isinstance(IMAGES[case], str):
        with pytest.raises(UserError, match=IMAGES[case]) as error:
            read_image(path)
        assert path.name in str(error.value)
    else:
        image = read_image(path)
        assert (image.shape, image.dtype) == (IMAGES[case], np.uint8)


def test_every_nasty_picture_has_its_test(test_data):
    cases = json.loads((test_data / "nasty" / "cases.json").read_text(encoding="utf-8"))
    told = {c["path"]: c["expect"] for c in cases if c["path"].startswith("images/")}
    assert told == {case: "error" if isinstance(wanted, str) else "ok" for case, wanted in IMAGES.items()}


def test_list_images_takes_files_and_folders(tmp_path, picture):
    for name in ("b.JPG", "a.png", "._a.png", "notes.txt"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    other = save(tmp_path / "z.png", picture)
    assert [p.name for p in list_images([other, tmp_path / "in"])] == ["z.png", "a.png", "b.JPG"]
    with pytest.raises(UserError, match="does not exist"):
        list_images([tmp_path / "none"])
    (tmp_path / "link.png").symlink_to("none")  # of one among many, say
    assert list_images([tmp_path / "link.png"]) == [tmp_path / "link.png"]
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        list_images([tmp_path / "bare"])


@pytest.mark.parametrize("size", [(1, 1), (24, 32), (48, 64), (96, 20)])
def test_resizing_gives_the_size_asked_for(picture, size):
    assert resize_image(picture, size).shape == (*size, 3)
    assert resize_label(picture[..., 0], size).shape == size
    assert resize_image(picture[:1, :1], size).shape == (*size, 3)


def test_shrinking_averages(picture):
    blocks = picture.reshape(24, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(resize_image(picture, (24, 32)) - blocks).max() <= 0.5


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(ZeroDivisionError), atomic_write(path) as partial:
        print("half", 1 / 0, file=partial.open("w"))
    assert json.loads(path.read_text()) == {"x": 1}
    assert list(path.parent.iterdir()) == [path]


def test_json_is_strict(tmp_path):
    write_json(tmp_path / "a.json", {"nan": float("nan"), "array": np.array([1, 2]), "number": np.float64(0.5), 3: "é"})
    stored = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert stored == {"nan": None, "array": [1, 2], "number": 0.5, "3": "é"}


def test_png_round_trip(tmp_path, picture):
    write_png(tmp_path / "a.png", picture)
    write_png(tmp_path / "b.png", picture[..., 0])
    assert np.array_equal(read_image(tmp_path / "a.png"), picture)
    assert np.array_equal(read_label(tmp_path / "b.png"), picture[..., 0])
