"""A store of decoded pictures, built once and shared: what decoding costs is paid once, and then windows are read.

Each picture has a file of its own (:mod:`datamodules.stored_picture`), which takes its name when it is whole. So the
store may be built by many processes and nodes at once, killed and begun again; a lock only spares them each other's
work. A stored file whose picture has another size or time of change is made anew, and so is one that turns out to be
damaged when it is read: the store is never a reason to stop. Nor is one of another data set that stands in its place.
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
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from datamodules.stored_picture import (
    DamagedError,
    Picture,
    RawPicture,
    StripPicture,
    header_of,
    is_of_another_format,
    write_picture,
)
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
        spare: another folder, for what ``folder`` lacks where it cannot be written.
    """

    def __init__(self, folder: Path, root: Path, compressed: bool, spare: Path | None = None) -> None:
        self.folder, self.root, self.compressed, self.spare = folder, root, compressed, spare

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
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if self.spare is not None and not full:
                return Store(self.spare, self.root, self.compressed).build(paths, variant, read)
            keys = "set data.cache_dir to another folder, or data.cache to none"
            if full:
                keys = "free some, set data.cache_dir to a folder with more room, or data.cache to compressed or none"
            raise UserError(
                f"the pictures' cache {self.folder} cannot be written: {error.strerror or error}; {keys}",
                "data.cache_dir",
            ) from error
        return shelf

    @property
    def console(self) -> Console:
        """Where progress is shown."""
        return Console(stderr=True, highlight=False, soft_wrap=True)

    def _fill(self, shelf: Shelf, missing: list[int]) -> None:
        if not missing:
            return
        what = f"{len(missing)} {shelf.variant.split()[0]}{'s' if len(missing) > 1 else ''}"
        # a few from all over first: their size tells whether there will be room
        few = missing[:: max(1, len(missing) // 8)]
        old = any(is_of_another_format(self.file_of(shelf.paths[index], shelf.variant)) for index in few)
        why = " anew: what is there is of another version's format" if old else ""
        self.console.print(f"caching {what} in {self.folder}{why}")
        threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None)
        try:
            sizes = list(threads.map(shelf.store_picture, few))
            free, needed = shutil.disk_usage(self.folder).free, len(missing) * sum(sizes) / len(sizes)
            if needed > free + sum(sizes):
                raise UserError(
                    f"the pictures' cache needs about {needed / 1e9:.1f} GB in {self.folder}, where {free / 1e9:.1f} "
                    "GB are free: set data.cache_dir to a folder with more room, or data.cache to compressed or none",
                    "data.cache_dir",
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
        # in memory that the loader processes share: (I, 2) size and time of change of the pictures' files when the
        # store was built, (I,) which blocks of raw pictures were compared, and how many stored pictures were no good
        self._states = torch.zeros((len(paths), 2), dtype=torch.int64).share_memory_()
        self._compared = torch.zeros(len(paths), dtype=torch.int64).share_memory_()
        self._bad = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __getitem__(self, index: int) -> tuple[Picture, tuple[int, int]]:
        """The stored picture, and its (height, width) in its own file. One that is gone or damaged is made anew.

        Raises:
            UserError: that was so, and the picture's own file cannot be read.
        """
        path = self.store.file_of(self.paths[index], self.variant)
        picture: RawPicture | StripPicture
        try:
            if self.store.compressed:
                picture = StripPicture(path, lambda: self._anew(index)[0])
            else:
                picture = RawPicture(path, lambda: self._anew(index)[0], self._compared[index : index + 1].numpy())
        except (DamagedError, OSError, ValueError):
            return self._anew(index)
        if picture.header.source != tuple(self._states[index].tolist()):
            self._say(index, "is of another state of the file, or of another data set that shares data.cache_dir", "")
            return self.read(Path(self.paths[index]))
        return picture, picture.header.original

    def _anew(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        array, original, state = self._read(index)
        self._compared[index] = 0
        then = ", and stored anew"
        try:
            self._write(index, array, original, state)
        except OSError as error:
            then = f", and could not be stored anew ({error.strerror or error})"
        self._say(index, "is gone or damaged", then)
        return array, original

    def _say(self, index: int, what: str, then: str) -> None:
        """Warn of the first, the tenth, the hundredth, ... of all loader processes."""
        self._bad += 1
        count = int(self._bad)
        if str(count).strip("0") == "1":
            so_far = f" ({count} such pictures so far)" if count > 1 else ""
            _log.warning(
                "what %s holds of %s %s: the picture's own file was read%s%s",
                self.store.folder,
                self.paths[index],
                what,
                then,
                so_far,
            )

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
        if header.source != (source.st_size, source.st_mtime_ns):
            return False
        self._states[index] = torch.tensor(header.source)
        return True

    def store_picture(self, index: int) -> int:
        """Read a picture and store it; returns the bytes that it takes.

        Raises:
            UserError: it cannot be read.
            OSError: it cannot be written.
        """
        return self._write(index, *self._read(index))

    def _read(self, index: int) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
        """The pixels, the (height, width) in the file, and its size and time of change."""
        source = Path(self.paths[index])
        try:
            found = os.stat(source)  # before it is read: if it changes meanwhile, what is stored is out of date
        except OSError:
            self.read(source)  # says what is the matter
            raise
        return *self.read(source), (found.st_size, found.st_mtime_ns)

    def _write(self, index: int, array: np.ndarray, original: tuple[int, int], state: tuple[int, int]) -> int:
        path = self.store.file_of(self.paths[index], self.variant)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            write_picture(partial, array, original, state, self.store.compressed)
            # not flushed to the disk first: what a power cut leaves of it, the checksums tell
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        self._states[index] = torch.tensor(state)
        return path.stat().st_size


def store_folders(cache_dir: str | None, root: Path) -> tuple[Path, Path | None]:
    """Where the store of a data set is: below ``cache_dir``, else beside the data set, else in the user's cache.

    Args:
        cache_dir: may serve several data sets.
        root: of the data set.

    Returns:
        The folder, and where there may be a second one, for when the first cannot be written, that.
    """
    whole = os.path.abspath(root)
    digest = hashlib.blake2b(whole.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    name = f"{os.path.basename(whole) or 'root'}-{digest}"
    if cache_dir is not None:
        return Path(cache_dir).expanduser().absolute() / name, None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "densevision"
    return Path(f"{whole}.densevision_cache"), cache / name


def with_size(array: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture or label map as it is, and its (height, width)."""
    return array, (array.shape[0], array.shape[1])


def read_shrunk(path: Path, side: int | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture, shrunk to the shorter side ``side`` if that is less than its own, and its own size."""
    image, size = with_size(read_image(path))
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
