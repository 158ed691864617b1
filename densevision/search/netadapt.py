"""NetAdapt as MobileNetV3 used it: shrink step by step, each time where the task loses least for what is saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from densevision.backbones import Architecture
from densevision.errors import UserError
from densevision.search.costs import Cost
from densevision.search.history import Entry, History
from densevision.search.trials import Job, TrialStore
from densevision.search.widths import STEP, shrunk, width_groups, with_width


@dataclass(frozen=True)
class Proposal:
    """A network that costs at least the wanted reduction less. change: what was shrunk, in words."""

    change: str
    architecture: Architecture
    cost: float


def proposals(architecture: Architecture, cost: Cost, limit: float, step: int = STEP) -> list[Proposal]:
    """One network a width of ``architecture``: that width alone shrunk until the cost is at most ``limit``.

    Widths that cannot save that much give none.
    """
    found = []
    for index, group in enumerate(width_groups(architecture)):
        # a latency is measured for every width that is tried: none is, where even the least would not do
        if group.width <= step or cost(with_width(architecture, group, step)) > limit:
            continue
        smaller: Architecture | None = architecture
        while smaller is not None and cost(smaller) > limit:
            smaller = shrunk(smaller, width_groups(smaller)[index], step)
        if smaller is not None:
            change = f"{group.name}: {group.width} -> {width_groups(smaller)[index].width}"
            found.append(Proposal(change, smaller, cost(smaller)))
    return found


def netadapt(
    seed: Architecture,
    cost: Cost,
    target: float,
    store: TrialStore,
    history: History,
    *,
    delta: float = 0.01,
    steps: int = 10_000,
    seed_steps: int = 10_000,
    step: int = STEP,
    random_seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[Architecture, str]:
    """Shrink ``seed`` until it costs ``target``.

    In every round each proposal inherits the strongest channels of the network so far and is trained for ``steps``;
    the one with the greatest change of score per saved cost is the next network. Source: MobileNetV3 paper, 4.2, with
    proposals of its two kinds (any expansion; a bottleneck in all blocks that share it) and the last 1x1 convolution,
    which is an expansion too.

    Args:
        target: in the cost's unit.
        delta: least reduction a round, as a share of the seed's cost.
        seed_steps: that the seed is trained for at the beginning.
        step: channels that widths are multiples of.
        report: is told every round in a sentence.

    Returns:
        the network and the key of the trial that holds its short-term trained weights. Every round's network is in
        ``history``: a curve of networks.

    Raises:
        UserError: the target cannot be reached.
    """
    architecture, first = seed, cost(seed)
    if target >= first:
        raise UserError(f"the seed costs {first:.4g} {cost.unit} already; give less", key="search.target")
    job = Job(seed, seed_steps, random_seed, keep=True)
    (score,), key = store.run([job]), store.key(job)
    history.add([Entry(0, 0, "seed", score, first, True, key)])
    number = 0
    while cost(architecture) > target:
        number += 1
        limit = max(target, cost(architecture) - delta * first)
        found = proposals(architecture, cost, limit, step)
        if not found:
            raise UserError(
                f"no width can save another {100 * delta:.3g} % at {cost(architecture):.4g} {cost.unit}; "
                "raise search.target or lower search.delta",
                key="search.target",
            )
        jobs = [Job(p.architecture, steps, random_seed + number, parent=key, keep=True) for p in found]
        scores, keys = store.run(jobs), [store.key(job) for job in jobs]
        before = cost(architecture)
        gains = [(s - score) / (before - p.cost) for s, p in zip(scores, found, strict=True)]
        best = gains.index(max(gains))
        places = range(len(history.entries), len(history.entries) + len(found))
        history.add(
            Entry(place, number, p.change, s, p.cost, i == best, k)
            for i, (place, p, s, k) in enumerate(zip(places, found, scores, keys, strict=True))
        )
        for other in set(keys) - {keys[best]}:
            store.forget_weights(other)
        architecture, score, key = found[best].architecture, scores[best], keys[best]
        report(
            f"round {number}: {found[best].change}, the best of {len(found)} proposals; "
            f"score {score:.4f}, {cost(architecture):.4g} {cost.unit} (target {target:.4g})"
        )
    return architecture, key
