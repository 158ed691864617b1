"""Small pictures and files of them, for tests of reading."""

import io
import struct
import zlib

from PIL import Image


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


def png_of(size, bits, color, rows, palette=None, interlaced=False):
    """A PNG of (height, width) ``size`` by its parts, whatever sense they make."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], bits, color, 0, 0, interlaced)),
        *([] if palette is None else [(b"PLTE", palette)]),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    data = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + data
