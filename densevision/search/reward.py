"""What a controller is rewarded with."""

from __future__ import annotations


def reward(score: float, cost: float, target: float, alpha: float = -0.07, beta: float = -0.07) -> float:
    """``score * (cost / target) ** w`` with w = ``alpha`` up to the target and ``beta`` beyond it.

    Equal exponents are the soft constraint: -0.07 gives a network of twice the cost 5 % less, which is what doubling
    the latency gained in accuracy (MnasNet paper, 3.1; -0.15 for MobileNetV3-Small, its paper's 4.1). ``alpha=0,
    beta=-1`` is the hard one.

    Args:
        score: of the task, not negative.
        cost, target: in one unit, positive.
    """
    exponent = alpha if cost <= target else beta
    return score * (cost / target) ** exponent
