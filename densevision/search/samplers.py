"""Ways to propose networks of a space: by chance, or by evolution. The controller has a file of its own."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from densevision.search.space import Choice


class Sampler(Protocol):
    """Proposes choices and learns from their rewards; deterministic given its seed and the rewards."""

    def ask(self, count: int) -> list[Choice]:
        """``count`` choices to be judged."""

    def tell(self, choices: Sequence[Choice], rewards: Sequence[float]) -> None:
        """What the choices of the last :meth:`ask` were worth, in its order."""


class RandomSearch:
    """Every choice uniformly, whatever was seen before.

    Args:
        sizes: how many values each decision has.
    """

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        self.sizes = sizes
        self.random = random.Random(seed)

    def ask(self, count: int) -> list[Choice]:
        return [tuple(self.random.randrange(size) for size in self.sizes) for _ in range(count)]

    def tell(self, choices: Sequence[Choice], rewards: Sequence[float]) -> None:
        pass


class Evolution:
    """Regularised evolution: the best of a few drawn from the youngest has a child with one decision changed.

    Source: Real et al., Regularized Evolution for Image Classifier Architecture Search (2019), algorithm 1.

    Args:
        sizes: how many values each decision has.
        population: how many of the youngest live; so many are drawn by chance at first.
        tournament: how many of them compete to be a parent.
    """

    def __init__(self, sizes: Sequence[int], seed: int, population: int = 16, tournament: int = 4) -> None:
        self.first = RandomSearch(sizes, seed)
        self.random = random.Random(seed + 1)
        self.sizes = sizes
        self.tournament = tournament
        self.alive: deque[tuple[Choice, float]] = deque(maxlen=population)

    def ask(self, count: int) -> list[Choice]:
        choices = []
        for _ in range(count):
            full = len(self.alive) == self.alive.maxlen
            choices.append(self._child() if full else self.first.ask(1)[0])
        return choices

    def tell(self, choices: Sequence[Choice], rewards: Sequence[float]) -> None:
        self.alive.extend(zip(choices, rewards, strict=True))

    def _child(self) -> Choice:
        rivals = self.random.sample(list(self.alive), min(self.tournament, len(self.alive)))
        child = list(max(rivals, key=lambda rival: rival[1])[0])
        place = self.random.choice([i for i, size in enumerate(self.sizes) if size > 1])
        child[place] = self.random.choice([value for value in range(self.sizes[place]) if value != child[place]])
        return tuple(child)
