"""Pictures, label maps and small files: the one way in and the one way out.

The rules for a picture, the same in training, evaluation and prediction:

- It becomes (H, W, 3) uint8 RGB: grey is repeated, 16 bits keep the upper 8, palettes and CMYK are converted, and
  transparency is dropped (the stored colours count, on no background).
- **Pixels are taken as stored; an EXIF orientation is ignored.** Boxes and labels refer to stored pixels, so does
  every prediction, and one that turned the picture would not match them. :func:`exif_orientation` tells.
- The format is what the file holds, whatever it is called: BMP, GIF, JPEG, PNG, TIFF or WebP.
- A file that does not hold its whole picture is an error. Decoders fill the missing part with grey and go on, so
  the structure of PNG and JPEG files is checked before they are decoded, and what libjpeg warns of is an error.
  Nothing tells of damage to a JPEG (or a format without checksums) after which it can be decoded to its end.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from densevision.damage import JPEG, PNG, check_jpeg, check_pixels, check_png, check_png_rows
from densevision.errors import UserError
from densevision.jpeg import decode_jpeg
from densevision.paths import is_folder, is_there, names_in
from densevision.pillow import decode_any, load_as_stored, open_picture, sentences

IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_PARTIAL = ".partial"  # in the names of files that are being written


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture of any kind as (H, W, 3) uint8 RGB, by the rules above.

    Raises:
        UserError: missing, empty, unreadable, not a picture, damaged or cut short, or more than MAX_PIXELS.
    """
    path = Path(path)
    data = _read_bytes(path)
    if data.startswith(PNG):
        depth, color, palette = check_png(path, data)
        # OpenCV makes up colours for indices that the palette ends before
        image = None if color == 3 and palette < 2**depth else _decode(data)
    elif data.startswith(JPEG):
        image = decode_jpeg(path, data, check_jpeg(path, data))
    else:
        image = None
    return decode_any(path, data) if image is None else image


def read_label(path: str | Path) -> np.ndarray:
    """Read a label map as (H, W) uint8: the values of a grey file, the indices (not the colours) of a palette file.

    The palette may be too short for them: nothing of it is used.

    Raises:
        UserError: as :func:`read_image`, or the file holds colours, 16 bits or JPEG's approximate values.
    """
    path = Path(path)
    data = _read_bytes(path)
    if data.startswith(PNG):
        depth, color, _ = check_png(path, data)
        if color == 0 and depth <= 8:
            label = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
            if label is not None and label.ndim == 2:
                return label // (255 // (2**depth - 1))  # decoders stretch 1, 2 and 4 bits to 0..255
        check_png_rows(path, data)
    with sentences(path), open_picture(io.BytesIO(data)) as image:
        check_pixels(path, *image.size)
        if image.format in ("JPEG", "MPO"):
            raise UserError(f"{path} is a JPEG, which does not keep exact class numbers; labels are PNG files")
        if image.mode not in ("L", "P", "1"):
            raise UserError(
                f"{path} holds {'16-bit values' if image.mode.startswith('I') else f'{image.mode} colours'}; "
                "a label map is an 8-bit PNG with one class number a pixel (grey or palette)"
            )
        return np.array(load_as_stored(image), dtype=np.uint8)


def exif_orientation(path: str | Path) -> int:
    """The EXIF orientation 1..8 of a picture; 1, as stored, where it says nothing or cannot be read."""
    try:
        with open_picture(path) as image:
            orientation = image.getexif().get(0x0112, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def stored_size(path: str | Path) -> tuple[int, int] | None:
    """The (height, width) that a picture's header says, as stored; None where it cannot be read."""
    try:
        with open_picture(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """The given files, and the pictures directly in the given folders, sorted by name.

    In folders the suffix decides, in any case; hidden files are passed over (``._x.jpg`` is no picture).

    Raises:
        UserError: a path is not there, or a folder has no pictures.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if is_folder(path):
            files = [path / name for name in names_in(path) if name[0] != "."]
            inside = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
            if not inside:
                raise UserError(f"{path} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
            found += inside
        elif is_there(path) or os.path.islink(path):  # of a broken link the reader says it
            found.append(path)
        else:
            raise UserError(f"{path} does not exist")
    if not found:
        raise UserError("no picture was named")
    return found


def resize_image(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize (H, W[, C]) uint8 to ``size=(height, width)``: by area where it shrinks, else bilinear."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_middle(image: np.ndarray, size: Sequence[int], share: float) -> np.ndarray:
    """The middle of (H, W, 3) uint8 at ``size=(height, width)``; its shorter side is ``share`` of the picture's."""
    scale = share * min(image.shape[0] / size[0], image.shape[1] / size[1])
    height, width = (max(1, round(side * scale)) for side in size)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return resize_image(image[top : top + height, left : left + width], size)


def resize_label(label: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize (H, W) class numbers to ``size=(height, width)`` by nearest neighbour, cv2.INTER_NEAREST's."""
    height, width = size
    if label.shape == (height, width):
        return label
    return cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary file beside ``path`` to write to; it takes the name ``path`` if the block ends well.

    Whoever reads ``path`` sees the old file or the whole new one; after an error nothing is left behind.

    Raises:
        UserError: it cannot be written there.
    """
    path = Path(path)
    make_folder(path.parent)
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{_PARTIAL}{path.suffix}")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())  # the name must not reach the disk before the content
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def make_folder(folder: str | Path) -> None:
    """Make a folder and those above it; one that is there already is fine.

    Raises:
        UserError: it cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made: {error.strerror or error}") from error


def remove_partial_files(folder: Path) -> None:
    """Remove what killed writers left in ``folder``; nobody may be writing there."""
    for partial in folder.glob(f".*{_PARTIAL}*"):
        partial.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write strict JSON atomically; numbers that JSON has not (NaN, infinity) become null."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def write_png(path: str | Path, array: np.ndarray) -> None:
    """Write (H, W) uint8 values or an (H, W, 3) uint8 RGB picture atomically."""
    with atomic_write(path) as partial:
        partial.write_bytes(_encoded(array, ".png"))


def write_jpeg(path: str | Path, array: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 RGB picture for people to look at, atomically."""
    with atomic_write(path) as partial:
        partial.write_bytes(encode_jpeg(array))


def encode_jpeg(array: np.ndarray) -> bytes:
    """An (H, W, 3) uint8 RGB picture for people to look at as the bytes of a JPEG file."""
    return _encoded(array, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90])


def _encoded(array: np.ndarray, kind: str, settings: Sequence[int] = ()) -> bytes:
    done, data = cv2.imencode(kind, cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if array.ndim == 3 else array, settings)
    if not done:
        raise ValueError(f"cannot encode an array of shape {array.shape} as {kind}")
    return bytes(data.tobytes())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and torch
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a picture") from None
    except (OSError, ValueError) as error:  # ValueError: the name has a NUL
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not data:
        raise UserError(f"{path} is empty (0 bytes)")
    return data


def _decode(data: bytes) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
