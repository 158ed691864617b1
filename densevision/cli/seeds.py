"""``train CONFIG --seeds 0,1,2``: the same training several times, here or as an array of SLURM jobs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import densevision
from densevision.config import LoadedConfig
from densevision.errors import UserError
from densevision.launch import started_processes

if TYPE_CHECKING:
    from rich.console import Console

SCRIPT = Path(densevision.__file__).parent.parent / "tools" / "slurm" / "train.sbatch"
_ARRAY_TASK = "SLURM_ARRAY_TASK_ID"


def parse_seeds(text: str) -> list[int]:
    """``0,1,2`` -> its numbers; a range as ``0-4`` is all of it.

    Raises:
        UserError: it is neither.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            seeds += range(int(first), int(last) + 1) if dash else [int(first)]
        except ValueError:
            raise UserError(f"--seeds {text}: expected numbers such as 0,1,2 or 0-4") from None
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}: expected different numbers such as 0,1,2 or 0-4")
    return seeds


def words_of_seed(loaded: LoadedConfig, seed: int) -> list[str]:
    """The overrides that make one training of several: its seed, ``RUN_seedN`` to lie in, one group in W&B."""
    words = [f"seed={seed}", f"output_dir={_run_dir(loaded, seed)}"]
    return words if loaded.config.wandb.group else [*words, f"wandb.group={loaded.run_dir.name}"]


def array_seed(seeds: Sequence[int]) -> int | None:
    """In a job of a SLURM array the one seed that it is for, else None.

    Raises:
        UserError: the array was made for other seeds.
    """
    if _ARRAY_TASK not in os.environ:
        return None
    seed = int(os.environ[_ARRAY_TASK])
    if seed not in seeds:
        raise UserError(f"this is job {seed} of a SLURM array, and --seeds has no {seed}: submit with train --slurm")
    return seed


def submit(config: str, overrides: Sequence[str], seeds: Sequence[int], loaded: LoadedConfig, console: Console) -> int:
    """Hand the trainings to SLURM as one array, a job a seed; what sbatch says is printed.

    Raises:
        UserError: there is no sbatch or no script for it, or sbatch refuses.
    """
    if not SCRIPT.is_file():
        raise UserError(f"{SCRIPT} is not there: --slurm needs a checkout of the project")
    if shutil.which("sbatch") is None:
        raise UserError("there is no sbatch here: call --slurm where jobs are submitted, or leave it out")
    listed = ",".join(map(str, seeds))
    command = ["sbatch", f"--array={listed}", f"--job-name={loaded.run_dir.name}", str(SCRIPT)]
    known = {"PYTHON": sys.executable, **os.environ}  # sbatch hands them on, and the job may start in another folder
    done = subprocess.run([*command, config, *overrides, "--seeds", listed], env=known, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"sbatch refused: {' '.join(done.stderr.split())}")
    console.print(done.stdout.strip(), highlight=False)
    console.print(
        f"each job writes {_run_dir(loaded, 'N')}; afterwards: {_compare(loaded, seeds)}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def run_one_after_another(
    config: str, overrides: Sequence[str], seeds: Sequence[int], loaded: LoadedConfig, console: Console
) -> int:
    """Train with each seed in a process of its own, so that one that fails leaves the others alone.

    What is finished is not done again. Returns 0 if all are finished, 1 if one failed, 130 after an interrupt.

    Raises:
        UserError: this is one of several processes.
    """
    if started_processes() not in (None, (1, 1)):
        raise UserError(
            "--seeds starts one training after another by itself; under torchrun or srun call the command once for "
            "each seed (seed=N output_dir=DIR), or submit an array with --slurm"
        )
    failed = []
    for seed in seeds:
        console.rule(f"seed {seed}: {_run_dir(loaded, seed)}")
        if is_finished(loaded, seed):
            console.print("is finished", highlight=False)
            continue
        command = [sys.executable, "-m", "densevision", "train", config, *overrides, *words_of_seed(loaded, seed)]
        status, interrupted = _wait(subprocess.Popen(command))
        if interrupted or status == 130:
            console.print("interrupted; the same command goes on", highlight=False)
            return 130
        if status:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            console.print(f"seed {seed} {how}; the others go on", highlight=False)
            failed.append(seed)
    _report(loaded, seeds, failed, console)
    return 1 if failed else 0


def is_finished(loaded: LoadedConfig, seed: int) -> bool:
    """Whether the run of a seed has reached the end that is asked for now."""
    run_dir, wanted = _run_dir(loaded, seed), loaded.config.trainer
    if wanted.resume == "never":
        return False
    try:
        then = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))["trainer"]
        ended = (run_dir / "summary.json").is_file()
        return ended and (then["max_steps"], then["max_epochs"]) == (wanted.max_steps, wanted.max_epochs)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return False


def _wait(process: subprocess.Popen[Any]) -> tuple[int, bool]:
    """Status of a training and whether it was to stop; the training sees to that itself, and saves."""
    signals: list[int] = []

    def take(number: int, frame: Any) -> None:
        signals.append(number)
        if number == signal.SIGTERM:  # an interrupt at the keyboard goes to both
            process.send_signal(number)

    handlers = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return process.wait(), bool(signals)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _report(loaded: LoadedConfig, seeds: Sequence[int], failed: Sequence[int], console: Console) -> None:
    console.rule("all seeds")
    bests = {}
    for seed in seeds:
        if seed not in failed:
            best = json.loads((_run_dir(loaded, seed) / "summary.json").read_text(encoding="utf-8"))["best"]
            name = next(key for key in best if key != "step")
            bests[seed] = best[name]
            console.print(f"seed {seed}: best {name} {best[name]:.4f} at step {best['step']}", highlight=False)
    if len(bests) > 1:
        values = list(bests.values())
        console.print(
            f"mean {statistics.mean(values):.4f}, standard deviation {statistics.stdev(values):.4f}", highlight=False
        )
    if failed:
        console.print(f"failed: seed {', '.join(map(str, failed))}; the same command tries again", highlight=False)
    console.print(_compare(loaded, seeds), highlight=False, soft_wrap=True)


def _run_dir(loaded: LoadedConfig, seed: int | str) -> Path:
    return loaded.run_dir.with_name(f"{loaded.run_dir.name}_seed{seed}")


def _compare(loaded: LoadedConfig, seeds: Sequence[int]) -> str:
    return f"densevision compare {' '.join(str(_run_dir(loaded, seed)) for seed in seeds)} --html report.html"
