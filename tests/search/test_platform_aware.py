"""The space, the reward, and the samplers on landscapes that are known."""

import itertools
import math
import random
from statistics import mean, stdev

import pytest
import torch
from scipy.stats import t

from densevision.backbones import BACKBONES, Backbone, SandGlassSpec, architecture_from_dict, architecture_to_dict
from densevision.errors import UserError
from densevision.search.controller import Controller
from densevision.search.history import History
from densevision.search.platform_aware import Goal, platform_search
from densevision.search.reward import reward
from densevision.search.samplers import Evolution, RandomSearch
from densevision.search.space import BlockSpace, SpaceOptions, equal_runs

SAMPLERS = {"controller": Controller, "evolution": Evolution, "random": RandomSearch}


@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {"fbnetv2_f2", "fbnetv2_f3", "fbnetv2_l2"}))
@pytest.mark.parametrize("output_stride", [32, 8])
def test_every_choice_is_a_network_with_the_seeds_maps(name, output_stride):
    seed = BACKBONES[name](output_stride=output_stride)
    operators = ("seed",) if name == "mobilenext" else ("seed", "sepconv", "mbconv3", "mbconv6")
    space = BlockSpace(seed, SpaceOptions(operators=operators))
    strides = {feature: info.stride for feature, info in seed.feature_info.items()}
    for choice in RandomSearch(space.sizes, 0).ask(30):
        network = space.decode(choice)
        assert architecture_from_dict(architecture_to_dict(network), "") == network  # every layer fits the next
        assert {feature: info.stride for feature, info in network.feature_info.items()} == strides
    maps = Backbone(network, ("c3", "c5")).eval()(torch.zeros(1, 3, 64, 64))
    assert maps["c5"].shape[2] == 64 // strides["c5"]


def test_the_choices_mean_what_they_say():
    seed = BACKBONES["mobilenet_v2"]()
    space = BlockSpace(seed)
    assert [len(run) for run in equal_runs(seed.blocks)] == [1, 2, 3, 4, 3, 3, 1]
    values = {"operator": "mbconv3", "kernel": 5, "squeeze": 0.25, "skip": False, "width": 1.25, "layers": 1}
    choice = [d.values.index({"skip": True, "width": 1.0, "layers": 0}.get(d.name.split()[2], d.values[0]))
              for d in space.decisions]  # fmt: skip
    for place, decision in enumerate(space.decisions):
        if decision.name.startswith("block 3 "):
            choice[place] = decision.values.index(values[decision.name.split()[2]])
    blocks = space.decode(tuple(choice)).blocks
    changed = blocks[6:11]
    assert [(b.kernel, b.out_channels, b.residual, b.expansion) for b in changed] == [
        (5, 80, False, 96), *[(5, 80, False, 240)] * 4
    ]  # fmt: skip
    assert [b.squeeze for b in changed] == [24, 64, 64, 64, 64]
    assert not any(b.expand for b in (*blocks[:6], *blocks[11:]))  # separable convolutions
    assert [b.out_channels for b in blocks[11:]] == [96] * 3 + [160] * 3 + [320]


def test_a_sandglass_seed_keeps_its_operator():
    seed = BACKBONES["mobilenext"]()
    space = BlockSpace(seed, SpaceOptions(operators=("seed",)))
    assert all(isinstance(b, SandGlassSpec) for b in space.decode(RandomSearch(space.sizes, 3).ask(1)[0]).blocks)
    with pytest.raises(UserError, match="unknown operator 'mbconv4'"):
        BlockSpace(seed, SpaceOptions(operators=("mbconv4",)))


def test_the_reward_has_both_branches():
    assert reward(0.7, 75, 75) == 0.7
    assert reward(0.7, 150, 75) == pytest.approx(0.7 * 2**-0.07)
    assert reward(0.7, 37.5, 75) == pytest.approx(0.7 * 2**0.07)
    assert reward(0.75 * 1.05, 150, 75) == pytest.approx(0.75, rel=2e-3)  # 5 % for twice the cost
    assert reward(0.7, 37.5, 75, alpha=0, beta=-1) == 0.7
    assert reward(0.7, 150, 75, alpha=0, beta=-1) == 0.35
    assert Goal(75, floor=0.2)(0.1, 75) == 0


def rugged(sizes, seed):
    """A reward of every choice: effects of single values, of neighbouring pairs, and noise."""
    rng = random.Random(seed)
    single = [[rng.gauss(0, 1) for _ in range(size)] for size in sizes]
    pairs = [[[rng.gauss(0, 1) for _ in range(b)] for _ in range(a)] for a, b in itertools.pairwise(sizes)]

    def value(choice, noise=0.0):
        total = sum(single[i][v] for i, v in enumerate(choice))
        total += sum(pairs[i][a][b] for i, (a, b) in enumerate(itertools.pairwise(choice)))
        return total / len(sizes) + noise

    return value


def interval(values):
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


@pytest.mark.parametrize("name", ["controller", "evolution"])
def test_learning_beats_chance(name):
    """The best of 200 noisy samples, by its noiseless value, over 10 landscapes: the paired difference is positive."""
    differences = []
    for seed in range(10):
        sizes = (3, 2, 2, 2, 3, 3) * 2
        value, found = rugged(sizes, seed), {}
        for sampler in (name, "random"):
            search, noise, seen = SAMPLERS[sampler](sizes, seed), random.Random(seed), []
            for _ in range(25):
                choices = search.ask(8)
                rewards = [value(choice, noise.gauss(0, 0.1)) for choice in choices]
                search.tell(choices, rewards)
                seen += zip(rewards, choices, strict=True)
            found[sampler] = value(max(seen)[1])
        differences.append(found[name] - found["random"])
    low, _ = interval(differences)
    assert low > 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_repeats_itself_and_nothing_else(name):
    sizes, value = (3, 2, 4), rugged((3, 2, 4), 0)

    def walk(seed):
        sampler, seen = SAMPLERS[name](sizes, seed), []
        for _ in range(6):
            choices = sampler.ask(5)
            sampler.tell(choices, [value(choice) for choice in choices])
            seen += choices
        return seen

    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert walk(1) == walk(1) != walk(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(0 <= v < size for choice in walk(3) for v, size in zip(choice, sizes, strict=True))


def test_the_controller_draws_evenly_at_first_and_raises_what_is_rewarded():
    controller = Controller((3, 2), seed=0)
    choices = torch.tensor(controller.ask(3000))
    shares = torch.bincount(choices[:, 0]) / 3000
    assert (shares - 1 / 3).abs().max() < 0.04
    for _ in range(60):
        asked = controller.ask(8)
        controller.tell(asked, [float(choice[0] == 2) for choice in asked])
    assert (torch.tensor(controller.ask(1000))[:, 0] == 2).float().mean() > 0.8


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_search_keeps_the_best_and_goes_on_after_a_kill(name, seed, cost, landscape, make_store, tmp_path):
    space = BlockSpace(seed, SpaceOptions(operators=("seed", "mbconv3"), squeeze=(0.25,), layers=(0,)))
    goal, options = Goal(cost(seed)), {"samples": 12, "batch": 4, "steps": 3}

    def search(folder, trial, samples=12):
        sampler, store = SAMPLERS[name](space.sizes, 5), make_store.func(folder, trial)
        history = History(folder / "history.jsonl")
        return platform_search(space, sampler, cost, goal, store, history, **{**options, "samples": samples}), history

    (found, key), history = search(tmp_path / "a", landscape)
    best = max(history.entries, key=lambda e: e.reward)
    assert (best.trial, cost(found)) == (key, best.cost)
    assert best.chosen
    assert len(history.entries) == 13
    calls = landscape.calls
    search(tmp_path / "b", landscape, samples=4)
    (again, _), _ = search(tmp_path / "b", landscape)
    assert again == found
    assert (tmp_path / "b" / "history.jsonl").read_bytes() == (tmp_path / "a" / "history.jsonl").read_bytes()
    assert landscape.calls == 2 * calls
