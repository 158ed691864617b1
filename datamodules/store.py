"""A store of decoded pictures, built once and shared: what decoding costs is paid once, and then windows are read.

Each picture has a file of its own (:mod:`datamodules.stored_picture`), which takes its name when it is whole. So the
store may be built by many processes and nodes at once, killed and begun again; a lock only spares them each other's
work. A stored file whose picture has another size or time of change is made anew, and so is one that turns out to be
damaged when it is read: the store is never a reason to stop.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from datamodules.stored_picture import DamagedError, Picture, RawPicture, StripPicture, header_of, write_picture
from densevision.errors import UserError
from densevision.io import read_image, resize_image

# a picture's file -> its (H, W[, 3]) uint8 pixels as they are to be stored, and its (height, width) in the file
Read = Callable[[Path], tuple[np.ndarray, tuple[int, int]]]
T = TypeVar("T")
R = TypeVar("R")
_CHUNK = 1024  # pictures handed to the threads at once: a task a picture of a large data set would fill the memory
_LOOKERS = 16  # threads that only wait for the file system
_SAY_EVERY = 60  # seconds
_log = logging.getLogger("densevision")


class Store:
    """The stored pictures of one data set.

    Args:
        folder: of the store.
        root: of the data set. Files below it are known by their place in it, so that both can move.
        compressed: or raw.
    """

    def __init__(self, folder: Path, root: Path, compressed: bool) -> None:
        self.folder, self.root, self.compressed = folder, root, compressed

    def build(self, paths: Sequence[str], variant: str, read: Read) -> Shelf:
        """Store what is not stored yet, and give access to it; waits while another process does the same.

        Args:
            paths: of the pictures' files.
            variant: what ``read`` makes of a file, in a word; other words are stored beside it.
            read: from several threads.

        Raises:
            UserError: a picture cannot be read, or the store cannot be written.
        """
        shelf = Shelf(self, paths, variant, read)
        missing = shelf.missing(range(len(paths)))
        if not missing:
            return shelf
        try:
            with self._lock() as alone:
                if alone:
                    self._clean()
                self._fill(shelf, shelf.missing(missing))
        except OSError as error:
            keys = "set data.cache_dir to another folder, or data.cache to none"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                keys = "free some, set data.cache_dir to a folder with more room, or data.cache to compressed or none"
            raise UserError(
                f"the pictures' cache {self.folder} cannot be written: {error.strerror or error}; {keys}", "data.cache"
            ) from error
        return shelf

    @property
    def console(self) -> Console:
        """Where progress is shown."""
        return Console(stderr=True, highlight=False, soft_wrap=True)

    def _fill(self, shelf: Shelf, missing: list[int]) -> None:
        if not missing:
            return
        what = f"{len(missing)} {shelf.variant.split()[0]}s"
        self.console.print(f"caching {what} in {self.folder}")
        threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None)
        try:
            # a few from all over first: their size tells whether there will be room
            few = missing[:: max(1, len(missing) // 8)]
            sizes = list(threads.map(shelf.store_picture, few))
            free, needed = shutil.disk_usage(self.folder).free, len(missing) * sum(sizes) / len(sizes)
            if needed > free + sum(sizes):
                raise UserError(
                    f"the pictures' cache needs about {needed / 1e9:.1f} GB in {self.folder}, where {free / 1e9:.1f} "
                    "GB are free: set data.cache_dir to a folder with more room, or data.cache to compressed or none",
                    "data.cache",
                )
            rest = _in_chunks(threads, shelf.store_picture, sorted({*missing} - {*few}))
            self._show(rest, what, len(missing) - len(few))
        finally:
            threads.shutdown(cancel_futures=True)

    def _show(self, done: Iterable[int], what: str, total: int) -> None:
        """Draw a bar on a terminal, write a line a minute elsewhere."""
        console = self.console
        if console.is_terminal:
            done = track(done, f"caching {what}", total, console=console, transient=True)
        began = said = time.monotonic()
        for count, _ in enumerate(done, 1):
            now = time.monotonic()
            if now - said > _SAY_EVERY and not console.is_terminal:
                said, left = now, (now - began) / count * (total - count)
                console.print(f"cached {count} of {what}, about {left / 60:.0f} minutes left")

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Hold the store's lock, where the file system has locks; the system takes it back from a killed process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "ab") as file:
            locked = True
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.console.print(f"waiting for another process, which fills {self.folder}")
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                locked = False
            yield locked

    def _clean(self) -> None:
        """Remove what a killed process left half-written."""
        for partial in self.folder.glob("??/*.partial"):
            partial.unlink(missing_ok=True)

    def file_of(self, path: str, variant: str) -> Path:
        """Where a picture is, or is to be, stored."""
        prefix = f"{self.root}{os.sep}"
        kind = "strips" if self.compressed else "raw"
        name = "\0".join((kind, variant, path.removeprefix(prefix)))
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return self.folder / digest[:2] / f"{digest}.{kind}"


class Shelf:
    """The stored pictures of one variant, by their index in ``paths``."""

    def __init__(self, store: Store, paths: Sequence[str], variant: str, read: Read) -> None:
        self.store, self.paths, self.variant, self.read = store, paths, variant, read
        self._verified = bytearray(len(paths))  # of this process: a raw picture is compared when it is first read

    def __getitem__(self, index: int) -> tuple[Picture, tuple[int, int]]:
        """The stored picture, and its (height, width) in its own file. One that is gone or damaged is made anew.

        Raises:
            UserError: that was so, and the picture's own file cannot be read.
        """
        path = self.store.file_of(self.paths[index], self.variant)
        picture: RawPicture | StripPicture
        try:
            if self.store.compressed:
                picture = StripPicture(path, lambda: self._anew(index, path)[0])
            else:
                picture = RawPicture(path, verify=not self._verified[index])
                self._verified[index] = True
        except (DamagedError, OSError, ValueError):
            return self._anew(index, path)
        return picture, picture.header.original

    def _anew(self, index: int, path: Path) -> tuple[np.ndarray, tuple[int, int]]:
        _log.warning("%s is gone or damaged: read from the picture's own file, and stored anew", path)
        with suppress(OSError):
            self.store_picture(index)
        return self.read(Path(self.paths[index]))

    def missing(self, indices: Sequence[int]) -> list[int]:
        """Those whose stored file is not there, not whole, or of an earlier state of the picture."""
        with ThreadPoolExecutor(_LOOKERS) as threads:
            stored = _in_chunks(threads, self._is_stored, indices)
            return [index for index, there in zip(indices, stored, strict=True) if not there]

    def _is_stored(self, index: int) -> bool:
        path = self.paths[index]
        header = header_of(self.store.file_of(path, self.variant))
        if header is None:
            return False
        try:
            source = os.stat(path)
        except OSError:
            return False  # whoever reads it says what is the matter
        return (header.source_size, header.source_mtime) == (source.st_size, source.st_mtime_ns)

    def store_picture(self, index: int) -> int:
        """Read a picture and store it; returns the bytes that it takes.

        Raises:
            UserError: it cannot be read.
            OSError: it cannot be written.
        """
        source = Path(self.paths[index])
        try:
            state = os.stat(source)  # before it is read: if it changes meanwhile, what is stored is out of date
        except OSError:
            self.read(source)  # says what is the matter
            raise
        array, original = self.read(source)
        path = self.store.file_of(self.paths[index], self.variant)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            write_picture(partial, array, original, state, self.store.compressed)
            # not flushed to the disk first: what a power cut leaves of it, the checksums tell
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return path.stat().st_size


def store_folder(cache_dir: str | None, root: Path) -> Path:
    """Where the store of a data set is: below ``cache_dir``, else beside the data set, else in the user's cache.

    Args:
        cache_dir: may serve several data sets.
        root: of the data set.
    """
    name = f"{root.name}-{hashlib.blake2b(str(root).encode('utf-8', 'surrogateescape'), digest_size=4).hexdigest()}"
    if cache_dir is not None:
        return Path(cache_dir).expanduser().absolute() / name
    beside = root.with_name(f"{root.name}.densevision_cache")
    with suppress(OSError):
        beside.mkdir(exist_ok=True)
        if os.access(beside, os.W_OK):
            return beside
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "densevision" / name


def read_shrunk(path: Path, side: int | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture, shrunk to the shorter side ``side`` if that is less than its own, and its own size."""
    image = read_image(path)
    size = (image.shape[0], image.shape[1])
    if side is None or side >= min(size):
        return image, size
    return resize_image(image, [max(1, round(length * side / min(size))) for length in size]), size


def read_resized(path: Path, size: Sequence[int]) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture at (height, width) ``size``, and its own size."""
    image = read_image(path)
    return resize_image(image, size), (image.shape[0], image.shape[1])


def _in_chunks(threads: ThreadPoolExecutor, function: Callable[[T], R], items: Sequence[T]) -> Iterable[R]:
    for start in range(0, len(items), _CHUNK):
        yield from threads.map(function, items[start : start + _CHUNK])
