"""How the benchmarks here time: peers take turns, on the clock of the process, on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import cv2
import torch


def one_thread() -> None:
    """Keep torch and OpenCV to one thread: other load then changes the ratios least."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def interleaved(peers: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every call: in each round every peer once, after one untimed call of each."""
    for call in peers.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, call in peers.items():
            began = time.process_time()
            call()
            seconds[name].append(time.process_time() - began)
    return seconds


def ratio(seconds: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """The median over the rounds of how many times as long ``slow`` took."""
    return statistics.median(s / f for s, f in zip(seconds[slow], seconds[fast], strict=True))


def report(seconds: Mapping[str, list[float]], peer: str, wanted: Mapping[str, float]) -> int:
    """Print milliseconds and ratios over ``peer``; 1 if a ratio falls short of ``wanted``, else 0."""
    short = 0
    print(f"{'':44} {'ms':>8} {'ratio':>7}   (median of {len(seconds[peer])} interleaved rounds, CPU clock, 1 thread)")
    for name, values in seconds.items():
        times = ratio(seconds, peer, name)
        line = f"{name:44} {1e3 * statistics.median(values):8.2f} {times:7.2f}"
        if name in wanted:
            short |= times < wanted[name]
            line += f"   at least {wanted[name]:g} wanted{': MISSED' if times < wanted[name] else ''}"
        print(line)
    return int(short)
