"""Evaluations of networks: described by files, each made once, and found again by what it was.

A search asks for trials in batches and is deterministic given their outcomes. So a killed search is begun again and
runs through what is stored, to where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevision.backbones import Architecture, architecture_from_dict, architecture_to_dict
from densevision.errors import UserError
from densevision.io import atomic_write, make_folder, write_json

Weights = dict[str, Tensor]
_AGAIN = "delete it, and the trial is made again"


@dataclass(frozen=True)
class Inherited:
    """Trained weights and the network that they are of."""

    architecture: Architecture
    weights: Weights


@dataclass(frozen=True)
class Outcome:
    """What a trial gives. score: greater is better. weights: the trained model's, None where nobody keeps them.

    details: anything else worth keeping, plain values.
    """

    score: float
    weights: Weights | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


# (network, weights to slice and begin from, steps to train, seed) -> outcome
Trial = Callable[[Architecture, Inherited | None, int, int], Outcome]


@dataclass(frozen=True)
class Job:
    """A trial to be made. parent: key of the trial whose weights it inherits. keep: whether its own are wanted."""

    architecture: Architecture
    steps: int
    seed: int
    parent: str | None = None
    keep: bool = False

    def description(self) -> dict[str, Any]:
        """All that its outcome depends on, as plain values."""
        return {
            "architecture": architecture_to_dict(self.architecture),
            "steps": self.steps,
            "seed": self.seed,
            "parent": self.parent,
            "keep": self.keep,
        }


# makes the trials that the files describe, in any order, several at a time if it likes
Executor = Callable[[Sequence[Path]], None]


class TrialStore:
    """Makes trials or finds them made.

    ``KEY.json`` describes a trial, ``KEY.result.json`` is its outcome, ``KEY.pt`` its weights.

    Args:
        folder: where the files are.
        setting: whatever else the outcomes depend on (the configuration), plain values; trials of other settings
            have other keys.
        execute: makes trials from their files, as :func:`run_trial` in processes of their own.
    """

    def __init__(self, folder: Path, setting: Mapping[str, Any], execute: Executor) -> None:
        self.folder = folder
        self.setting = json.loads(json.dumps(setting))
        self.execute = execute
        self.made = 0

    def key(self, job: Job) -> str:
        """The trial's name: a digest of all that its outcome depends on."""
        text = json.dumps({"setting": self.setting, **job.description()}, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def run(self, jobs: Sequence[Job]) -> list[float]:
        """The score of each job, in order.

        Raises:
            UserError: a trial left no outcome.
        """
        make_folder(self.folder)
        missing: list[Path] = []
        for job in jobs:
            file = self.folder / f"{self.key(job)}.json"
            made = result_file(file).exists()
            if not (made and file.exists()):
                write_json(file, {"setting": self.setting, **job.description()})
            if not made and file not in missing:
                missing.append(file)
        if missing:
            self.execute(missing)
        self.made += len(missing)
        lost = [file for file in missing if not result_file(file).exists()]
        if lost:
            raise UserError(
                f"{len(lost)} of {len(missing)} trials left no outcome, {lost[0]} among them; "
                f"search --trial {lost[0]} says why"
            )
        return [float(self.outcome(self.key(job))["score"]) for job in jobs]

    def outcome(self, key: str) -> dict[str, Any]:
        """``score`` and the details of a trial that was made.

        Raises:
            UserError: the file is damaged.
        """
        return read_outcome(self.folder / f"{key}.json")

    def architecture(self, key: str) -> Architecture:
        """The network of a trial."""
        return read_trial(self.folder / f"{key}.json")[0]

    def inherited(self, key: str) -> Inherited:
        """The weights of a trial that was made with ``keep``."""
        return read_inherited(self.folder / f"{key}.json")

    def forget_weights(self, key: str) -> None:
        """Remove a trial's weights, which nobody will inherit."""
        weights_file(self.folder / f"{key}.json").unlink(missing_ok=True)


def run_trial(file: Path, trial: Callable[[Mapping[str, Any]], Trial]) -> Outcome:
    """Make the trial that ``file`` describes and write its outcome beside it.

    Args:
        trial: given the setting of the file, what makes its trials.

    Raises:
        UserError: no such file, or one that describes no trial.
    """
    architecture, stored = read_trial(file)
    inherited = read_inherited(file.with_name(f"{stored['parent']}.json")) if stored["parent"] else None
    outcome = trial(stored["setting"])(architecture, inherited, int(stored["steps"]), int(stored["seed"]))
    if stored["keep"]:
        if outcome.weights is None:
            raise ValueError("the trial kept no weights, but they are to be inherited")
        with atomic_write(weights_file(file)) as partial:
            torch.save(outcome.weights, partial)
    # behind the weights: whose outcome is there is complete
    write_json(result_file(file), {"score": outcome.score, **outcome.details})
    return outcome


def read_trial(file: Path) -> tuple[Architecture, dict[str, Any]]:
    """The network of the trial that ``file`` describes, and all that stands there.

    Raises:
        UserError: no such file, or one that describes no trial.
    """
    again = "delete it, and its search writes it anew"
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        missing = {"architecture", "setting", "steps", "seed", "parent", "keep"} - set(stored)
    except FileNotFoundError as error:
        raise UserError(f"no trial of a search at {file}") from error
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} describes no trial of a search: {error}; {again}") from error
    if missing:
        raise UserError(f"{file} describes no trial of a search: {', '.join(sorted(missing))} is not given; {again}")
    return architecture_from_dict(stored["architecture"], str(file)), stored


def read_outcome(file: Path) -> dict[str, Any]:
    """``score`` and the details of the trial that ``file`` describes.

    Raises:
        UserError: what is there is no outcome.
    """
    result = result_file(file)
    try:
        outcome = json.loads(result.read_text(encoding="utf-8"))
        score = outcome["score"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{result} is no outcome of a trial: {error!r}; {_AGAIN}") from error
    if not isinstance(score, int | float) or isinstance(score, bool) or not math.isfinite(score):
        raise UserError(f"{result} is no outcome of a trial: its score is {score!r}; {_AGAIN}")
    return outcome


def read_inherited(file: Path) -> Inherited:
    """The weights of the trial that ``file`` describes, and their network.

    Raises:
        UserError: they are not there, or the file is damaged.
    """
    weights = weights_file(file)
    try:
        # whatever is in a damaged file, torch has another exception for it
        return Inherited(read_trial(file)[0], torch.load(weights, map_location="cpu", weights_only=True))
    except UserError:
        raise
    except Exception as error:
        why = "are not there" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise UserError(
            f"the weights {weights} {why}; delete {result_file(file)}, and the trial is made again"
        ) from error


def result_file(file: Path) -> Path:
    """Where the outcome of the trial of ``file`` is."""
    return file.with_suffix(".result.json")


def weights_file(file: Path) -> Path:
    """Where the weights of the trial of ``file`` are."""
    return file.with_suffix(".pt")
