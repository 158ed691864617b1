"""Reading pictures: every kind there is, and every way in which a file can be spoilt."""

import io
import json
import struct
import zlib

import cv2
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
    write_json,
    write_png,
)


@pytest.fixture(scope="module")
def picture():
    """A smooth (48, 64, 3) picture without a flat spot."""
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(30, 220, (6, 8, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)


def save(path, picture, mode="RGB", **options):
    Image.fromarray(picture).convert(mode).save(path, **options)
    return path


def encoded(picture, kind):
    stream = io.BytesIO()
    if kind == "png":
        Image.fromarray(picture).save(stream, "PNG")
    else:
        Image.fromarray(picture).save(stream, "JPEG", quality=90, progressive=kind == "progressive jpeg")
    return stream.getvalue()


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
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        (b"IEND", b""),
    ]
    data = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
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


@pytest.mark.parametrize(("dtype", "says"), [(np.float32, "floating-point"), (np.int32, "32-bit")])
def test_values_without_a_white_are_refused(tmp_path, dtype, says):
    Image.fromarray(np.linspace(0, 60000, 48 * 64).reshape(48, 64).astype(dtype)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match=says):
        read_image(tmp_path / "a.tiff")


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
    palette = [(b"PLTE", bytes(768))] if kind == "P" else []
    color = {"L": 0, "RGB": 2, "P": 3}[kind]
    path = tmp_path / "a.png"
    for end, whole in ((len(rows), not interlaced), (len(rows) // 2, False), (0, False)):
        chunks = [
            (b"IHDR", struct.pack(">IIBBBBB", 64, 48, 8, color, 0, 0, interlaced)),
            *palette,
            (b"IDAT", zlib.compress(rows[:end])),
            (b"IEND", b""),
        ]
        data = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
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
