"""What a search saw, a line a network, and the picture of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from densevision.errors import UserError
from densevision.io import atomic_write


@dataclass(frozen=True)
class Entry:
    """A network that was judged.

    number: from 0. round: of the search; 0 is its seed. change: what it is, in words. score, cost: of the task, in
    the cost's unit. reward: of both, where the search has one. chosen: whether the search went on from here or ended
    here. trial: the key of its :class:`densevision.search.trials.TrialStore`.
    """

    number: int
    round: int
    change: str
    score: float
    cost: float
    chosen: bool
    trial: str
    reward: float | None = None


class History:
    """Lines of ``history.jsonl``, written when they are known; a search that begins again writes them again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries: list[Entry] = []

    def add(self, entries: Iterable[Entry]) -> None:
        """Add what a round saw; the file is replaced as a whole."""
        self.entries += entries
        self._write()

    def choose(self, trial: str) -> None:
        """Mark the first entry of a trial as chosen."""
        index = next(i for i, entry in enumerate(self.entries) if entry.trial == trial)
        self.entries[index] = replace(self.entries[index], chosen=True)
        self._write()

    def _write(self) -> None:
        lines = [json.dumps(asdict(entry)) + "\n" for entry in self.entries]
        with atomic_write(self.file) as partial:
            partial.write_text("".join(lines), encoding="utf-8")


def read_history(file: Path) -> list[Entry]:
    """The entries of a file.

    Raises:
        UserError: a line is damaged.
    """
    entries = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{file}: line {number} is no entry of a search; the search's command writes the file anew"
            ) from error
    return entries


def pareto_front(entries: Sequence[Entry]) -> list[Entry]:
    """Those that no other beats in score without costing more, the cheapest first."""
    front: list[Entry] = []
    best = -math.inf
    for entry in sorted(entries, key=lambda e: (e.cost, -e.score)):
        if entry.score > best:
            front.append(entry)
            best = entry.score
    return front


def draw_pareto(
    entries: Sequence[Entry], target: float | None, unit: str, objective: str, title: str, file: Path
) -> None:
    """Draw score over cost: every network, the front, what was chosen, the seed and the target."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    axes = figure.add_subplot()
    axes.scatter([e.cost for e in entries], [e.score for e in entries], s=14, color="0.7", label="judged")
    front = pareto_front(entries)
    axes.plot([e.cost for e in front], [e.score for e in front], color="tab:blue", lw=1, marker="o", ms=3, label="best")
    chosen = [e for e in entries if e.chosen]
    axes.plot([e.cost for e in chosen], [e.score for e in chosen], "--", color="tab:orange", lw=1, label="chosen")
    axes.scatter([e.cost for e in chosen], [e.score for e in chosen], s=22, color="tab:orange")
    seeds = [e for e in entries if e.round == 0]
    axes.scatter([e.cost for e in seeds], [e.score for e in seeds], marker="*", s=120, color="black", label="seed")
    if target is not None:
        axes.axvline(target, color="tab:red", lw=1, ls=":", label="target")
    axes.set(xlabel=unit, ylabel=objective, title=title)
    axes.legend(frameon=False)
    with atomic_write(file) as partial:
        figure.savefig(partial, dpi=150, format="png")
