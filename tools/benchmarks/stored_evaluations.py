"""Evaluations of networks that are made once and kept with the project, so that what is claimed is replayed in minutes.

A file has a line an evaluation. Its key is a digest of all that the outcome depends on but the machine: the recipe, the
network, the seed. What a changed recipe asks for is not there and has to be made; nothing is ever filled in.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from densevision.io import atomic_write, make_folder, write_json
from densevision.search.trials import Job, Outcome, TrialStore, read_trial, weights_file

RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs/search_benchmarks")  # weights, decoded pictures: what is not kept with the project
# mIoU, of 1. A kind of processor and a version of PyTorch repeat a training on one thread to the bit; others round
# differently, and some dozens of steps make of that what another seed makes
EXACT, ELSEWHERE = 1e-9, 0.05


class Evaluations:
    """Key -> plain values, in a file of a line each; several processes may add to it.

    Args:
        file: is there after the first evaluation.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        self.known: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(lines, start=1):
            try:
                values = json.loads(line)
                self.known[values.pop("key")] = values
            except (ValueError, KeyError) as error:
                raise SystemExit(f"{file}, line {number} is no evaluation; remove it") from error

    def add(self, key: str, values: dict[str, Any]) -> None:
        """Keep an outcome, at once."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"key": key, **values}) + "\n")
        self.known[key] = values

    def forget(self) -> None:
        """Begin anew, keeping the old file beside the new one."""
        if self.file.exists():
            os.replace(self.file, self.file.with_suffix(".before"))
        self.known = {}


class IncompleteError(Exception):
    """An evaluation is not stored, and none is to be made."""


class StoredTrials(TrialStore):
    """Trials of a search whose outcomes are kept with the project; their weights are not, and are made again.

    Args:
        loaded: the configuration, whose ``search.holdout`` says on which pictures is judged.
        judge: those pictures, in a word. name: of the search, for people.
        folder: for files that are not kept.
        build: whether what is not stored is made.
        ancestors: makes the trials whose weights these inherit; None: this store does.

    Attributes:
        seen: the scores that were asked for, by key.
    """

    def __init__(
        self,
        loaded: Any,
        judge: str,
        name: str,
        folder: Path,
        evaluations: Evaluations,
        build: bool = False,
        ancestors: StoredTrials | None = None,
    ) -> None:
        from densevision.models import resolved

        super().__init__(folder, {"recipe": recipe(loaded), "judge": judge}, self._make)
        loaded.config.model = resolved(loaded.config.model)
        self.config, self.judge, self.name, self.evaluations = loaded.config, judge, name, evaluations
        self.build, self.ancestors = build, ancestors or self
        self.seen: dict[str, float] = {}
        self._trial: Any = None

    def run(self, jobs: Sequence[Job]) -> list[float]:
        """As a search's store, from what is kept; an outcome is kept as soon as it is known.

        Raises:
            IncompleteError: one is not there and none is to be made.
        """
        keys = [self.key(job) for job in jobs]
        missing = sum(key not in self.evaluations.known for key in keys)
        if missing and not self.build:
            raise IncompleteError(f"{len(self.seen)} evaluations are stored; {missing} of the next {len(keys)} are not")
        make_folder(self.folder)
        for key, job in zip(keys, jobs, strict=True):
            write_json(self.folder / f"{key}.json", {"setting": self.setting, **job.description()})
        self._make([self.folder / f"{key}.json" for key in dict.fromkeys(keys)])
        scores = [float(self.evaluations.known[key]["score"]) for key in keys]
        self.seen |= dict(zip(keys, scores, strict=True))
        return scores

    def _make(self, files: Sequence[Path]) -> None:
        for number, file in enumerate(files, start=1):
            if file.stem not in self.evaluations.known:
                outcome = self.make(file.stem)
                what = {"search": self.name, "judge": self.judge, "score": outcome.score, "made_with": made_with()}
                self.evaluations.add(file.stem, what)
                print(f"{self.name}, {number} of {len(files)}: {outcome.score:.4f}", flush=True)

    def make(self, key: str) -> Outcome:
        """Make a trial, its ancestors first where their weights are not here; its own are kept if wanted."""
        from densevision.search_trial import TaskTrial, trial_setting

        self._trial = self._trial or TaskTrial(trial_setting(self.config))
        file = self.folder / f"{key}.json"
        network, stored = read_trial(file)
        parent = stored["parent"]
        if parent and not weights_file(self.folder / f"{parent}.json").exists():
            self.ancestors.make(parent)
        outcome = self._trial(network, self.inherited(parent) if parent else None, stored["steps"], stored["seed"])
        if stored["keep"]:
            with atomic_write(weights_file(file)) as partial:
                torch.save(outcome.weights, partial)
        return outcome


def made_with() -> str:
    """What a training's last bits depend on beside its recipe."""
    from densevision.latency_table import this_machine

    return f"{this_machine()['processor']}, torch {torch.__version__.partition('+')[0]}"


def recheck(count: int, stores: Sequence[StoredTrials]) -> int:
    """Make ``count`` stored trials again, drawn by chance; 1 if one differs by more than may be, else 0."""
    trials = sorted((key, number) for number, store in enumerate(stores) for key in store.seen)
    wrong = 0
    for key, number in random.sample(trials, min(count, len(trials))):
        store = stores[number]
        origin = store.evaluations.known[key]["made_with"]
        tolerance = EXACT if origin == made_with() else ELSEWHERE
        difference = abs(store.make(key).score - store.seen[key])
        wrong |= difference > tolerance
        print(
            f"recheck {store.name} {key}: mIoU {store.seen[key]:.6f} ({origin}), made again it differs by "
            f"{difference:.1e}, at most {tolerance:g} expected{': DIFFERS' if difference > tolerance else ''}",
            flush=True,
        )
    return int(wrong)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What the benchmarks of the searches have in common on their command lines."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    test_data = os.environ.get("DENSEVISION_TEST_DATA")
    parser.add_argument("--data", type=Path, default=test_data and Path(test_data) / "camvid_cityscapes")
    parser.add_argument("--build", action="store_true", help="make the evaluations that are missing")
    parser.add_argument("--rebuild", action="store_true", help="make all evaluations anew")
    parser.add_argument("--recheck", type=int, default=0, metavar="N", help="make N stored ones again and compare")
    return parser


def recipe(loaded: Any) -> list[str]:
    """What a trial's outcome depends on beside the network and the seed: what differs from the keys' defaults.

    Left out are the paths of a machine, and what a search decides for its trials.
    """
    from densevision.config import Config, config_to_dict, flat_items

    learnt_by = ("model.", "data.", "loss.", "optim.", "trainer.bn_recalibration", "trainer.channels_last")
    paths = ("data.root", "data.cache", "data.num_workers", "model.backbone.pretrained")

    def words(config: Any) -> set[str]:
        items = flat_items(config_to_dict(config))
        return {f"{k}={v}" for k, v in items if k.startswith(learnt_by) and not k.startswith(paths)}

    return sorted(words(loaded.config) - words(Config()))


def load_search(config: str, words: Sequence[str]) -> Any:
    """A search's configuration on small pictures of CamVid in the Cityscapes layout."""
    from densevision.config import load_config
    from densevision.config.search_schema import SearchRun

    small = ["data.image_size=[64,96]", "data.crop_size=[64,96]", "data.eval_batch_size=16", "data.num_workers=0"]
    small += ["data.cache=raw", f"data.cache_dir={RUNS}/cache", "trainer.bn_recalibration=10"]
    return load_config(config, [*small, *words], SearchRun)
