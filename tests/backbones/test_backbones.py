"""Every family: the published channels, declared features, gradients, and what output stride and cuts change."""

import pytest
import torch

from densevision.backbones import BACKBONES, Backbone, BlockSpec
from densevision.backbones.fbnetv2 import round_channels
from densevision.errors import UserError

FEATURES = ("c1", "c2", "c3", "c4", "c5", "last_conv", "c4_expansion", "c3_expansion", "c3_depthwise", "c3_first")
NAMES = sorted(BACKBONES)
CUTS = (None, "segmentation", "detection")


def features_of(architecture):
    return [name for name in FEATURES if name in architecture.feature_info]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_features_have_declared_channels_and_stride(name, cut, output_stride):
    architecture = BACKBONES[name](width_mult=0.35, output_stride=output_stride, reduced_tail=cut)
    names = features_of(architecture)
    without_last = name in ("mobilenet_v1", "mobilenext") or (name, cut) == ("mobilenet_v2", "segmentation")
    assert set(names) == set(FEATURES) - ({"last_conv"} if without_last else set())
    backbone = Backbone(architecture, names).eval()
    height, width = 64, 97
    maps = backbone(torch.randn(1, 3, height, width))
    assert list(maps) == list(backbone.feature_info) == names
    for feature, info in backbone.feature_info.items():
        expected = (1, info.channels, -(-height // info.stride), -(-width // info.stride))
        assert maps[feature].shape == expected, feature
    assert backbone.feature_info["c5"].stride == output_stride


@pytest.mark.parametrize(("name", "feature"), [(n, f) for n in NAMES for f in features_of(BACKBONES[n]())])
def test_nothing_is_built_beyond_a_feature(name, feature):
    """A parameter without a gradient is one that nothing reads."""
    backbone = Backbone(BACKBONES[name](width_mult=0.35), (feature,))
    backbone(torch.randn(2, 3, 64, 64))[feature].square().mean().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_output_stride_changes_no_weight(name):
    shapes = [
        {key: value.shape for key, value in Backbone(BACKBONES[name](output_stride=s), ("c5",)).state_dict().items()}
        for s in (8, 16, 32)
    ]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize(
    ("name", "output_stride", "rule", "dilations"),
    [
        ("mobilenet_v3_large", 32, "old", [1] * 9),
        ("mobilenet_v3_large", 16, "old", [1, 1, 1, 1, 1, 1, 1, 2, 2]),
        ("mobilenet_v3_large", 16, "new", [1, 1, 1, 1, 1, 1, 2, 2, 2]),
        ("mobilenet_v3_large", 8, "old", [1, 2, 2, 2, 2, 2, 2, 4, 4]),
        ("mobilenet_v3_large", 8, "new", [2, 2, 2, 2, 2, 2, 4, 4, 4]),
        ("mobilenet_v2", 16, "old", [1, 1, 1, 1, 1, 1, 2, 2, 2]),
        ("mobilenet_v3_small", 16, "old", [1, 1, 1, 1, 1, 1, 1, 2, 2]),
    ],
)
def test_dilations_of_the_last_nine_blocks(name, output_stride, rule, dilations):
    architecture = BACKBONES[name](output_stride=output_stride, dilation_rule=rule)
    blocks = architecture.blocks[-len(dilations) :]
    assert [block.dilation for block in blocks] == dilations


# (expansion, output, squeeze) of the reduced blocks; last 1x1 (DeepLab feature_extractor.py; for V2 as Table 7 demands)
REDUCED = [
    ("mobilenet_v3_large", 1.0, "segmentation", [(336, 80, 88), (480, 80, 120), (480, 80, 120)], 480),
    ("mobilenet_v3_large", 1.0, "detection", [(672, 80, 168), (480, 80, 120), (480, 80, 120)], 480),
    ("mobilenet_v3_small", 1.0, "segmentation", [(144, 48, 40), (288, 48, 72), (288, 48, 72)], 288),
    ("mobilenet_v3_small", 1.0, "detection", [(288, 48, 72), (288, 48, 72), (288, 48, 72)], 288),
    ("mobilenet_v2", 1.0, "segmentation", [(576, 80, 0), (480, 80, 0), (480, 80, 0), (480, 160, 0)], None),
    ("mobilenet_v2", 0.5, "segmentation", [(288, 40, 0), (240, 40, 0), (240, 40, 0), (240, 80, 0)], None),
    ("mobilenet_v2", 0.35, "segmentation", [(192, 32, 0), (192, 32, 0), (192, 32, 0), (192, 56, 0)], None),
    ("mnasnet_a1", 1.0, "detection", [(672, 80, 28), (480, 80, 20), (480, 80, 20), (480, 160, 0)], 640),
    ("mnasnet_b1", 1.0, "segmentation", [(576, 96, 0), *[(576, 96, 0)] * 3, (576, 160, 0)], 640),
    ("mobilenet_v1", 1.0, "detection", [(512, 512, 0), (512, 512, 0)], None),
    ("mobilenet_v3_large_minimalistic", 1.0, "segmentation", [(336, 80, 0), (480, 80, 0), (480, 80, 0)], 480),
    ("proxylessnas_mobile", 1.0, "segmentation", [(576, 96, 0), (576, 96, 0), *[(288, 96, 0)] * 2, (576, 160, 0)], 640),
    ("fbnetv2_l1", 1.0, "detection", [(624, 96, 160), *[(272, 96, 72)] * 2, *[(472, 96, 120)] * 2], 672),
]


@pytest.mark.parametrize(("name", "width", "cut", "tail", "last_conv"), REDUCED)
def test_reduced_tail(name, width, cut, tail, last_conv):
    architecture = BACKBONES[name](width_mult=width, reduced_tail=cut)
    full = BACKBONES[name](width_mult=width)
    first = next(i for i, block in enumerate(full.blocks) if block != architecture.blocks[i])
    blocks = [block for block in architecture.blocks[first:] if isinstance(block, BlockSpec)]
    assert [(block.expansion, block.out_channels, block.squeeze) for block in blocks] == tail
    assert first == len(full.blocks) - len(architecture.blocks[first:])
    assert (architecture.last_conv and architecture.last_conv.out_channels) == last_conv


def test_reduced_tail_of_sandglasses():
    full, cut = BACKBONES["mobilenext"](), BACKBONES["mobilenext"](reduced_tail="segmentation")
    tail = [(block.in_channels, block.bottleneck, block.out_channels) for block in cut.blocks[-8:]]
    assert tail == [
        (384, 64, 288), *[(288, 48, 288)] * 3, (288, 80, 480), *[(480, 80, 480)] * 2, (480, 112, 640)
    ]  # fmt: skip
    assert cut.blocks[:-8] == full.blocks[:-8]


@pytest.mark.parametrize("multiplier", [0.5, 1 / 3, 1.0])
def test_identity_tensor_multiplier(multiplier):
    """Residuals add the first channels alone, and no weight changes."""
    architecture = BACKBONES["mobilenext"](identity_tensor_multiplier=multiplier)
    residuals = [block for block in architecture.blocks if block.residual_channels]
    assert len(residuals) == 2 + 2 + 3 + 3 + 2
    assert {block.residual_channels / block.out_channels for block in residuals} == {multiplier}
    full, ours = (Backbone(a, ("c5",)).state_dict() for a in (BACKBONES["mobilenext"](), architecture))
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in full.items()}


def test_expansions_of_fbnetv2_are_rounded_half_up():
    """V2 would make 40 of 5.4566 x 8 = 43.65; FBNetV2 takes 48, as 40 is less than 0.95 of it."""
    assert [round_channels(value) for value in (3, 12, 20.0, 43.65, 365.48)] == [8, 16, 24, 48, 368]
    assert [block.expansion for block in BACKBONES["fbnetv2_f1"]().blocks[1:4]] == [48, 112, 128]


@pytest.mark.parametrize(
    ("name", "width", "c3_depthwise", "c4_expansion", "last_conv", "pre_logits"),
    [
        ("mobilenet_v1", 1.0, 256, 512, None, 0),
        ("mobilenet_v1", 0.35, 89, 179, None, 0),
        ("mnasnet_a1", 1.0, 120, 672, 1280, 0),
        ("mnasnet_a1", 0.35, 48, 240, 1280, 0),
        ("mnasnet_a1", 1.4, 168, 960, 1280, 0),
        ("mnasnet_b1", 1.0, 120, 576, 1280, 0),
        ("mnasnet_small", 1.0, 96, 192, 1280, 0),
        ("mobilenet_v2", 1.0, 192, 576, 1280, 0),
        ("mobilenet_v2", 0.35, 96, 192, 1280, 0),
        ("mobilenet_v2", 1.4, 288, 816, 1792, 0),
        ("mobilenet_v3_large", 1.0, 120, 672, 960, 1280),
        ("mobilenet_v3_large", 0.75, 96, 528, 720, 1280),
        ("mobilenet_v3_small", 1.0, 88, 288, 576, 1024),
        ("mobilenet_v3_small_minimalistic", 1.0, 88, 288, 576, 1024),
        ("mobilenext", 1.0, 192, 384, None, 0),
        ("mobilenext", 0.5, 96, 192, None, 0),
        ("proxylessnas_mobile", 1.0, 120, 576, 1280, 0),
        ("fbnetv2_f1", 1.0, 144, 368, 1344, 1600),
    ],
)
def test_taps_and_tail_widths(name, width, c3_depthwise, c4_expansion, last_conv, pre_logits):
    architecture = BACKBONES[name](width_mult=width)
    info = architecture.feature_info
    assert info["c3_depthwise"].channels == c3_depthwise
    assert info["c4_expansion"].channels == c4_expansion
    assert (info["c4_expansion"].stride, info["c3_expansion"].stride) == (16, 8)
    assert (architecture.last_conv and info["last_conv"].channels) == last_conv
    assert architecture.pre_logits == pre_logits


def test_unknown_feature_is_named():
    with pytest.raises(UserError, match="unknown feature 'c3_depthwize'; did you mean 'c3_depthwise'"):
        Backbone(BACKBONES["mobilenet_v2"](), ("c3_depthwize",))


@pytest.mark.parametrize(
    ("name", "width", "channels"),
    [
        ("mobilenet_v2", 0.35, 448),
        ("mnasnet_a1", 0.5, 640),
        ("mobilenet_v3_large", 0.5, 480),
        ("mobilenet_v2", 1.4, 1792),
    ],
)
def test_last_conv_scales_on_demand(name, width, channels):
    """TF-slim with finegrain_classification_mode off, as SSDLite is built."""
    assert BACKBONES[name](width_mult=width, scale_last_conv=True).last_conv.out_channels == channels


@pytest.mark.parametrize(
    ("name", "momentum"),
    [
        ("mobilenet_v1", 0.0003),
        ("mnasnet_a1", 0.01),
        ("mobilenet_v2", 0.003),
        ("mobilenet_v3_large", 0.003),
        ("mobilenet_v3_small", 0.003),
        ("proxylessnas_mobile", 0.1),
    ],
)
def test_published_initialisation_and_normalisation(name, momentum):
    torch.manual_seed(0)
    backbone = Backbone(BACKBONES[name](), ("c5",), in_channels=4)
    weights = torch.cat([m.weight.flatten() for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)])
    assert weights.abs().max() <= 0.18
    assert weights.std().item() == pytest.approx(0.09 * 0.8796, rel=0.01)  # of a normal cut at two deviations
    norms = {(m.momentum, m.eps) for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert norms == {(momentum, 1e-3)}


def test_residuals_can_begin_as_the_identity():
    backbone = Backbone(BACKBONES["mobilenet_v2"](), ("c5",))
    backbone.start_residuals_at_identity()
    for block, spec in zip(backbone.blocks, backbone.architecture.blocks, strict=False):
        x = torch.randn(1, spec.in_channels, 8, 8)
        assert torch.equal(block.eval()(x), x) == spec.residual


def test_blocks_without_a_skip_cannot():
    with pytest.raises(UserError, match="no inverted residuals"):
        Backbone(BACKBONES["mobilenet_v1"](), ("c5",)).start_residuals_at_identity()
