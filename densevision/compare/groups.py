"""Runs of one experiment with several seeds become a group; groups are what is compared."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from densevision.compare.runs import Run
from densevision.config.lookup import unknown_name
from densevision.errors import UserError

# keys that say where and how a run was made, not what it learns
_ASIDE: tuple[str, ...] = (
    "output_dir",
    "wandb.",
    "data.root",
    "data.cache",
    "data.num_workers",
    "data.eval_batch_size",
)
_ASIDE += ("trainer.resume", "trainer.log_every", "trainer.checkpoint_every", "trainer.pictures", "trainer.devices")
_ASIDE += ("trainer.num_nodes", "trainer.accelerator")
SEED = "seed"
ABSENT = "–"  # of a key that an older version of the code did not have: no difference by itself


@dataclass(frozen=True)
class Spread:
    """Some runs' values of one figure. values: of those that have it, in their order."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """nan without values."""
        return statistics.mean(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """The standard deviation of a sample; nan of fewer than two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone, or, where they were grouped by a key, agree in it.

    label: for people. runs: all. judged: those whose scores count: the finished ones, or where none is all.
    """

    label: str
    runs: tuple[Run, ...]

    @property
    def judged(self) -> tuple[Run, ...]:
        finished = tuple(run for run in self.runs if run.finished)
        return finished or self.runs

    def spread(self, figure: Callable[[Run], float | None]) -> Spread:
        """A figure of the runs that count; those without it are left out."""
        return Spread(tuple(value for value in map(figure, self.judged) if value is not None))

    def common(self, figure: Callable[[Run], Any]) -> Any:
        """What all runs say of the figure; None where they differ or do not say."""
        said = {json.dumps(figure(run)) for run in self.runs}
        return json.loads(said.pop()) if len(said) == 1 else None

    @property
    def madds(self) -> float | None:
        """Multiply-adds of one picture."""
        value = self.common(lambda run: run.model_figure("paper_madds"))
        return value if isinstance(value, int | float) else None

    def latency(self, how: str | None) -> float | None:
        """Milliseconds of one picture, mean of the runs that were measured so."""
        values = [run.latencies[how] for run in self.runs if how in run.latencies]
        return statistics.mean(values) if values else None


@dataclass(frozen=True)
class Comparison:
    """Groups side by side. differing: key -> its value by group, "several" within one. remarks: what limits it.
    measured: how the latencies that are shown were measured; None without any."""

    groups: tuple[Group, ...]
    monitor: str
    differing: dict[str, tuple[str, ...]]
    remarks: tuple[str, ...]
    measured: str | None = None


def compare(runs: Sequence[Run], group_by: Sequence[str] = ()) -> Comparison:
    """Put runs into groups and say what differs.

    Args:
        runs: of one task.
        group_by: dotted keys; without any, all that differ but the seed.

    Raises:
        UserError: runs of several tasks, or a key that no run has.
    """
    scores = {run.monitor for run in runs}
    if len(scores) > 1:
        said = ", ".join(f"{run.name} by {run.monitor}" for run in runs)
        raise UserError(f"runs that are judged by different scores cannot be compared: {said}")
    known = {key for run in runs for key in run.config}
    for key in group_by:
        if key not in known:
            raise UserError(f"--group-by: {unknown_name('key', key, known)}")
    differing = [
        key
        for key in sorted(known)
        if key != SEED and not key.startswith(_ASIDE) and len({_text(run, key) for run in runs} - {ABSENT}) > 1
    ]
    keys = list(group_by) or differing
    members: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        members.setdefault(tuple(_text(run, key) for key in keys), []).append(run)
    labels = _labels(keys, members)
    groups = tuple(Group(label, tuple(own)) for label, own in zip(labels, members.values(), strict=True))
    table = {key: tuple(_of_group(group, key) for group in groups) for key in differing}
    ways = [how for run in runs for how in run.latencies]
    # that most groups have, the first of them as it stands in the files
    measured = max(ways, key=lambda how: sum(group.latency(how) is not None for group in groups), default=None)
    remarks = _remarks(groups, list(runs), table)
    others = [g.label for g in groups if g.latency(measured) is None and any(run.latencies for run in g.runs)]
    if others:
        remarks.append(f"The latency of {', '.join(others)} was not measured as the others' ({measured}).")
    return Comparison(groups, scores.pop(), table, tuple(remarks), measured)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, score) points that no other beats in both, by rising cost."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def apart(left: Spread, right: Spread) -> bool:
    """Whether every value on one side is above every one on the other, at least two on each: a hint, no proof."""
    if min(len(left.values), len(right.values)) < 2:
        return False
    return min(left.values) > max(right.values) or max(left.values) < min(right.values)


def _text(run: Run, key: str) -> str:
    if key not in run.config:
        return ABSENT
    value = _plain(run.config[key])
    return value if isinstance(value, str) else json.dumps(value)


def _plain(value: Any) -> Any:
    """Without the difference of 1.0 and 1, which W&B's files do not keep."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _of_group(group: Group, key: str) -> str:
    values = {_text(run, key) for run in group.runs}
    return values.pop() if len(values) == 1 else f"several ({', '.join(sorted(values))})"


def _labels(keys: Sequence[str], members: dict[tuple[str, ...], list[Run]]) -> list[str]:
    if not keys:
        return [_stem([run.name for run in own]) for own in members.values()]
    if len(keys) <= 3:
        short = [key.rsplit(".", 1)[-1] for key in keys]
        texts = [
            ", ".join(
                value if not _is_plain(value) else f"{name} {value}" for name, value in zip(short, values, strict=True)
            )
            for values in members
        ]
    else:
        texts = [_stem([run.name for run in own]) for own in members.values()]
    return [text if texts.count(text) == 1 else f"{text} ({number})" for number, text in enumerate(texts, 1)]


def _is_plain(value: str) -> bool:
    """Whether a value says nothing without the name of its key: numbers, true, null, lists."""
    try:
        json.loads(value)
    except ValueError:
        return False
    return True


def _stem(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    differ = (place for place, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1)
    same = next(differ, min(map(len, names)))
    return names[0][:same].removesuffix("_seed").rstrip("_-./") or names[0]


def _remarks(groups: Sequence[Group], runs: Sequence[Run], differing: dict[str, tuple[str, ...]]) -> list[str]:
    """What a careful reader has to know before believing the table."""
    remarks = []
    if len({json.dumps(_data(run, "val")) for run in runs}) > 1:
        remarks.append(
            "The validation pictures differ between runs (by their fingerprints): the scores are not of one test."
        )
    if len({json.dumps(_data(run, "train")) for run in runs}) > 1:
        remarks.append("The training pictures differ between runs (by their fingerprints).")
    unfinished = [run.name for run in runs if not run.finished]
    if unfinished:
        remarks.append(f"Not finished: {', '.join(unfinished)}. Where a group has finished runs, only those count.")
    single = [group.label for group in groups if len(group.judged) == 1]
    if single:
        remarks.append(f"One run only: {', '.join(single)}. Nothing is known of how much chance moves it.")
    several = {
        group.label: spread for group in groups if len((spread := group.spread(lambda run: run.best)).values) > 1
    }
    if len(several) > 1:
        first = max(several, key=lambda label: several[label].mean)
        near = [label for label in several if label != first and not apart(several[label], several[first])]
        if near:
            remarks.append(
                f"{first} has the best mean, but runs of {', '.join(near)} reach into its: it may be chance."
            )
    for group in groups:
        seeds = [run.config.get(SEED) for run in group.runs]
        if len(set(seeds)) < len(seeds):
            remarks.append(f"{group.label} has runs of the same seed: its spread is less than chance's.")
        mixed = [key for key, values in differing.items() if values[groups.index(group)].startswith("several (")]
        if mixed:
            remarks.append(f"{group.label} mixes values of {', '.join(mixed)}: its spread is not of seeds alone.")
    if len({run.origin.get("device") for run in runs}) > 1:
        remarks.append("The runs were made on different devices: their images/s cannot be compared.")
    if len({json.dumps(run.model_figure("image_size")) for run in runs}) > 1:
        remarks.append("Multiply-adds are for each run's own picture size, and these differ.")
    code = [run.section("code") for run in runs]
    if len({json.dumps(version.get("commit")) for version in code}) > 1:
        remarks.append("The runs were made by different versions of the code.")
    if any(version.get("changed") for version in code):
        remarks.append("Some of the code was not committed when it ran.")
    return remarks


def _data(run: Run, split: str) -> Any:
    return run.section("data", split).get("fingerprint")
