"""NetAdapt against uniform widths, at one measured latency and with equal fine-tuning.

    python tools/benchmarks/search_netadapt.py [--recheck 3] [--build | --rebuild] [--data DIR --weights FILE]

MobileNetV2 with ImageNet weights and LR-ASPP, CamVid at 64x96 in the Cityscapes layout, three seeds. NetAdapt shrinks
to 0.7 times the seed's latency (ONNX Runtime, one thread; the parts are in results/latency_netadapt.json) in rounds of
5 %, 20 steps a proposal, judged on training pictures held out. Then three networks of that latency, or the next below
it, are trained for as many further steps and judged on the validation split:

    netadapt   what was found, from the weights that the search left
    sliced     all widths times one factor, from the seed's weights after its first 200 steps, the strongest by L2 norm
    scaled     the same network, from random weights, for all the steps that the others have had

FILE is torchvision's MobileNetV2 ImageNet state dict. Evaluations are kept in results/search_netadapt.jsonl.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from accuracy import half_interval
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

SEEDS, SEED_STEPS, STEPS, LAST_STEPS = 3, 200, 20, 200
DELTA, TARGET = 0.05, 0.7
ARMS = ("netadapt", "sliced", "scaled")
WORDS = ("model.backbone.name=mobilenet_v2", "model.backbone.zero_init_residual=false", "search.cost=latency")


class Benchmark:
    """One seed's search and its three trainings, as far as they are stored or may be made."""

    def __init__(self, seed: int, data: Any, weights: Any, build: bool) -> None:
        from densevision.latency_table import LatencyTable
        from densevision.model_backbone import build_architecture
        from densevision.models import build_model, resolved
        from densevision.search.costs import latency_cost

        self.seed = seed
        words = [*WORDS, f"model.backbone.pretrained={weights}", *([f"data.root={data}"] if data else [])]
        evaluations = Evaluations(RESULTS / "search_netadapt.jsonl")
        self.stores: dict[str, StoredTrials] = {}
        for judge, holdout in (("held out", "0.2"), ("val", "null"), ("val, random weights", "null")):
            loaded = load_search("search/netadapt_lraspp_v3_small", [*words, f"search.holdout={holdout}"])
            search = self.stores.get("held out")
            self.stores[judge] = StoredTrials(
                loaded, judge, f"seed {seed}", RUNS / "netadapt", evaluations, build, ancestors=search
            )
        run: Any = loaded.config
        # all else that follows from published weights, such as the normalisation of pixels, is resolved and stays
        self.stores["val, random weights"].config.model.backbone.pretrained = None
        model = resolved(run.model)
        self.seed_network = build_architecture(model.backbone)

        def build_one(network: Any) -> Any:
            from densevision.backbones import architecture_to_dict

            model.backbone.arch = architecture_to_dict(network)
            return build_model(model, 19, load_weights=False)

        self.cost = latency_cost(build_one, tuple(run.data.image_size), LatencyTable(RESULTS / "latency_netadapt.json"))

    def scores(self) -> dict[str, tuple[float, float]]:
        """Arm -> (mIoU on the validation split, milliseconds).

        Raises:
            IncompleteError: an evaluation is not stored and not to be made.
        """
        from densevision.search.history import History
        from densevision.search.netadapt import netadapt
        from densevision.search.trials import Job

        search = self.stores["held out"]
        history = History(RUNS / "netadapt" / f"history-{self.seed}.jsonl")
        target = TARGET * self.cost(self.seed_network)
        found, key = netadapt(
            self.seed_network, self.cost, target, search, history,
            delta=DELTA, steps=STEPS, seed_steps=SEED_STEPS, random_seed=self.seed,
            report=lambda line: print(f"seed {self.seed}, {line}", flush=True),
        )  # fmt: skip
        rounds = history.entries[-1].round
        uniform = self.uniform(self.cost(found))
        jobs = {
            "netadapt": (found, LAST_STEPS, key),
            "sliced": (uniform, rounds * STEPS + LAST_STEPS, history.entries[0].trial),
            "scaled": (uniform, SEED_STEPS + rounds * STEPS + LAST_STEPS, None),
        }
        figures = {}
        for arm, (network, steps, parent) in jobs.items():
            judge = "val" if parent else "val, random weights"
            (score,) = self.stores[judge].run([Job(network, steps, self.seed, parent)])
            figures[arm] = (100 * score, self.cost(network))
        return figures

    def uniform(self, milliseconds: float) -> Any:
        """The seed with all widths times the greatest factor, in steps of 1 %, that takes no longer."""
        for percent in range(99, 0, -1):
            network = scaled(self.seed_network, percent / 100)
            if self.cost(network) <= milliseconds:
                return network
        raise AssertionError("no factor is small enough")


def scaled(network: Any, factor: float) -> Any:
    """A network with all widths times ``factor``, as multiples of 8."""
    from densevision.layers import make_divisible
    from densevision.search.widths import width_groups, with_width

    for index, group in enumerate(width_groups(network)):
        network = with_width(
            network, width_groups(network)[index], min(group.width, make_divisible(group.width * factor))
        )
    return network


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__)
    test_data = os.environ.get("DENSEVISION_TEST_DATA")
    weights = test_data and Path(test_data).parent / "weights" / "mobilenet_v2-b0353104.pth"
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(SEEDS)), choices=range(SEEDS))
    options = parser.parse_args(argv)
    if options.weights is None:
        parser.error("give --weights, or set DENSEVISION_TEST_DATA")
    import torch

    torch.set_num_threads(1)
    if options.rebuild:
        Evaluations(RESULTS / "search_netadapt.jsonl").forget()
    figures: dict[int, dict[str, tuple[float, float]]] = {}
    benchmarks = []
    for seed in options.seeds:
        benchmarks.append(Benchmark(seed, options.data, options.weights, options.build or options.rebuild))
        try:
            figures[seed] = benchmarks[-1].scores()
        except IncompleteError as error:
            print(f"seed {seed} is not complete: {error}")
    report(figures, options.seeds)
    if options.recheck:
        return recheck(options.recheck, [store for b in benchmarks for store in b.stores.values()])
    return 0


def report(figures: dict[int, dict[str, tuple[float, float]]], seeds: Sequence[int]) -> None:
    """A line an arm, and its difference to NetAdapt."""
    print(f"\nmIoU on the validation split, {len(figures)} of {len(seeds)} seeds are complete")
    if not figures:
        return
    scores = {arm: [figures[seed][arm][0] for seed in figures] for arm in ARMS}
    for arm in ARMS:
        ms = mean(figures[seed][arm][1] for seed in figures)
        line = f"{arm:9} {mean(scores[arm]):6.2f}  ({', '.join(f'{s:.2f}' for s in scores[arm])})  {ms:.3f} ms"
        if arm != ARMS[0] and len(figures) > 1:
            difference = mean(scores[ARMS[0]]) - mean(scores[arm])
            half = half_interval(scores[ARMS[0]], scores[arm])
            line += f"   netadapt {difference:+.2f} +- {half:.2f} (95 %)"
        print(line)


if __name__ == "__main__":
    sys.exit(main())
