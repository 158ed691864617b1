"""Each option of the optimiser is seen in what it does."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from densevision.config.schema import OptimConfig
from densevision.training.muon import Muon, orthogonalised
from densevision.training.optim import build_optimizer, build_scheduler
from densevision.training.rmsprop import TensorFlowRMSprop


class TinyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4, bias=False)
        )
        self.head = nn.Conv2d(4, 2, 1)


def groups(**options):
    optimizer = build_optimizer(TinyModel(), OptimConfig(**options))
    return {group["name"]: group for group in optimizer.param_groups}


def test_every_parameter_is_in_exactly_one_group():
    model = TinyModel()
    optimizer = build_optimizer(model, OptimConfig())
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())


def test_biases_and_normalisation_never_decay():
    found = groups(weight_decay=0.1)
    assert {name: group["weight_decay"] for name, group in found.items()} == {
        "backbone": 0.1,
        "backbone_no_decay": 0.0,
        "head": 0.1,
        "head_no_decay": 0.0,
    }
    assert all(p.ndim == 1 for p in found["backbone_no_decay"]["params"] + found["head_no_decay"]["params"])


@pytest.mark.parametrize(("decays", "count"), [(True, 2), (False, 1)])
def test_depthwise_convolutions_decay_by_option(decays, count):
    assert len(groups(decay_depthwise=decays)["backbone"]["params"]) == count


def test_a_pretrained_backbone_can_learn_slower():
    found = groups(lr=0.1, backbone_lr_mult=0.25)
    assert {name: group["lr"] for name, group in found.items()} == {
        "backbone": 0.025,
        "backbone_no_decay": 0.025,
        "head": 0.1,
        "head_no_decay": 0.1,
    }


def test_muon_takes_the_backbones_matrices_at_a_rate_of_their_own():
    found = groups(name="muon", lr=0.1, backbone_lr_mult=0.5, muon_lr_mult=4.0)
    assert {name: (group["lr"], group["matrices"], len(group["params"])) for name, group in found.items()} == {
        "backbone_matrices": (0.2, True, 1),
        "backbone_no_decay": (0.05, False, 2),
        "backbone": (0.05, False, 1),
        "head": (0.1, False, 1),
        "head_no_decay": (0.1, False, 1),
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW), ("rmsprop", TensorFlowRMSprop), ("muon", Muon)],
)
def test_the_named_optimiser_reduces_a_loss(name, kind):
    torch.manual_seed(0)
    model = TinyModel()
    optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.01))
    assert type(optimizer) is kind
    images, losses = torch.randn(4, 3, 8, 8), []
    for _ in range(20):
        loss = (model.head(model.backbone(images)) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("shape", [(24, 24), (16, 64), (64, 16)])
def test_muons_steps_have_singular_values_near_1(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert 0.6 < values.min() <= values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert nn.functional.cosine_similarity((left @ right).flatten(), orthogonalised(matrix).flatten(), dim=0) > 0.95


def test_muon_is_torchs_on_matrices_and_adamw_elsewhere():
    torch.manual_seed(0)
    weights = [torch.randn(6, 4, 1, 1), torch.randn(5, 1, 3, 3)]
    ours, theirs = ([nn.Parameter(w.clone().flatten(1) if flat else w.clone()) for w in weights] for flat in (0, 1))
    groups = [{"params": [ours[0]], "matrices": True}, {"params": [ours[1]]}]
    muon = Muon([{**group, "weight_decay": 0.1, "betas": (0.95, 0.999)} for group in groups], lr=0.01)
    first = torch.optim.Muon([theirs[0]], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    second = torch.optim.AdamW([theirs[1]], lr=0.01, weight_decay=0.1, betas=(0.95, 0.999))
    for step in range(3):
        for index, weight in enumerate(ours):
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(10 * step + index))
            theirs[index].grad = weight.grad.flatten(1).clone()
        for optimizer in (muon, first, second):
            optimizer.step()
    torch.testing.assert_close(ours[1].flatten(1), theirs[1])
    # torch iterates in bfloat16
    torch.testing.assert_close(ours[0].flatten(1), theirs[0], rtol=0, atol=1e-3)


def test_muon_goes_on_from_its_state():
    def train(model, optimizer, steps):
        for step in steps:
            images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            (model.head(model.backbone(images)) - 1).square().mean().backward()
            optimizer.step()

    def begin():
        torch.manual_seed(0)
        model = TinyModel()
        return model, build_optimizer(model, OptimConfig(name="muon", lr=0.01))

    whole, first, second = begin(), begin(), begin()
    train(*whole, range(5))
    train(*first, range(3))
    for resumed, stopped in zip(second, first, strict=True):
        resumed.load_state_dict(stopped.state_dict())
    train(*second, range(3, 5))
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, second[0].state_dict()[name]), name


def course(total=100, **options):
    optim = OptimConfig(lr=1.0, **options)
    optimizer = build_optimizer(TinyModel(), optim)
    scheduler = build_scheduler(optimizer, optim, total)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_poly_is_deeplabs():
    assert course(schedule="poly", power=0.9)[::25] == pytest.approx([(1 - t / 100) ** 0.9 for t in (0, 25, 50, 75)])


def test_cosine_falls_to_zero():
    rates = course(schedule="cosine")
    assert rates[50] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))


def test_one_cycle_rises_for_30_percent_and_falls():
    rates = course(schedule="one_cycle", name="adamw")
    assert max(range(100), key=rates.__getitem__) == 29
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[-1] < 1e-4


def test_exponential_falls_in_steps():
    rates = course(schedule="exponential", decay_rate=0.5, decay_steps=20, warmup_steps=10)
    assert [rates[step] for step in (10, 29, 30, 49, 50)] == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_constant_stays():
    assert course(schedule="constant") == [1.0] * 100


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
def test_warm_up_rises_linearly_and_the_schedule_follows(schedule):
    rates = course(schedule=schedule, warmup_steps=10)
    steps = [after - before for before, after in pairwise(rates[:10])]
    assert steps == pytest.approx([steps[0]] * 9)
    assert rates[0] == pytest.approx(1e-3)
    assert rates[10] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(course(schedule=schedule, total=90)[50])


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_rmsprop_is_tensorflows(weight_decay):
    """Against timm's, which is; torch's own takes another first step by far."""
    theirs_class = pytest.importorskip("timm.optim").RMSpropTF
    options = {"lr": 0.05, "momentum": 0.9, "alpha": 0.9, "eps": 1e-3, "weight_decay": weight_decay}
    torch.manual_seed(0)
    start = torch.randn(5, 3, dtype=torch.float64)
    weights = [nn.Parameter(start.clone()) for _ in range(3)]
    kinds = (TensorFlowRMSprop, theirs_class, torch.optim.RMSprop)
    optimizers = [kind([weight], **options) for kind, weight in zip(kinds, weights, strict=True)]
    for step in range(6):
        for weight, optimizer in zip(weights, optimizers, strict=True):
            optimizer.zero_grad()
            (weight * (step + 1)).sin().sum().backward()
            optimizer.step()
    ours, theirs, torchs = weights
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert (ours - torchs).abs().max() > 0.1
