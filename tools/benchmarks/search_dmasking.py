"""The network that a supernet chose against networks drawn by chance from the same space, at equal cost.

    python tools/benchmarks/search_dmasking.py [--recheck 3] [--build | --rebuild] [--data DIR]

DMaskingNAS over widths of 0.5, 0.75 and 1 times those of MobileNetV3-Small with LR-ASPP, to 0.7 of its multiply-adds,
on CamVid at 64x96 in the Cityscapes layout: 12 epochs, 80 % of the training pictures for the weights and 20 % for the
choices. The network found and ten drawn by chance within 2 % of its cost are then trained alike from random weights for
100 steps of batch 8 with three seeds, and judged on the validation split. Everything is kept in
results/search_dmasking.jsonl.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Sequence
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
    recipe,
)

OTHERS, TOLERATED, STEPS, SEEDS = 10, 0.02, 100, 3
WORDS = (
    "search.method=dmasking", "search.target=0.7x", "search.supernet.widths=[0.5,0.75,1.0]",
    "search.supernet.epochs=12", "search.supernet.warmup_epochs=2", "search.supernet.decay=0.8",
    "search.supernet.theta_lr=0.1",
)  # fmt: skip


class Benchmark:
    """The search, and the trainings of what it found and of what was drawn."""

    def __init__(self, data: Any, build: bool) -> None:
        from densevision.model_backbone import build_architecture
        from densevision.models import resolved
        from densevision.search.mask_space import MaskSpace
        from densevision.search_run import build_cost

        words = [*WORDS, *([f"data.root={data}"] if data else [])]
        loaded = load_search("search/netadapt_lraspp_v3_small", words)
        self.recipe = recipe(loaded)
        self.run: Any = loaded.config
        self.run.model = resolved(self.run.model)
        self.seed = build_architecture(self.run.model.backbone)
        self.cost = build_cost(self.run, 19, None)
        self.target = float(self.run.search.target.removesuffix("x")) * self.cost(self.seed)
        self.space = MaskSpace(self.seed, self.run.search.supernet.widths)
        self.evaluations, self.may_build = Evaluations(RESULTS / "search_dmasking.jsonl"), build
        judged = load_search("search/netadapt_lraspp_v3_small", [*words, "search.holdout=null"])
        self.store = StoredTrials(judged, "val", "training", RUNS / "dmasking", self.evaluations, build)

    def found(self) -> Any:
        """The network that the supernet chose.

        Raises:
            IncompleteError: it is not stored and not to be made.
        """
        from densevision.backbones import architecture_from_dict, architecture_to_dict
        from densevision.search_supernet import search_supernet
        from densevision.search_trial import trial_setting

        text = json.dumps([self.recipe, vars(self.run.search.supernet), self.target], sort_keys=True)
        key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        if key not in self.evaluations.known:
            if not self.may_build:
                raise IncompleteError("the search is not stored")
            setting, folder = trial_setting(self.run), RUNS / "dmasking"
            network, _ = search_supernet(self.run, setting, self.seed, self.target, folder, print)
            self.evaluations.add(key, {"search": "supernet", "network": architecture_to_dict(network)})
        return architecture_from_dict(self.evaluations.known[key]["network"], "what was found")

    def drawn(self, cost: float) -> list[Any]:
        """Networks of the space by chance, all alike likely among those within 2 % of a cost."""
        import torch

        generator, networks = torch.Generator().manual_seed(0), []
        while len(networks) < OTHERS:
            network = self.space.derive(self.space.random(generator))
            if abs(self.cost(network) / cost - 1) <= TOLERATED and network not in networks:
                networks.append(network)
        return networks

    def scores(self) -> tuple[list[Any], list[list[float]]]:
        """The network found and those drawn; the mIoU of each one's trainings, in percent, of the complete seeds.

        Raises:
            IncompleteError: not even one seed is complete, and what is missing is not to be made.
        """
        from densevision.search.trials import Job

        found = self.found()
        networks = [found, *self.drawn(self.cost(found))]
        scores: list[float] = []
        for seed in range(SEEDS):
            try:
                scores += self.store.run([Job(network, STEPS, seed) for network in networks])
            except IncompleteError as error:
                if not scores:
                    raise
                print(f"only {seed} of {SEEDS} seeds are complete and counted: {error}")
                break
        return networks, [[100 * s for s in scores[i :: len(networks)]] for i in range(len(networks))]


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(__doc__).parse_args(argv)
    import torch

    torch.set_num_threads(1)
    if options.rebuild:
        Evaluations(RESULTS / "search_dmasking.jsonl").forget()
    benchmark = Benchmark(options.data, options.build or options.rebuild)
    try:
        networks, scores = benchmark.scores()
    except IncompleteError as error:
        print(error)
        return 1
    report([benchmark.cost(network) for network in networks], scores, benchmark.target)
    return recheck(options.recheck, [benchmark.store]) if options.recheck else 0


def report(costs: Sequence[float], scores: Sequence[Sequence[float]], target: float) -> None:
    """The network found, those drawn, and where it lies among them."""
    from scipy.stats import t

    print(f"target {target:.2f} million multiply-adds; mIoU on the validation split, {len(scores[0])} seeds each")
    for number, (cost, values) in enumerate(zip(costs, scores, strict=True)):
        name = "found" if number == 0 else f"drawn {number}"
        print(f"{name:10} {cost:6.2f} M  {mean(values):6.2f}  ({', '.join(f'{value:.2f}' for value in values)})")
    others = [mean(values) for values in scores[1:]]
    half = float(t.ppf(0.975, len(others) - 1)) * stdev(others)
    print(f"mean of those drawn {mean(others):.2f} +- {half / math.sqrt(len(others)):.2f} (95 %)")
    # of one more network like those drawn: the found one is better than chance where it lies above
    low, high = (mean(others) + sign * half * math.sqrt(1 + 1 / len(others)) for sign in (-1, 1))
    found, better = mean(scores[0]), sum(other >= mean(scores[0]) for other in others)
    verdict = "above" if found > high else "below" if found < low else "within"
    print(
        f"found {found:.2f}, {verdict} what one more network drawn by chance would reach in 95 of 100 cases, "
        f"{low:.2f} to {high:.2f}; {better} of {len(others)} drawn are as good or better"
    )


if __name__ == "__main__":
    sys.exit(main())
