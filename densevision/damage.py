"""Whether the bytes of a PNG or JPEG file are all there and unharmed; decoders fill what is missing and go on."""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from densevision.errors import UserError

MAX_PIXELS = 2**27  # 400 MB as RGB; a small file can claim far more
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
_EOI, _SOS = 0xD9, 0xDA
_BETWEEN_SCANS = {0xC4, _EOI, _SOS, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}
# in JPEG's coded data FF is followed by 00 (a stuffed byte), a restart marker or more FF (fill); all else ends it
_ENDS_CODED_DATA = np.ones(256, bool)
_ENDS_CODED_DATA[[0x00, *range(0xD0, 0xD8), 0xFF]] = False
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}  # of colour types
_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def check_pixels(path: Path, width: int, height: int) -> None:
    """Raise a UserError for a picture of more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{path} is {width}x{height} pixels (width x height), {width * height / 1e6:.0f} million; "
            f"at most {MAX_PIXELS / 1e6:.0f} million can be read: cut it into parts"
        )


def check_png(path: Path, data: bytes) -> tuple[int, int, int]:
    """Walk the chunks of a PNG up to its end and compare their checksums.

    Returns:
        Bit depth, colour type, and number of colours in the palette.

    Raises:
        UserError: it is cut short or damaged, or its picture is too large.
    """
    depth, color, palette = 0, 0, 0
    for kind, body in _chunks(path, data):
        if kind == b"IHDR" and len(body) == 13:
            width, height, depth, color = struct.unpack_from(">IIBB", body)
            check_pixels(path, width, height)
        elif kind == b"PLTE":
            palette = len(body) // 3
    return depth, color, palette


def check_png_rows(path: Path, data: bytes) -> None:
    """Raise a UserError if a PNG, sound as far as :func:`check_png` can tell, holds fewer rows than it says.

    It costs about as much as decoding; OpenCV refuses such a file, Pillow gives black rows.
    """
    inflate, rows, got = zlib.decompressobj(), 0, 0
    for kind, body in _chunks(path, data):
        if kind == b"IHDR" and len(body) == 13:
            width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            bits = depth * _PNG_CHANNELS.get(color, 1)
            for left, top, right, down in _ADAM7 if interlaced else [(0, 0, 1, 1)]:
                wide, high = -(-(width - left) // right), -(-(height - top) // down)
                rows += high * (1 + (wide * bits + 7) // 8) if wide > 0 and high > 0 else 0
        elif kind == b"IDAT" and got < rows:
            try:
                got += len(inflate.decompress(body, rows - got))
            except zlib.error as error:
                raise UserError(f"{path} is damaged: {error}") from error
    if got < rows:
        raise UserError(f"{path} is cut short: its data ends before the picture does")


def _chunks(path: Path, data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, position, kind = memoryview(data), len(PNG), b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise UserError(f"{path} is cut short: a PNG file ends with the chunk IEND")
        length = int.from_bytes(view[position : position + 4], "big")
        body = position + 8 + length
        if body + 4 > len(data):
            raise UserError(f"{path} is cut short or damaged at byte {position}")
        if zlib.crc32(view[position + 4 : body]) != int.from_bytes(view[body : body + 4], "big"):
            raise UserError(f"{path} is damaged: the checksum at byte {body} does not match")
        kind = bytes(view[position + 4 : position + 8])
        yield kind, view[position + 8 : body]
        position = body + 4


def check_jpeg(path: Path, data: bytes) -> int:
    """Walk the segments of a JPEG; return the number of its colour components.

    Raises:
        UserError: it is cut short or damaged, parts of its picture are missing, or it is too large.
    """
    everything = np.frombuffer(data, np.uint8)
    markers = np.flatnonzero(everything[:-1] == 0xFF)
    markers = markers[_ENDS_CODED_DATA[everything[markers + 1]]].tolist()
    position, components, in_scans, progressive = 2, 0, False, False
    # bits of each coefficient of the components that are still to come, -1 where none came
    sent, ids, following = np.full((0, 64), -1), b"", 0
    while True:
        following = bisect_left(markers, position, following)
        if following == len(markers):
            raise UserError(f"{path} is cut short: a JPEG file ends with the marker FFD9")
        start = markers[following]
        if not in_scans and data[position:start].strip(b"\xff"):
            raise UserError(f"{path} is damaged at byte {position}")
        marker, position = data[start + 1], start + 2
        if marker == _EOI and in_scans:
            if (sent[:, 0] != 0).any() or (sent > 0).any():
                raise UserError(f"{path} is cut short: its last scans are missing")
            return components
        if in_scans and marker not in _BETWEEN_SCANS:
            raise UserError(f"{path} is damaged at byte {position}")
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            raise UserError(f"{path} is cut short or damaged at byte {position}")
        if marker in _START_OF_FRAME and length >= 8:
            height, width, components = struct.unpack_from(">HHB", data, position + 3)
            check_pixels(path, width, height)
            ids, progressive = data[position + 8 : position + length : 3], marker in _PROGRESSIVE
            sent = np.full((len(ids), 64), -1)
        if marker == _SOS and length >= 8:
            named = data[position + 3 : position + length - 3 : 2]
            first, last, bits = data[position + length - 3 : position + length]
            first, last, bits = (first, last, bits & 15) if progressive else (0, 63, 0)
            sent[[one in named for one in ids], first : last + 1] = bits
        in_scans = in_scans or marker == _SOS
        position += length
