"""Controller and evolution against chance, on a space of which every network was trained three times.

    python tools/benchmarks/search_samplers.py [--recheck 3] [--build | --rebuild] [--data DIR]

The space: 64 networks around MobileNetV3-Small with LR-ASPP, from four choices of an expansion (none, or 6 times the
input) and two of a layer more or less. Each was trained for 60 steps of batch 8 on CamVid at 64x96 in the Cityscapes
layout and judged by the mIoU of training pictures held out, with three seeds. A search sees one seed's score, drawn by
chance, as a search would; what it has found is judged by the mean of the three. The searches are replayed over many
seeds from results/search_samplers.jsonl.
"""

from __future__ import annotations

import itertools
import math
import random
import sys
from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import Any

from stored_evaluations import (
    RESULTS,
    RUNS,
    Evaluations,
    IncompleteError,
    StoredTrials,
    arguments,
    load_search,
    recheck,
)

from densevision.search.samplers import Sampler
from densevision.search.space import Choice

STEPS, SEEDS = 60, 3
# decision -> values of the six that are free; the others stand at their first value
SIZES = (2, 2, 2, 2, 2, 2)
LARGEST = (1, 1, 1, 1, 1, 1)
FREE = (
    "block 1 operator",
    "block 2 operator",
    "block 3 operator",
    "block 4 operator",
    "block 2 layers",
    "block 4 layers",
)
WORDS = (
    "search.space.operators=[sepconv,mbconv6]", "search.space.kernels=[5]", "search.space.squeeze=[0.25]",
    "search.space.skip=[true]", "search.space.widths=[1.0]", "search.space.layers=[-1,0]",
)  # fmt: skip


class Benchmark:
    """The space, and the stored scores of its networks."""

    def __init__(self, data: Any, build: bool) -> None:
        from densevision.model_backbone import build_architecture
        from densevision.search.space import BlockSpace, SpaceOptions

        loaded = load_search("search/platform_nas_lraspp", [*WORDS, *([f"data.root={data}"] if data else [])])
        run: Any = loaded.config
        self.space = BlockSpace(build_architecture(run.model.backbone), SpaceOptions(**vars(run.search.space)))
        evaluations = Evaluations(RESULTS / "search_samplers.jsonl")
        self.store = StoredTrials(loaded, "held out", "micro-benchmark", RUNS / "samplers", evaluations, build)
        self.networks = {choice: self.network(choice) for choice in itertools.product(*map(range, SIZES))}

    def network(self, choice: Sequence[int]) -> Any:
        """The architecture of a choice; what is not free stands at the seed's (layers) or the first value."""
        values = dict(zip(FREE, choice, strict=True))
        names = [decision.name for decision in self.space.decisions]
        return self.space.decode(tuple(values.get(name, int(name.endswith("layers"))) for name in names))

    def scores(self) -> dict[tuple[int, ...], list[float]]:
        """Choice -> the mIoU of its three trainings.

        Raises:
            IncompleteError: one is not stored and not to be made.
        """
        from densevision.search.trials import Job

        jobs = [Job(network, STEPS, seed) for seed in range(SEEDS) for network in self.networks.values()]
        scores = self.store.run(jobs)
        return {choice: scores[number :: len(self.networks)] for number, choice in enumerate(self.networks)}

    def costs(self) -> dict[Choice, float]:
        """Choice -> milliseconds, as the stored table of parts has them."""
        from densevision.latency_table import LatencyTable
        from densevision.search_run import build_cost

        run: Any = self.store.config
        run.search.cost = "latency"
        cost = build_cost(run, 19, LatencyTable(RESULTS / "latency_samplers.json"))
        return {choice: cost(network) for choice, network in self.networks.items()}


SAMPLES, REPLAYS = (8, 16, 24, 32, 48), 500
TARGET, EXPONENT = 0.7, -0.15  # of the latency of the largest; MobileNetV3-Small's exponent


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--replays", type=int, default=REPLAYS, help="seeds of every sampler")
    options = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    if options.rebuild:
        Evaluations(RESULTS / "search_samplers.jsonl").forget()
    benchmark = Benchmark(options.data, options.build or options.rebuild)
    try:
        scores = benchmark.scores()
    except IncompleteError as error:
        print(error)
        return 1
    report(scores, benchmark.costs(), options.replays)
    return recheck(options.recheck, [benchmark.store]) if options.recheck else 0


def report(scores: dict[Choice, list[float]], costs: dict[Choice, float], replays: int) -> None:
    """What each sampler's best network is worth after so many samples, and its difference to chance."""
    from densevision.search.controller import Controller
    from densevision.search.platform_aware import Goal
    from densevision.search.samplers import Evolution, RandomSearch

    goal = Goal(TARGET * costs[LARGEST], EXPONENT, EXPONENT)
    truth = {choice: goal(mean(values), costs[choice]) for choice, values in scores.items()}
    spread = mean(stdev(values) for values in scores.values())
    between = stdev([mean(values) for values in scores.values()])
    print(
        f"{len(scores)} networks, mIoU {100 * mean(map(mean, scores.values())):.2f}, deviation between networks "
        f"{100 * between:.2f}, between seeds {100 * spread:.2f}; best reward {max(truth.values()):.4f}, "
        f"mean {mean(truth.values()):.4f}"
    )
    samplers: dict[str, Callable[[int], Sampler]] = {
        "random": lambda seed: RandomSearch(SIZES, seed),
        "evolution": lambda seed: Evolution(SIZES, seed, population=8, tournament=3),
        "controller": lambda seed: Controller(SIZES, seed),
    }
    found = {name: [replay(make(seed), scores, costs, goal, truth, seed) for seed in range(replays)]
             for name, make in samplers.items()}  # fmt: skip
    print(
        f"\nreward of the network that a search of so many samples ends with, mean of {replays} replays, 95 % interval"
    )
    print(f"{'samples':>10} " + "".join(f"{name:>24}" for name in samplers))
    for place, count in enumerate(SAMPLES):
        columns = [[values[place] for values in found[name]] for name in samplers]
        print(f"{count:10} " + "".join(f"{mean(c):14.4f} +- {half(c):.4f}" for c in columns))
    print("\ndifference to random, the replays in pairs")
    for name in list(samplers)[1:]:
        for place, count in enumerate(SAMPLES):
            pairs = [a[place] - b[place] for a, b in zip(found[name], found["random"], strict=True)]
            low, high = mean(pairs) - half(pairs), mean(pairs) + half(pairs)
            verdict = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
            print(f"{name:12} {count:4} samples {mean(pairs):+.4f} [{low:+.4f}, {high:+.4f}]  {verdict}")


def replay(
    sampler: Sampler,
    scores: dict[Choice, list[float]],
    costs: dict[Choice, float],
    goal: Callable[[float, float], float],
    truth: dict[Choice, float],
    seed: int,
    batch: int = 4,
) -> list[float]:
    """The true reward of the network that looks best, after each of :data:`SAMPLES`.

    A search trains a network once, with one seed, and keeps what it saw.
    """
    chance = random.Random(seed)
    seen = {choice: goal(chance.choice(values), costs[choice]) for choice, values in scores.items()}
    best, reached = (float("-inf"), LARGEST), []
    for count in range(batch, SAMPLES[-1] + 1, batch):
        choices = sampler.ask(batch)
        sampler.tell(choices, [seen[choice] for choice in choices])
        best = max([best, *((seen[choice], choice) for choice in choices)])
        if count in SAMPLES:
            reached.append(truth[best[1]])
    return reached


def half(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean."""
    return 1.96 * stdev(values) / math.sqrt(len(values))


if __name__ == "__main__":
    sys.exit(main())
