"""Files that do not hold their whole picture: cut, flipped, with rows, scans or colours missing."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from densevision.errors import UserError
from densevision.io import read_image, read_label
from tests.pictures import encoded, png_of, save


@pytest.mark.parametrize("kind", ["png", "bmp"])
def test_a_picture_that_claims_to_be_gigantic_is_refused_before_it_is_decoded(tmp_path, picture, kind):
    path = tmp_path / f"a.{kind}"
    save(path, picture)
    data = bytearray(path.read_bytes())
    if kind == "png":
        struct.pack_into(">II", data, 16, 60000, 60000)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    else:
        struct.pack_into("<ii", data, 18, 60000, 60000)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"million|too large"):
        read_image(path)


@pytest.mark.parametrize("kind", ["png", "jpeg", "progressive jpeg"])
def test_a_truncated_file_is_always_an_error(tmp_path, picture, kind):
    data, path = encoded(picture, kind), tmp_path / "a.img"
    rng = np.random.default_rng(1)
    for end in [1, 2, len(data) - 1, *rng.integers(3, len(data), 50)]:
        path.write_bytes(data[:end])
        with pytest.raises(UserError, match=path.name):
            read_image(path)


@pytest.mark.parametrize("kind", ["png", "jpeg", "progressive jpeg"])
def test_flipped_bytes_end_in_a_picture_of_the_right_shape_or_a_sentence(tmp_path, picture, kind):
    data, path = encoded(picture, kind), tmp_path / "a.img"
    rng = np.random.default_rng(2)
    good = errors = 0
    for _ in range(50):
        spoilt = bytearray(data)
        spoilt[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        path.write_bytes(spoilt)
        try:
            image = read_image(path)
        except UserError as error:
            errors += path.name in str(error)
        else:
            good += image.shape == picture.shape and image.dtype == np.uint8
    assert good + errors == 50
    if kind == "png":  # every byte of a PNG is checksummed
        assert errors == 50


def test_a_jpeg_whose_data_ends_early_is_not_filled_with_grey(tmp_path, picture):
    data, path = encoded(picture, "jpeg"), tmp_path / "a.jpg"
    path.write_bytes(data[: len(data) * 2 // 3] + b"\xff\xd9")
    with pytest.raises(UserError, match="damaged"):
        read_image(path)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_is_cut_and_closed_is_damaged(tmp_path, picture, mode, share, options):
    path = save(tmp_path / "a.jpg", picture, mode, quality=95, **options)
    data = path.read_bytes()
    assert read_image(path).shape == picture.shape
    begun = data.index(b"\xff\xda") + 14
    path.write_bytes(data[: begun + int(share * (len(data) - begun))].rstrip(b"\xff") + b"\xff\xd9")
    with pytest.raises(UserError, match=r"a\.jpg is (damaged|cut short)"):
        read_image(path)


def test_a_hole_between_the_restart_markers_of_a_jpeg_is_damage(tmp_path, picture):
    path = save(tmp_path / "a.jpg", picture, quality=95, restart_marker_rows=1)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\xff\xd0") + 10] + data[data.index(b"\xff\xd1") - 10 :])
    with pytest.raises(UserError, match=r"a\.jpg is damaged"):
        read_image(path)


def test_scans_that_a_progressive_jpeg_lacks_are_damage(tmp_path, picture):
    path = save(tmp_path / "a.jpg", picture, progressive=True)
    data = path.read_bytes()
    scans = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for start in scans[1:]:
        tables = data.rfind(b"\xff\xc4", 0, start)  # come before their scan
        path.write_bytes(data[:tables] + b"\xff\xd9")
        with pytest.raises(UserError, match=r"its last scans are missing|is damaged"):
            read_image(path)


@pytest.mark.parametrize("kind", ["RGB", "L", "P"])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_with_too_few_rows_is_cut_short(tmp_path, picture, kind, interlaced):
    channels = 3 if kind == "RGB" else 1
    rows = b"".join(b"\0" + row.tobytes() for row in np.resize(picture, (48, 64 * channels)))
    palette = bytes(768) if kind == "P" else None
    color = {"L": 0, "RGB": 2, "P": 3}[kind]
    path = tmp_path / "a.png"
    for end, whole in ((len(rows), not interlaced), (len(rows) // 2, False), (0, False)):
        path.write_bytes(png_of((48, 64), 8, color, rows[:end], palette, interlaced))
        for read in (read_image,) if kind == "RGB" else (read_image, read_label):
            if whole:
                assert read(path).shape[:2] == (48, 64)
            else:
                with pytest.raises(UserError, match=r"a\.png is cut short"):
                    read(path)


def camera_quirk(kind, data):
    """A JPEG as some cameras and programs write it; libjpeg warns of it, and the pixels are the same."""
    data = bytearray(data)
    if kind == "spectrum":
        data[data.index(b"\xff\xda") + 12] = 10
    else:
        data[data.index(b"JFIF\0") + 5] = 4
    return bytes(data)


@pytest.mark.parametrize("kind", ["spectrum", "version"])
def test_what_libjpeg_warns_of_without_harm_is_fine_and_hides_no_damage(tmp_path, picture, kind):
    path = save(tmp_path / "a.jpg", picture, quality=95)
    wanted, data = read_image(path), camera_quirk(kind, path.read_bytes())
    path.write_bytes(data)
    assert np.array_equal(read_image(path), wanted)
    scan = data.index(b"\xff\xda")
    path.write_bytes(data[: (scan + len(data)) // 2] + b"\xff\xd9")
    with pytest.raises(UserError, match=r"a\.jpg is (damaged|cut short)"):
        read_image(path)


def test_a_jpeg_that_ends_in_honest_grey_is_fine(tmp_path, picture):
    padded = np.full((64, 64, 3), 128, np.uint8)
    padded[:48] = picture
    path = save(tmp_path / "a.jpg", padded, quality=95)
    assert read_image(path).shape == (64, 64, 3)


def test_a_jpeg_with_a_tail_of_other_data_is_fine(tmp_path, picture):
    path = save(tmp_path / "a.jpg", picture)
    whole = read_image(path)
    path.write_bytes(path.read_bytes() + b"a phone's own data \xff\xd9\xff\xff")
    assert np.array_equal(read_image(path), whole)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("colors", [0, 1, 3])
def test_a_palette_that_ends_before_its_numbers_is_damage_but_for_a_label(tmp_path, bits, colors):
    """The picture has pixels without a colour; a label map has no use for colours."""
    label = (np.arange(64).reshape(8, 8) % 4).astype(np.uint8)
    rows = np.packbits(np.unpackbits(label[..., None], axis=2)[..., -bits:].reshape(8, -1), axis=1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    path = tmp_path / "a.png"
    path.write_bytes(png_of((8, 8), bits, 3, data, bytes(range(3 * colors)) if colors else None))
    with pytest.raises(UserError, match=r"a\.png is damaged"):
        read_image(path)
    assert np.array_equal(read_label(path), label)
    path.write_bytes(png_of((8, 8), bits, 3, data, bytes(range(12))))
    assert np.array_equal(read_image(path)[..., 1], 3 * label + 1)


def test_a_bmp_whose_palette_is_too_short_is_damage(tmp_path):
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8), "P")
    image.putpalette(bytes(range(192)))
    image.save(tmp_path / "a.bmp")
    assert read_image(tmp_path / "a.bmp").shape == (8, 8, 3)
    data = bytearray((tmp_path / "a.bmp").read_bytes())
    data[-64] = 200
    (tmp_path / "a.bmp").write_bytes(data)
    with pytest.raises(UserError, match="number 200 of a palette of 64 colours"):
        read_image(tmp_path / "a.bmp")
