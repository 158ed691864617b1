"""Videos, a frame at a time, in and out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from densevision.errors import UserError
from densevision.io import atomic_write
from densevision.paths import is_file

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


def is_video(path: str | Path) -> bool:
    """Whether a file's suffix is that of a video, in any case."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


class Video:
    """A video file; iterating gives its frames, (H, W, 3) uint8 RGB, as they are read.

    Attributes:
        rate: frames a second; 25 where the file does not say. promised: how many frames the file says it has, 0 where
            it does not.

    Raises:
        UserError: it is not there or cannot be read; in iterating, there is no frame, or it breaks off.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not is_file(self.path):
            raise UserError(f"{path} does not exist")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise UserError(f"{path} is not a video that can be read, or is damaged")
        rate, promised = (self._capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.rate = rate if 0 < rate <= 1000 else 25.0
        self.promised = int(promised) if 0 < promised < 2**31 else 0

    def __iter__(self) -> Iterator[np.ndarray]:
        count = 0
        try:
            while (read := self._capture.read())[0]:
                count += 1
                yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
        finally:
            self._capture.release()
        if not count:
            raise UserError(f"{self.path} holds no frame that can be read")
        if count < 0.98 * self.promised - 1:  # containers count a little wrongly
            raise UserError(f"{self.path} is damaged: it breaks off after {count} of {self.promised} frames")


class VideoFile:
    """A video that is being written; all frames take the size of the first."""

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def add(self, frame: np.ndarray) -> None:
        """Append (H, W, 3) uint8 RGB.

        Raises:
            UserError: this OpenCV cannot write such a video.
        """
        if self._writer is None:
            self._size = (frame.shape[1], frame.shape[0])
            self._writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*"mp4v"), self._rate, self._size)
            if not self._writer.isOpened():
                raise UserError(f"{self._path} cannot be written: OpenCV has no encoder for it here")
        if (frame.shape[1], frame.shape[0]) != self._size:
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.release()


@contextmanager
def write_video(path: Path, rate: float) -> Iterator[VideoFile]:
    """An mp4 to add frames to, at least one; it takes its name when the block ends well.

    Raises:
        UserError: as :meth:`VideoFile.add`.
    """
    with atomic_write(path) as partial:
        file = VideoFile(partial, rate)
        try:
            yield file
        finally:
            file.close()
