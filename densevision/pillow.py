"""Pillow's decoders: every format, if slower than others, and what it says about files in sentences."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from densevision.damage import MAX_PIXELS, PNG, check_pixels, check_png_rows
from densevision.errors import UserError

# all that Pillow may try (JPEG includes MPO): of its many others PostScript's would call a program
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_TURN_BACK = {  # EXIF orientation -> what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def open_picture(file: str | Path | io.BytesIO) -> Image.Image:
    """Pillow's picture of a file, not yet decoded, if it is of one of the formats that are read.

    Raises:
        OSError, SyntaxError, ValueError, Image.DecompressionBombError: it is not.
    """
    return Image.open(file, formats=_FORMATS)


def decode_any(path: Path, data: bytes) -> np.ndarray:
    """The bytes of a file of any format that is read as (H, W, 3) uint8 RGB, by the rules of :mod:`densevision.io`.

    Raises:
        UserError: they are of no such format, damaged, too large, or of values without a white.
    """
    if data.startswith(PNG):
        check_png_rows(path, data)
    with sentences(path), open_picture(io.BytesIO(data)) as image:
        check_pixels(path, *image.size)
        stored = load_as_stored(image)
        if stored.mode in ("F", "I"):
            kind = "floating-point" if stored.mode == "F" else "32-bit"
            raise UserError(
                f"{path} holds {kind} values, whose white is not known: write it with 8 or 16 bits a channel"
            )
        if stored.mode == "P":
            _check_palette(path, stored)
        if stored.mode.startswith("I;16"):
            return np.repeat((np.asarray(stored) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.array(stored.convert("RGB"), dtype=np.uint8)


def load_as_stored(image: Image.Image) -> Image.Image:
    """Decode; Pillow turns a TIFF (no other format) as its orientation says, so turn it back."""
    orientation = image.getexif().get(0x0112, 1) if image.format == "TIFF" else 1
    image.load()
    return image.transpose(_TURN_BACK[orientation]) if orientation in _TURN_BACK else image


@contextmanager
def sentences(path: Path) -> Iterator[None]:
    """What Pillow raises about a file, in one sentence that names it."""
    try:
        yield
    except UnidentifiedImageError:
        raise UserError(
            f"{path} is not an image of a kind that can be read (BMP, GIF, JPEG, PNG, TIFF, WebP), or is cut short"
        ) from None
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{path} has more than the {MAX_PIXELS / 1e6:.0f} million pixels that can be read: cut it into parts"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, TypeError) as error:
        raise UserError(f"{path} is damaged or cut short: {error}") from error


def _check_palette(path: Path, image: Image.Image) -> None:
    highest, colors = int(np.asarray(image).max()), len(image.getpalette() or ()) // 3
    if highest >= colors:
        raise UserError(f"{path} is damaged: a pixel has number {highest} of a palette of {colors} colours")
