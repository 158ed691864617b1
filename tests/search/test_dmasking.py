"""Learning what to choose: cheaper where cost weighs more, the same after a kill, and no dearer than one network."""

import time

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import ConstantLR

from densevision.backbones import BACKBONES, architecture_to_dict
from densevision.config import load_config
from densevision.config.schema import Config
from densevision.config.search_schema import SearchRun
from densevision.errors import UserError
from densevision.model_backbone import build_architecture
from densevision.models import build_model
from densevision.search.dmasking import Schedule, dmasking, priced_loss
from densevision.search.mask_space import MaskSpace, Operator
from densevision.search.supernet import Supernet

SIZE = (32, 32)


def build(architecture):
    config = Config()
    config.model.backbone.arch, config.model.head.name = architecture_to_dict(architecture), "classifier"
    return build_model(config.model, 3)


def learn(folder, strength, epochs=3, form="log"):
    space = MaskSpace(BACKBONES["mobilenet_v3_small"](width_mult=0.35), widths=(0.5, 1.0))
    target = float(Supernet(build, space, SIZE).cost().detach())
    torch.manual_seed(0)
    net = Supernet(build, space, SIZE)
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.rand(4, 3, *SIZE, generator=generator) * 255, torch.tensor([0, 1, 2, 0])) for _ in range(3)]
    optimizer = torch.optim.SGD(net.model.parameters(), lr=0.01)
    seen = []
    choice = dmasking(
        net,
        optimizer,
        ConstantLR(optimizer, factor=1.0),
        torch.optim.Adam(net.theta.parameters(), lr=0.1),
        lambda epoch: batches,
        lambda epoch: batches,
        lambda batch: cross_entropy(net.model(batch[0]), batch[1]),
        lambda loss, cost: priced_loss(loss, cost, target, strength, form),
        Schedule(epochs),
        file=folder / "supernet.pt",
        report=seen.append,
    )
    return choice, seen, {name: net.logits(name).detach().clone() for name in space.decisions}


def test_the_more_cost_weighs_the_cheaper_it_gets(tmp_path):
    costs = [learn(tmp_path / str(s), s)[1][-1]["cost"] for s in (0.0, 10.0)]
    assert costs[0] > costs[1]
    assert learn(tmp_path / "power", 5.0, form="power")[1][-1]["cost"] < costs[0]


def test_the_choices_stand_still_in_the_warm_up_and_the_temperature_falls(tmp_path):
    _, seen, _ = learn(tmp_path, 10.0, epochs=3)
    assert seen[0]["certainty"] == pytest.approx(0.5)
    assert "theta_loss" not in seen[0]
    assert seen[2]["certainty"] > 0.5
    assert [line["temperature"] for line in seen] == pytest.approx([5, 5 * 0.956, 5 * 0.956**2])


def test_a_killed_search_ends_the_same(tmp_path):
    whole, seen, logits = learn(tmp_path / "whole", 1.0, epochs=3)
    learn(tmp_path / "cut", 1.0, epochs=2)
    again, rest, same = learn(tmp_path / "cut", 1.0, epochs=3)
    assert again == whole
    assert rest == seen[2:]
    assert all(torch.equal(logits[name], same[name]) for name in logits)


def test_a_damaged_state_is_named(tmp_path):
    learn(tmp_path, 1.0, epochs=1)
    (file,) = tmp_path.glob("*.pt")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=rf"{file} of a supernet cannot be read; delete it"):
        learn(tmp_path, 1.0, epochs=2)


def test_the_published_space_is_a_config():
    run = load_config("search/dmasking_fbnetv2", schema=SearchRun).config
    options = run.search.supernet
    kinds = [Operator(k, s, a) for k in options.kernels for s in options.squeeze for a in options.acts]
    seed = build_architecture(run.model.backbone)
    space = MaskSpace(seed, options.widths, options.expansions, kinds, options.skip, options.strides, options.step)
    inner = space.widths["inner 2"]
    channels = space.widest.blocks[2].in_channels
    assert len(inner) == 6
    assert inner == tuple(round(0.75 * i * channels / 4) * 4 for i in range(1, 7)) or inner[0] < channels < inner[-1]
    assert max(space.decisions.values()) == 9  # eight kinds of block, or none
    network = space.derive(space.random(torch.Generator().manual_seed(0)))
    assert network.feature_info["c5"].stride == 32


def test_masks_take_little_more_than_one_network():
    """Weights: none but the logits. Time: a multiplication a layer; a bound that only a second network would break."""
    torch.manual_seed(0)
    space = MaskSpace(BACKBONES["mobilenet_v3_small"](), widths=(0.25, 0.5, 0.75, 1.0))
    net, plain = Supernet(build, space, (96, 96)), build(space.widest)
    weights = sum(p.numel() for p in plain.parameters())
    assert sum(p.numel() for p in net.model.parameters()) == weights
    assert sum(p.numel() for p in net.theta.values()) < 1e-3 * weights
    images, seconds = torch.rand(4, 3, 96, 96) * 255, {}
    for _ in range(3):
        for name, model in (("masked", net.model), ("plain", plain)):
            net.set_gates(net.sample(5.0))
            began = time.process_time()
            model(images).sum().backward()
            seconds[name] = min(seconds.get(name, 1e9), time.process_time() - began)
    assert seconds["masked"] < 2 * seconds["plain"]
