"""Where a step's time goes, measured on few steps so that the others need not wait for the device."""

from __future__ import annotations

import resource
import time

import torch

EVERY = 50  # steps


class StepTimes:
    """Adds up the milliseconds of the parts of every 50th step, over all batches that the step accumulates.

    On a measured step each part waits for the device, which the other steps never do.
    """

    def __init__(self) -> None:
        self._parts: dict[str, float] | None = None
        self._at = 0.0

    def begin_batch(self, step: int, waited: float) -> None:
        """A batch of the ``step``-th step (from 1) has come, after ``waited`` seconds."""
        if step % EVERY:
            return
        if self._parts is None:
            self._parts = {}
        self._parts["data"] = self._parts.get("data", 0.0) + 1000 * waited
        self._at = _now()

    def end(self, part: str) -> None:
        """What has been done since the last call was ``part``."""
        if self._parts is not None:
            now = _now()
            self._parts[part] = self._parts.get(part, 0.0) + 1000 * (now - self._at)
            self._at = now

    def take(self) -> dict[str, float] | None:
        """Milliseconds of each part of the step that has ended; None if it was not measured."""
        parts, self._parts = self._parts, None
        return parts


def peak_memory_mib() -> float:
    """The most that this process has had so far: of the GPU's memory, or of the machine's where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
