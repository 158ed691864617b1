"""The file of one picture in the store, and reading a window of it.

A header of 64 bytes says of which file the picture was made and guards itself and what follows by a checksum:

- raw: a checksum for each block of rows, at most 63 of them, and the pixels row by row. A window is mapped into memory,
  and its blocks are compared with their checksums when they are first read.
- compressed: where each strip of 64 rows begins, a checksum for each, and the strips: zstd level 1 of the differences
  between neighbours in a row, about as large as a PNG of the picture. Of a window only its strips are read, and
  compared with their checksums before they are decompressed: zstd takes its own word for how much memory it needs.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import zstandard

_HEADER = struct.Struct("<8sQqIIIIBBI")  # and a crc32 of all this
_HEADER_BYTES = 64
_MAGICS = (b"DVSTORE2", b"DVSTORE3")  # of raw and of compressed pictures
_STRIP_ROWS = 64
_BLOCKS = 63  # at most, of a raw picture: a bit of an int64 for each says whether it was compared


class Picture(Protocol):
    """A picture that can be read by window: an array, or a picture in the store.

    ``picture[top:bottom, left:right]`` is a uint8 array, (bottom - top, right - left) with the channels of the
    picture, perhaps read-only.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, window: tuple[slice, slice], /) -> Any: ...


def whole(picture: Picture) -> np.ndarray:
    """All of a picture, as an array that may be written to."""
    return picture if isinstance(picture, np.ndarray) else np.array(picture[:, :])


class DamagedError(Exception):
    """A stored file is not what was written, or not of this format."""


class OtherFormatError(DamagedError):
    """A stored file is of another version of the format."""


@dataclass(frozen=True)
class Header:
    """What a stored file says of itself.

    source: size (bytes) and time of change (nanoseconds) of the file that was read. original: (height, width) in that
    file. height, width, channels: as stored; 0 channels is (H, W). checksum: of the blocks'
    checksums, or of the strips' places and checksums.
    """

    source: tuple[int, int]
    original: tuple[int, int]
    height: int
    width: int
    channels: int
    compressed: bool
    checksum: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, channels)."""
        return (self.height, self.width, self.channels) if self.channels else (self.height, self.width)

    def to_bytes(self) -> bytes:
        """The first 64 bytes of the file."""
        (size, mtime), (tall, wide), *rest = astuple(self)
        packed = _HEADER.pack(_MAGICS[self.compressed], size, mtime, tall, wide, *rest)
        return (packed + struct.pack("<I", zlib.crc32(packed))).ljust(_HEADER_BYTES, b"\0")

    @classmethod
    def read(cls, file: BinaryIO) -> Header:
        """Read and compare the checksum.

        Raises:
            DamagedError: it is none.
        """
        data = file.read(_HEADER_BYTES)
        packed, end = data[: _HEADER.size], _HEADER.size + 4
        if len(data) < _HEADER_BYTES or data[_HEADER.size : end] != struct.pack("<I", zlib.crc32(packed)):
            raise DamagedError("no header")
        magic, size, mtime, tall, wide, height, width, channels, compressed, checksum = _HEADER.unpack(packed)
        if magic != _MAGICS[bool(compressed)]:
            raise OtherFormatError(f"format {magic!r}")
        return cls((size, mtime), (tall, wide), height, width, channels, bool(compressed), checksum)


def write_picture(
    path: Path, array: np.ndarray, original: tuple[int, int], source: tuple[int, int], compressed: bool
) -> None:
    """Write a file of the store, not atomically.

    Args:
        path: of the file.
        array: (H, W) or (H, W, 3) uint8.
        original: (height, width) of the picture in its own file.
        source: its size and time of change.
        compressed: or raw.
    """
    parts: list[bytes | memoryview]
    if compressed:
        strips = [_packed(array[row : row + _STRIP_ROWS]) for row in range(0, array.shape[0], _STRIP_ROWS)]
        places = np.cumsum([0, *map(len, strips)]).astype("<u8").tobytes()
        parts = [places + np.array([*map(zlib.crc32, strips)], "<u4").tobytes(), *strips]
    else:
        array = np.ascontiguousarray(array)
        rows = _block_rows(array.shape[0])
        checksums = [zlib.crc32(array[row : row + rows].data) for row in range(0, array.shape[0], rows)]
        parts = [np.array(checksums, "<u4").tobytes(), array.data.cast("B")]
    height, width = array.shape[:2]
    channels = array.shape[2] if array.ndim == 3 else 0
    header = Header(source, original, height, width, channels, compressed, zlib.crc32(parts[0]))
    with open(path, "wb") as file:
        file.write(header.to_bytes())
        file.writelines(parts)


def _block_rows(height: int) -> int:
    return -(-height // _BLOCKS)


class RawPicture:
    """A stored picture whose pixels are mapped into memory; windows are read-only views.

    Args:
        path: of the file.
        spare: gives the pixels, if a block turns out to be damaged.
        compared: (1,) int64, bit b set where block b need not be compared with its checksum; those that are get theirs.

    Raises:
        DamagedError: the file is not what was written.
        OSError: it cannot be opened.
    """

    def __init__(
        self, path: Path, spare: Callable[[], np.ndarray] | None = None, compared: np.ndarray | None = None
    ) -> None:
        self.spare, self.compared = spare, np.zeros(1, np.int64) if compared is None else compared
        with open(path, "rb") as file:
            self.header = Header.read(file)
            self.rows = _block_rows(self.header.height)
            count, blocks = math.prod(self.header.shape), -(-self.header.height // self.rows)
            start = _HEADER_BYTES + 4 * blocks
            if self.header.compressed or os.fstat(file.fileno()).st_size != start + count:
                raise DamagedError("wrong length")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.checksums = np.frombuffer(mapped, "<u4", blocks, _HEADER_BYTES)
        if zlib.crc32(self.checksums.data) != self.header.checksum:
            raise DamagedError("wrong checksum")
        self.pixels = np.frombuffer(mapped, np.uint8, count, start).reshape(self.header.shape)
        self.shape = self.header.shape

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        top, bottom, _ = window[0].indices(self.shape[0])
        try:
            self._compare(top // self.rows, -(-bottom // self.rows))
        except DamagedError:
            if self.spare is None:
                raise
            return self.spare()[window]
        return self.pixels[window]

    def _compare(self, first: int, last: int) -> None:
        done = int(self.compared[0])
        if not ((1 << last) - (1 << first)) & ~done:
            return
        for block in range(first, last):
            if not done >> block & 1:
                pixels = self.pixels[block * self.rows : (block + 1) * self.rows]
                if zlib.crc32(pixels.data) != self.checksums[block]:
                    raise DamagedError("wrong checksum")
                done |= 1 << block
        self.compared[0] = done


class StripPicture:
    """A stored picture of compressed strips, each compared with its checksum whenever it is read.

    Args:
        path: of the file.
        spare: gives the pixels, if a strip turns out to be damaged.

    Raises:
        DamagedError: the file is not what was written.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, spare: Callable[[], np.ndarray] | None = None) -> None:
        self.path, self.spare = path, spare
        with open(path, "rb") as file:
            self.header = Header.read(file)
            self.shape = self.header.shape
            strips = math.ceil(self.header.height / _STRIP_ROWS)
            index = file.read(8 * (strips + 1) + 4 * strips)
            if not self.header.compressed or zlib.crc32(index) != self.header.checksum:
                raise DamagedError("wrong checksum")
            self.starts = np.frombuffer(index, "<u8", strips + 1) + np.uint64(_HEADER_BYTES + len(index))
            self.checksums = np.frombuffer(index, "<u4", strips, 8 * (strips + 1))
            if os.fstat(file.fileno()).st_size != self.starts[-1]:
                raise DamagedError("wrong length")

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        rows, columns = (slice(*part.indices(side)) for part, side in zip(window, self.shape[:2], strict=True))
        bottom, right = max(rows.start, rows.stop), max(columns.start, columns.stop)
        try:
            return self._read(rows.start, bottom, columns.start, right)[:: rows.step, :: columns.step]
        except (DamagedError, OSError):
            if self.spare is None:
                raise
            return self.spare()[window]

    def _read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        result = np.empty((bottom - top, right - left, *self.shape[2:]), np.uint8)
        if not result.size:
            return result
        first, last = top // _STRIP_ROWS, -(-bottom // _STRIP_ROWS)
        with open(self.path, "rb") as file:
            file.seek(int(self.starts[first]))
            data = memoryview(file.read(int(self.starts[last] - self.starts[first])))
        zstd = zstandard.ZstdDecompressor()
        for strip in range(first, last):
            start, end = (int(place - self.starts[first]) for place in self.starts[strip : strip + 2])
            if zlib.crc32(data[start:end]) != self.checksums[strip]:
                raise DamagedError("wrong checksum")
            deltas = np.frombuffer(zstd.decompress(data[start:end]), np.uint8).reshape(-1, *self.shape[1:])
            above = strip * _STRIP_ROWS
            rows = slice(max(top - above, 0), min(bottom - above, _STRIP_ROWS))
            # nothing right of the window is added up
            pixels = np.add.accumulate(deltas[rows, :right], axis=1, dtype=np.uint8)
            result[above + rows.start - top : above + rows.stop - top] = pixels[:, left:]
        return result


def _packed(strip: np.ndarray) -> bytes:
    deltas = strip.copy()
    deltas[:, 1:] -= strip[:, :-1]  # modulo 256
    return zstandard.ZstdCompressor(level=1).compress(deltas.tobytes())


def is_of_another_format(path: Path) -> bool:
    """Whether a whole header of another version is there."""
    try:
        with open(path, "rb") as file:
            Header.read(file)
    except OtherFormatError:
        return True
    except (OSError, DamagedError):
        pass
    return False


def header_of(path: Path) -> Header | None:
    """What a stored file says of itself; None if it is not there or not whole, as far as its length tells."""
    try:
        with open(path, "rb") as file:
            compressed = Header.read(file).compressed
        picture = StripPicture(path) if compressed else RawPicture(path)
    except (OSError, DamagedError, ValueError):
        return None
    return picture.header
