"""Counts are those of torch's own counter, and the rules beyond it are counted one by one."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from densevision.backbones import BACKBONES
from densevision.complexity import layers, measure
from densevision.config.schema import BackboneConfig, HeadConfig, ModelConfig
from densevision.layers import InvertedResidual, NormSpec
from densevision.model_heads import SEGMENTATION_HEADS
from densevision.models import build_model

# every backbone, every head in turn
PAIRS = [(name, sorted(SEGMENTATION_HEADS)[i % 2]) for i, name in enumerate(sorted(BACKBONES))]


def model_of(backbone, head, output_stride=16):
    return build_model(
        ModelConfig(
            backbone=BackboneConfig(name=backbone, width_mult=0.35, output_stride=output_stride),
            head=HeadConfig(name=head, channels=8),
        ),
        num_classes=5,
    )


@pytest.mark.parametrize(("backbone", "head"), PAIRS)
def test_conv_madds_equal_torch_counter_on_a_real_run(backbone, head):
    model = model_of(backbone, head).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 65, 97, dtype=torch.uint8))
    assert measure(model, (65, 97)).conv_madds * 2 == counter.get_total_flops()


@pytest.mark.parametrize(("backbone", "head"), PAIRS)
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


@pytest.mark.parametrize("backbone", ["fbnetv2_f1", "mobilenet_v1", "mobilenet_v3_small", "mobilenext"])
def test_layers_of_a_classifier_add_up(backbone):
    model = model_of(backbone, "classifier", output_stride=32)
    total = measure(model, (65, 97))
    rows = layers(model, (65, 97), total)
    assert sum(row.params for row in rows) == total.params == sum(p.numel() for p in model.parameters())
    assert sum(row.conv_madds for row in rows) == total.conv_madds
    assert (rows[-1].name, rows[-1].input[:2], rows[-1].out) == ("head.fc", (1, 1), 5)
    pre_logits = next((row for row in rows if row.name == "head.pre_logits"), None)
    hswish = 0 if pre_logits is None else 2 * pre_logits.out
    assert total.paper_madds - sum(row.paper_madds for row in rows) == hswish


def test_sandglasses_in_the_table():
    model = model_of("mobilenext", "classifier", output_stride=32)
    block = layers(model, (64, 64), measure(model, (64, 64)))[1]
    assert (block.operator, block.input, block.expansion, block.out) == ("sandglass 3x3", (32, 32, 16), 8, 32)


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
