"""Whether the bytes of a PNG or JPEG file are all there and unharmed; decoders fill what is missing and go on."""

from __future__ import annotations

import struct
import zlib
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
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def check_pixels(path: Path, width: int, height: int) -> None:
    """Raise a UserError for a picture of more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{path} is {width}x{height} pixels (width x height), {width * height / 1e6:.0f} million; "
            f"at most {MAX_PIXELS / 1e6:.0f} million can be read: cut it into parts"
        )


def check_png(path: Path, data: bytes) -> tuple[int, int]:
    """Walk the chunks of a PNG up to its end and compare their checksums; return (bit depth, colour type).

    Raises:
        UserError: it is cut short or damaged, or its picture is too large.
    """
    view, position, kind = memoryview(data), len(PNG), b""
    header = (0, 0)
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
        if kind == b"IHDR" and length == 13:
            width, height, *header_bytes = struct.unpack_from(">IIBB", data, position + 8)
            check_pixels(path, width, height)
            header = (header_bytes[0], header_bytes[1])
        position = body + 4
    return header


def check_jpeg(path: Path, data: bytes) -> tuple[int, int]:
    """Walk the segments of a JPEG; return (number of colour components, position of its end marker).

    Raises:
        UserError: it is cut short or damaged, or its picture is too large.
    """
    everything = np.frombuffer(data, np.uint8)
    markers = np.flatnonzero(everything[:-1] == 0xFF)
    markers = markers[_ENDS_CODED_DATA[everything[markers + 1]]]
    position, components, in_scans = 2, 0, False
    while True:
        following = np.searchsorted(markers, position)
        if following == len(markers):
            raise UserError(f"{path} is cut short: a JPEG file ends with the marker FFD9")
        start = int(markers[following])
        if not in_scans and data[position:start].strip(b"\xff"):
            raise UserError(f"{path} is damaged at byte {position}")
        marker, position = data[start + 1], start + 2
        if marker == _EOI and in_scans:
            return components, start
        if in_scans and marker not in _BETWEEN_SCANS:
            raise UserError(f"{path} is damaged at byte {position}")
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            raise UserError(f"{path} is cut short or damaged at byte {position}")
        if marker in _START_OF_FRAME and length >= 8:
            height, width, components = struct.unpack_from(">HHB", data, position + 3)
            check_pixels(path, width, height)
        in_scans = in_scans or marker == _SOS
        position += length
