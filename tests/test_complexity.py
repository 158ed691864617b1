"""Counts are those of torch's own counter, and the rules beyond it are counted one by one."""

import itertools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from densevision.backbones import BACKBONES
from densevision.complexity import layers, measure
from densevision.config.schema import BackboneConfig, HeadConfig, ModelConfig
from densevision.layers import InvertedResidual, NormSpec
from densevision.models import SEGMENTATION_HEADS, build_model


def model_of(backbone, head, output_stride=16):
    return build_model(
        ModelConfig(
            backbone=BackboneConfig(name=backbone, width_mult=0.35, output_stride=output_stride),
            head=HeadConfig(name=head, channels=8),
        ),
        num_classes=5,
    )


@pytest.mark.parametrize(("backbone", "head"), itertools.product(sorted(BACKBONES), sorted(SEGMENTATION_HEADS)))
def test_conv_madds_equal_torch_counter_on_a_real_run(backbone, head):
    model = model_of(backbone, head).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 65, 97, dtype=torch.uint8))
    assert measure(model, (65, 97)).conv_madds * 2 == counter.get_total_flops()


@pytest.mark.parametrize(("backbone", "head"), itertools.product(sorted(BACKBONES), sorted(SEGMENTATION_HEADS)))
def test_layers_add_up(backbone, head):
    model = model_of(backbone, head)
    total = measure(model, (65, 97))
    rows = layers(model, (65, 97), total)
    assert sum(row.params for row in rows) == total.params == sum(p.numel() for p in model.parameters())
    assert sum(row.conv_madds for row in rows) == total.conv_madds
    rest = total.paper_madds - sum(row.paper_madds for row in rows)
    logits_sum = 5 * 9 * 13 if head == "lraspp" else 0
    assert rest == 5 * 65 * 97 + logits_sum
    assert rows[0].input == (65, 97, 3)


def test_the_convention_by_hand():
    """A residual of h-swish: convolutions, 2 an element of h-swish, 1 an element of the sum; ReLU and pooling free."""
    norm = NormSpec(0.1, 1e-3)
    block = InvertedResidual(
        4, 8, 4, kernel=3, stride=1, dilation=1, squeeze=2, act="hswish", expand=True, residual=True, norm=norm
    )
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), block)
    model = nn.Sequential(_ToFloat(), model)
    pixels = 6 * 10
    conv = pixels * (3 * 4 + 4 * 8 + 8 * 9 + 8 * 4) + 2 * 8 * 2
    counted = measure(model, (6, 10), dense=False)
    assert counted.conv_madds == conv
    assert counted.paper_madds == conv + pixels * (2 * 8 * 2 + 4)
    assert measure(model, (6, 10)).paper_madds == counted.paper_madds + 4 * pixels


class _ToFloat(nn.Module):
    def forward(self, x):
        return x.float()


def test_measuring_changes_nothing():
    model = model_of("mobilenet_v2", "lraspp")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    measure(model, (65, 97))
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
