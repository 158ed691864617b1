"""Where trials are made: in processes of this machine, or as a job array of SLURM."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from densevision.errors import Stopped, UserError
from densevision.io import atomic_write


def in_processes(files: Sequence[Path], command: Sequence[str], workers: int) -> None:
    """Make each trial by ``command FILE``, ``workers`` at a time; with several GPUs each worker has one. An interrupt
    ends those that run.

    Raises:
        UserError: a trial failed; what it said last.
    """
    gpus = torch.cuda.device_count()
    free: SimpleQueue[int] = SimpleQueue()
    for worker in range(workers):
        free.put(worker)

    running: set[subprocess.Popen[str]] = set()

    def make(file: Path) -> None:
        worker = free.get()
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(worker % gpus)} if gpus > 1 else None
        words = [*command, str(file)]
        process = subprocess.Popen(
            words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        running.add(process)
        try:
            _, said = process.communicate()
        finally:
            running.discard(process)
            free.put(worker)
        if process.returncode:
            lines = said.strip().splitlines() or [f"exit status {process.returncode}"]
            raise UserError(f"the trial {file} failed: {lines[-1]}")

    with _stopping_at_sigterm(), ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(make, file) for file in files]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            for future in futures:
                future.cancel()
            if not isinstance(error, UserError):  # those that run beside a failed one are not in vain
                for process in list(running):
                    process.terminate()
            raise


def in_slurm(files: Sequence[Path], command: Sequence[str], workers: int, options: Sequence[str]) -> None:
    """Make the trials as one job array, ``workers`` tasks at a time, and wait for its end; an interrupt cancels it.

    Raises:
        UserError: there is no sbatch, or the array failed.
    """
    folder, lines = files[0].parent, "".join(f"{file}\n" for file in files)
    # by its content: the list that a waiting array will read is nobody else's
    listing = folder / f"array-{hashlib.blake2b(lines.encode(), digest_size=8).hexdigest()}.txt"
    with atomic_write(listing) as partial:
        partial.write_text(lines, encoding="utf-8")
    one = f'{shlex.join(command)} "$(sed -n ${{SLURM_ARRAY_TASK_ID}}p {shlex.quote(str(listing))})"'
    array = [f"--array=1-{len(files)}%{workers}", f"--output={folder}/slurm-%A_%a.out", "--job-name=search"]
    words = ["sbatch", "--parsable", "--wait", *array, *options, f"--wrap={one}"]
    with _stopping_at_sigterm():
        try:  # in a session of its own: an interrupt at the keyboard must not end it before the job's number is known
            sbatch = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
        except FileNotFoundError as error:
            raise UserError("sbatch is not here; use search.launcher=processes", key="search.launcher") from error
        assert sbatch.stdout is not None
        job = ""
        try:
            job = sbatch.stdout.readline()
            _, said = sbatch.communicate()
        except BaseException:
            _cancel(job or sbatch.stdout.readline())
            sbatch.terminate()
            raise
    if sbatch.returncode:
        why = " ".join(said.split()) or f"its output is in {folder}/slurm-{job.strip()}_*.out"
        raise UserError(f"the array of {len(files)} trials failed: {why}", key="search.slurm")


def _cancel(job: str) -> None:
    """Cancel the job that ``sbatch --parsable`` calls NUMBER or NUMBER;CLUSTER."""
    number, _, cluster = job.strip().partition(";")
    if number:
        subprocess.run(["scancel", *(["-M", cluster] if cluster else []), number], capture_output=True, check=False)


@contextmanager
def _stopping_at_sigterm() -> Iterator[None]:
    """SIGTERM is raised as :class:`densevision.errors.Stopped`, so that what was started is ended too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
