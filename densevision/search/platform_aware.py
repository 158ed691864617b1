"""Platform-aware search: networks of a space, judged by the task's score and their cost together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from densevision.backbones import Architecture
from densevision.search.costs import Cost
from densevision.search.history import Entry, History
from densevision.search.reward import reward
from densevision.search.samplers import Sampler
from densevision.search.space import BlockSpace
from densevision.search.trials import Job, TrialStore


@dataclass(frozen=True)
class Goal:
    """Of :func:`densevision.search.reward.reward`. floor: what is taken off every score first, for tasks where even a
    network that has learnt nothing scores."""

    target: float
    alpha: float = -0.07
    beta: float = -0.07
    floor: float = 0.0

    def __call__(self, score: float, cost: float) -> float:
        return reward(max(score - self.floor, 0.0), cost, self.target, self.alpha, self.beta)


def platform_search(
    space: BlockSpace,
    sampler: Sampler,
    cost: Cost,
    goal: Goal,
    store: TrialStore,
    history: History,
    *,
    samples: int,
    batch: int,
    steps: int,
    random_seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[Architecture, str]:
    """Judge the seed and ``samples`` networks of ``space``; the most rewarded of all, with its trial's key.

    A network that comes again is not trained again.

    Args:
        batch: networks a round; the sampler learns once a round.
        steps: that each network is trained for, from the same start.
    """
    job = Job(space.seed, steps, random_seed)
    (score,), first = store.run([job]), cost(space.seed)
    history.add([Entry(0, 0, "seed", score, first, False, store.key(job), goal(score, first))])
    networks: list[tuple[float, Architecture, str]] = [(goal(score, first), space.seed, store.key(job))]
    number = 0
    while len(networks) <= samples:
        number += 1
        choices = sampler.ask(min(batch, samples + 1 - len(networks)))
        jobs = [Job(space.decode(choice), steps, random_seed) for choice in choices]
        scores = store.run(jobs)
        costs = [cost(job.architecture) for job in jobs]
        rewards = [goal(s, c) for s, c in zip(scores, costs, strict=True)]
        sampler.tell(choices, rewards)
        networks += [(r, job.architecture, store.key(job)) for r, job in zip(rewards, jobs, strict=True)]
        best = max(networks, key=lambda network: network[0])
        places = range(len(history.entries), len(history.entries) + len(jobs))
        history.add(
            Entry(place, number, "-".join(map(str, choice)), s, c, False, store.key(job), r)
            for place, choice, job, s, c, r in zip(places, choices, jobs, scores, costs, rewards, strict=True)
        )
        report(
            f"round {number}: {len(networks) - 1} of {samples} networks, best reward {best[0]:.4f} "
            f"({cost(best[1]):.4g} {cost.unit}, target {goal.target:.4g}); mean of this round "
            f"{sum(rewards) / len(rewards):.4f}"
        )
    _, architecture, key = max(networks, key=lambda network: network[0])
    history.choose(key)
    return architecture, key
