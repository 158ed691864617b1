"""Signals that ask a run to save and to end: Ctrl-C, SIGTERM, and SLURM's SIGUSR1 before a job's time is over."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# of several that processes got, the first counts: SLURM's asks for more than an end, and may reach any of them
STOPPING = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Notes a signal, so that the run can end a step and save; used as a context, which leaves all as it was.

    SLURM's is noted from the beginning, the others, which end a process that has nothing to save, after ``listen``. A
    second Ctrl-C or SIGTERM ends the process at once. Nothing is done outside of the main thread, and a signal that
    is ignored (a shell's background) stays ignored.

    Attributes:
        received: number of the first signal that came; None before.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in STOPPING}
        self._listen_to(signal.SIGUSR1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # the command has held it back
        return self

    def listen(self) -> None:
        """Note the other signals too, and again after a library has put its own handlers in the place."""
        if self.received is None:
            self._listen_to(signal.SIGINT)
            self._listen_to(signal.SIGTERM)

    def _listen_to(self, number: int) -> None:
        if self._before.get(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self.received = self.received or number
        if number != signal.SIGUSR1:
            signal.signal(number, self._before[number])

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def ballot(number: int | None, like: Tensor) -> Tensor:
    """A process' vote, to be added up over all: (3,), 1 for the signal it got; on the device of ``like``."""
    votes = like.new_zeros(len(STOPPING))
    if number is not None:
        votes[STOPPING.index(signal.Signals(number))] = 1.0
    return votes


def elected(votes: Sequence[float]) -> int | None:
    """The signal by which all processes end, of the sum of their votes; None where none has got any."""
    return next((number for number, count in zip(STOPPING, votes, strict=True) if count > 0), None)


class LateNumbers:
    """Numbers on the device that are read when the next ones come, so that nobody waits for the device."""

    def __init__(self) -> None:
        self._copy: Tensor | None = None
        self._event: torch.cuda.Event | None = None

    def exchange(self, values: Tensor) -> list[float]:
        """Give (N,) numbers and get those given before, zeros at first."""
        if self._event is not None:
            self._event.synchronize()
        before = [0.0] * len(values) if self._copy is None else self._copy.tolist()
        if values.is_cuda:
            self._copy = torch.empty_like(values, device="cpu", pin_memory=True)
            self._copy.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._copy = values.clone()
        return before


def requeue() -> str:
    """Put this SLURM job back into the queue, and say in a sentence what came of it; "" outside of SLURM."""
    here = os.environ
    if "SLURM_JOB_ID" not in here:
        return ""
    array = here.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{here['SLURM_ARRAY_TASK_ID']}" if array else here["SLURM_JOB_ID"]
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        if done.returncode == 0:
            return f"job {job} is back in the queue"
        reason = done.stderr.strip()
    return f"job {job} could not be put back into the queue ({reason}): submit it again, and it goes on"
