"""Decoding a JPEG so that what libjpeg warns of is heard."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import simplejpeg

from densevision.errors import UserError


def decode_jpeg(path: Path, data: bytes, components: int) -> np.ndarray | None:
    """libjpeg's pixels, which are OpenCV's: (H, W, 3) uint8 RGB. None for what is left to Pillow.

    Args:
        path: of the file, for messages.
        data: its bytes, sound as far as :func:`densevision.damage.check_jpeg` can tell.
        components: that it returned.

    Raises:
        UserError: it is damaged.
    """
    colors = "CMYK" if components == 4 else "RGB"
    try:
        image = simplejpeg.decode_jpeg(data, colors)
    except ValueError:
        fault = _fault(_without_quirks(data), colors)
        if fault:
            raise UserError(f"{path} is damaged ({fault}); if it looks right, write it anew") from None
        return None  # a quirk alone, which Pillow bears, or a kind that it may know
    return None if components == 4 else image  # Pillow knows Adobe's CMYK


def _fault(data: bytes, colors: str) -> str:
    """What libjpeg warns of; "" for nothing, and where simplejpeg cannot read such a file at all."""
    try:
        simplejpeg.decode_jpeg(data, colors)
    except ValueError as warning:
        try:
            simplejpeg.decode_jpeg(data, colors, strict=False)
        except ValueError:
            return ""
        return str(warning)
    return ""


def _without_quirks(data: bytes) -> bytes:
    """A JPEG without what libjpeg warns of and nothing is lost by: JFIF's version, Adobe's transform (colours may then
    differ), and a sequential scan's place in the spectrum. libjpeg tells of the first fault alone, so that one of these
    would hide damage."""
    copy = bytearray(data)
    for app0 in re.finditer(rb"\xff\xe0..JFIF\0", data, re.DOTALL):
        copy[app0.end()] = 1
    for app14 in re.finditer(rb"\xff\xee..Adobe.{6}", data, re.DOTALL):
        copy[app14.end()] = 0
    if b"\xff\xc2" not in data:  # progressive scans do have a place
        for scan in re.finditer(rb"\xff\xda\0[\x08\x0a\x0c\x0e]([\1-\4])", data):
            place = scan.end() + 2 * scan[1][0]
            copy[place : place + 3] = 0, 63, 0
    return bytes(copy)
