"""Sliced networks: nothing removed changes nothing, and what is removed is what a mask would silence."""

import pytest
import torch
from torch import nn

from densevision.backbones import BACKBONES, architecture_from_dict, architecture_to_dict
from densevision.config.schema import Config
from densevision.model_heads import HEADS
from densevision.models import build_model
from densevision.search.slicing import channel_axes, kept_channels, slice_weights
from densevision.search.widths import shrunk, width_groups, with_width

NAMES = sorted(set(BACKBONES) - {"fbnetv2_f2", "fbnetv2_f3", "fbnetv2_l2"})
PAIRS = [(name, head) for name in NAMES for head in sorted(HEADS)]
# each backbone once and each head several times; the others are slow tests
SAMPLE = [(name, sorted(HEADS)[i % len(HEADS)]) for i, name in enumerate(NAMES)]
CASES = [pytest.param(*pair, marks=[] if pair in SAMPLE else pytest.mark.slow) for pair in PAIRS]


def network(architecture, head):
    config = Config()
    config.model.backbone.arch, config.model.head.name = architecture_to_dict(architecture), head
    config.model.head.channels, config.model.head.align_corners = 8, False
    return build_model(config.model, 5).double().eval()


def tensors(outputs):
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]


def random_norms(model):
    """Statistics and affine parameters that no masked channel can hide behind."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_()


def narrower(architecture, seed):
    """Every width by one to three steps of 8 less, where it can be."""
    torch.manual_seed(seed)
    for index in range(len(width_groups(architecture))):
        for _ in range(int(torch.randint(1, 4, ()))):
            architecture = shrunk(architecture, width_groups(architecture)[index]) or architecture
    return architecture


def mask_removed(model, child):
    """Hooks that silence, behind each layer's activation, the channels that ``child`` lacks."""
    kept, modules = kept_channels(model, child), dict(model.named_modules())
    for name, axes in channel_axes(model).items():
        # a normalised layer is masked as a whole, squeeze-and-excite's inner one behind its activation
        layer = modules.get(name.removesuffix(".norm") if name.endswith(".norm") else name.replace("reduce", "act"))
        squeezes = name.endswith("se.reduce")
        if layer is None or isinstance(layer, nn.Identity) or not (name.endswith(".norm") or squeezes) or not axes.out:
            continue

        def silence(module, args, output, width=axes.out):
            mask = torch.zeros(output.shape[1], dtype=output.dtype)
            mask[kept[width]] = 1
            return output * mask[:, None, None]

        layer.register_forward_hook(silence)


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_nothing_removed_is_the_parent(name, head):
    torch.manual_seed(0)
    architecture = BACKBONES[name](width_mult=0.35, output_stride=16)
    parent = network(architecture, head)
    child = network(architecture, head)
    child.load_state_dict(slice_weights(parent, architecture))
    images = torch.rand(1, 3, 64, 64).double() * 255
    with torch.no_grad():
        for ours, theirs in zip(tensors(child(images)), tensors(parent(images)), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("name", "head"), CASES)
def test_a_sliced_network_is_its_parent_with_channels_silenced(name, head):
    torch.manual_seed(0)
    options = {"identity_tensor_multiplier": 0.5} if name == "mobilenext" else {}
    architecture = BACKBONES[name](width_mult=0.5, **options)
    parent = network(architecture, head)
    random_norms(parent)
    smaller = narrower(architecture, seed=1)
    child = network(smaller, head)
    child.load_state_dict(slice_weights(parent, smaller))
    assert sum(p.numel() for p in child.parameters()) < 0.95 * sum(p.numel() for p in parent.parameters())
    images = torch.rand(1, 3, 64, 64).double() * 255
    with torch.no_grad():
        unmasked = tensors(parent(images))
        mask_removed(parent, smaller)
        for ours, theirs, whole in zip(tensors(child(images)), tensors(parent(images)), unmasked, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
            assert not torch.allclose(theirs, whole, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_width_can_change_alone_and_the_network_still_fits_together(name):
    architecture = BACKBONES[name]()
    for group in width_groups(architecture):
        smaller = shrunk(architecture, group)
        if smaller is None:
            assert group.width <= 8
            continue
        assert sum(a != b for a, b in zip(width_groups(architecture), width_groups(smaller), strict=True)) == 1
        assert with_width(smaller, group, group.width).feature_info == architecture.feature_info
        assert architecture_from_dict(architecture_to_dict(smaller), "") == smaller  # every layer fits the next


def test_the_strongest_filters_stay():
    model = network(BACKBONES["mobilenet_v2"](width_mult=0.35), "raspp")
    group = next(g for g in width_groups(model.backbone.architecture) if g.name == "inner 5")
    child = with_width(model.backbone.architecture, group, 16)
    strength = model.backbone.blocks[5].expand.conv.weight.flatten(1).norm(dim=1)
    kept = kept_channels(model, child)[("inner", 5)]
    assert set(kept.tolist()) == set(strength.topk(16).indices.tolist())
    removed = sorted(set(range(group.width)) - set(kept.tolist()))
    assert strength[removed].max() <= strength[kept].min()


def test_a_wider_or_deeper_child_is_refused():
    model = network(BACKBONES["mobilenet_v2"](width_mult=0.35), "raspp")
    for other in (BACKBONES["mobilenet_v2"](), BACKBONES["mobilenet_v3_small"](width_mult=0.35)):
        with pytest.raises(ValueError, match="none of them wider"):
            slice_weights(model, other)
