"""What the accuracy benchmarks share: runs that are made once, and arms compared over their seeds."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, variance
from typing import Any


def run_file(output: Path, *words: str | int) -> Path:
    """Where the result of a run lies: the words' letters and digits, joined by hyphens."""
    letters = "".join(letter if letter.isalnum() else " " for letter in " ".join(map(str, words)))
    return output / f"{'-'.join(letters.split())}.json"


def run_once(file: Path, labels: Mapping[str, Any], train: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """What ``file`` holds: the labels, what ``train`` returned and the seconds it took; trains where it is missing.

    Args:
        file: of the result; it is there once the run is complete. A result with other labels is not this run's.
        labels: values that JSON has.
        train: gets the run directory, which is not there yet.
    """
    if not is_result(file, labels):
        if (run := file.with_suffix("")).exists():  # with other labels, or cut off; a run is short and begins again
            shutil.rmtree(run)
        began, worked = time.perf_counter(), time.process_time()
        scores = train(run)
        times = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - worked}
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps({**labels, **scores, **times}, indent=2) + "\n")
        partial.rename(file)
    return read_run(file)


def read_run(file: Path) -> dict[str, Any]:
    """The result of a run, as :func:`run_once` wrote it."""
    result: dict[str, Any] = json.loads(file.read_text())
    return result


def is_result(file: Path, labels: Mapping[str, Any]) -> bool:
    """Whether ``file`` is there and has these labels; None stands for a missing one too."""
    return file.exists() and all(read_run(file).get(key) == value for key, value in labels.items())


def print_comparison(title: str, scores: Mapping[str, Sequence[float]], reference: str) -> None:
    """A table: each arm's seeds, their mean and spread, and its difference to the reference arm's mean.

    Args:
        scores: by arm, of every seed; arms without any are left out.
        reference: one of the arms.
    """
    print(f"\n{title}")
    print(f"{'arm':40} {'seeds':>5} {'mean':>6} {'spread':>11}   difference to '{reference}', 95 % interval")
    for arm, values in scores.items():
        if not values:
            continue
        line = f"{arm:40} {len(values):5} {mean(values):6.1f} {min(values):5.1f}-{max(values):5.1f}"
        if arm != reference and scores[reference]:
            line += f"   {mean(values) - mean(scores[reference]):+.1f}"
            if len(values) > 1 and len(scores[reference]) > 1:
                line += f" +- {half_interval(values, scores[reference]):.1f}"
        print(line)


def half_interval(a: Sequence[float], b: Sequence[float]) -> float:
    """Half of Welch's 95 % interval of the difference of two means: seeds of different arms are not pairs."""
    from scipy.stats import t

    parts = [variance(x) / len(x) for x in (a, b)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True))
    return float(t.ppf(0.975, freedom)) * math.sqrt(sum(parts))
