"""Where trials are made: in processes of this machine, or as a job array of SLURM."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import torch

from densevision.errors import UserError


def in_processes(files: Sequence[Path], command: Sequence[str], workers: int) -> None:
    """Make each trial by ``command FILE``, ``workers`` at a time; with several GPUs each worker has one.

    Raises:
        UserError: a trial failed; what it said last.
    """
    gpus = torch.cuda.device_count()
    free: SimpleQueue[int] = SimpleQueue()
    for worker in range(workers):
        free.put(worker)

    def make(file: Path) -> None:
        worker = free.get()
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(worker % gpus)} if gpus > 1 else None
        try:
            done = subprocess.run([*command, str(file)], env=environment, capture_output=True, text=True)
        finally:
            free.put(worker)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise UserError(f"the trial {file} failed: {said[-1]}")

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(make, file) for file in files]
        try:
            for future in futures:
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def in_slurm(files: Sequence[Path], command: Sequence[str], workers: int, options: Sequence[str]) -> None:
    """Make the trials as one job array, ``workers`` tasks at a time, and wait for its end.

    Raises:
        UserError: there is no sbatch, or the array failed.
    """
    folder = files[0].parent
    listing = folder / "array.txt"
    listing.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
    one = f'{shlex.join(command)} "$(sed -n ${{SLURM_ARRAY_TASK_ID}}p {shlex.quote(str(listing))})"'
    array = ["--wait", f"--array=1-{len(files)}%{workers}", f"--output={folder}/slurm-%A_%a.out", "--job-name=search"]
    try:
        done = subprocess.run(["sbatch", *array, *options, f"--wrap={one}"], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UserError("sbatch is not here; use search.launcher=processes", key="search.launcher") from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"its output is in {folder}/slurm-*.out"
        raise UserError(f"the array of {len(files)} trials failed: {said}", key="search.slurm")
