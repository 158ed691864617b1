"""The timing protocol: turns, percentile and least; what is measured of memory and of the rows of a network."""

import time

import pytest
import torch
from torch import nn

from densevision.complexity import layers, measure
from densevision.latency import layer_latencies, network_run, peak_memory, time_calls, torch_threads, with_statistics
from tests.exports import small_network


def test_all_take_turns_after_a_warm_up():
    calls, order = {"a": 0, "b": 0}, []

    def counted(name):
        calls[name] += 1

    runs = {name: (lambda name=name: counted(name)) for name in calls}
    found = time_calls(runs, calls=7, passes=3, progress=order.append)
    assert order == ["a", "b"] * 3
    assert calls == {"a": 5 + 3 * 7, "b": 5 + 3 * 7}
    assert found["a"].calls == 7
    assert found["a"].passes == 3


def test_the_figure_is_the_quickest_pass_and_its_quick_calls():
    """Each pass is 10 calls, of which one is slow: what else the machine does must not count."""
    number = iter(range(10_000))

    def run():
        n = next(number) - 5
        slow_pass = n // 10 == 1
        time.sleep(0.03 if n % 10 == 3 else 0.008 if slow_pass else 0.002)

    found = time_calls({"x": run}, calls=10, passes=3)["x"]
    assert 2 <= found.ms < 8
    assert found.spread > 0.5


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with torch_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


def test_with_statistics_gives_maps_that_do_not_fade():
    model, _ = small_network("mobilenet_v3_small", "lraspp")
    with torch.no_grad():
        assert model(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)).std() > 0.01
    norm = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.25))
    assert with_statistics(nn.Sequential(_Float(), norm), (8, 8)).training is False
    assert norm[1].momentum == 0.25


def test_the_rows_of_a_network_are_timed():
    model, _ = small_network("mobilenet_v1", "classifier")
    rows = layers(model, (64, 64), measure(model, (64, 64)))
    picked = [rows[0], rows[3], rows[-1]]
    found = layer_latencies(model, picked, (64, 64), calls=3)
    assert list(found) == ["", *(row.name for row in picked)]
    assert all(latency.ms > 0 for latency in found.values())


@pytest.mark.slow
def test_memory_grows_with_what_is_held():
    small = peak_memory(nn.Sequential(_Float(), nn.Conv2d(3, 4, 1)), (64, 64), threads=1)
    large = peak_memory(nn.Sequential(_Float(), nn.Conv2d(3, 400, 1)), (256, 256), threads=1)
    assert large - small > 0.8 * 4 * 400 * 256 * 256


class _Float(nn.Module):
    def forward(self, x):
        return x.float()


def test_a_run_leaves_no_graph():
    model, _ = small_network("mobilenet_v1", "classifier")
    assert not network_run(model, (64, 64))().requires_grad
