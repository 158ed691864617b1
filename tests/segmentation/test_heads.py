"""R-ASPP and LR-ASPP against their definitions, written out."""

import pytest
import torch
from torch.nn import functional as F

from densevision.config.schema import BackboneConfig, HeadConfig, ModelConfig
from densevision.errors import UserError
from densevision.models import check_batch_norm
from densevision.segmentation.heads import LRASPPHead, RASPPHead


def resize(x, like):
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


@pytest.mark.parametrize(
    ("high_size", "grid"),
    [
        ((65, 129), (2, 5)),  # 1025x2049 at output stride 16, the published evaluation
        ((49, 49), (1, 1)),  # 769x769, the published crop
        ((64, 128), (2, 5)),  # 1024x2048
        ((30, 129), (1, 5)),  # the window is clamped to the map
        ((20, 17), (1, 1)),
    ],
)
def test_lraspp_as_published(high_size, grid):
    torch.manual_seed(0)
    head = LRASPPHead(12, 20, channels=8, num_classes=5).eval().double()
    high = torch.randn(2, 20, *high_size, dtype=torch.float64)
    low = torch.randn(2, 12, 2 * high_size[0] - 1, 2 * high_size[1] - 1, dtype=torch.float64)
    kernel = [min(49, size) for size in high_size]
    rows, columns = (
        [high[..., top : top + kernel[0], :].mean(-2) for top in range(0, 16 * grid[0], 16)],
        range(0, 20 * grid[1], 20),
    )
    pooled = torch.stack([torch.stack([r[..., c : c + kernel[1]].mean(-1) for c in columns], -1) for r in rows], -2)
    gate = F.hardsigmoid(F.conv2d(pooled, head.gate[0].weight, head.gate[0].bias))
    expected = F.conv2d(
        resize(head.local(high) * resize(gate, high), low), head.high_classifier.weight, head.high_classifier.bias
    ) + F.conv2d(low, head.low_classifier.weight, head.low_classifier.bias)
    assert pooled.shape[2:] == grid
    torch.testing.assert_close(head(high, low), expected, rtol=1e-12, atol=1e-12)


def test_lraspp_variant_of_torchvision_has_one_gate():
    head = LRASPPHead(
        12, 20, channels=8, num_classes=5, pool_kernel=None, gate="sigmoid", gate_bias=False, align_corners=False
    ).eval()
    high, low = torch.randn(1, 20, 60, 70), torch.randn(1, 12, 120, 140)
    gate = torch.sigmoid(F.conv2d(high.mean((2, 3), keepdim=True), head.gate[0].weight))
    upsampled = F.interpolate(head.local(high) * gate, size=(120, 140), mode="bilinear", align_corners=False)
    expected = head.high_classifier(upsampled) + head.low_classifier(low)
    torch.testing.assert_close(head(high, low), expected, rtol=1e-4, atol=1e-5)
    assert head.gate[0].bias is None


def test_raspp_as_published():
    head = RASPPHead(20, channels=8, num_classes=5).eval()
    high = torch.randn(2, 20, 9, 11)
    pooled = resize(head.pooled(high.mean((2, 3), keepdim=True)), high)
    expected = head.classifier(head.project(torch.cat([pooled, head.local(high)], 1)))
    torch.testing.assert_close(head(high), expected, rtol=1e-4, atol=1e-6)


def test_published_initialisation_and_normalisation():
    head = RASPPHead(320, channels=256, num_classes=19)
    assert head.classifier.weight.abs().max() <= 0.02
    assert (head.local.norm.momentum, head.local.norm.eps) == (0.0003, 1e-5)
    assert head.dropout.p == 0.1
    bound = (6 / (320 + 256)) ** 0.5
    assert bound * 0.99 < head.local.conv.weight.abs().max() <= bound


def test_lraspp_trains_on_one_picture():
    head = LRASPPHead(12, 20, channels=8, num_classes=5)
    head(torch.randn(1, 20, 5, 5), torch.randn(1, 12, 9, 9)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def model_config(head):
    return ModelConfig(
        backbone=BackboneConfig(name="mobilenet_v2", output_stride=16), head=HeadConfig(name=head, channels=8)
    )


def test_raspp_cannot_train_on_one_picture_and_says_so():
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        RASPPHead(20, channels=8, num_classes=5)(torch.randn(1, 20, 5, 5))
    with pytest.raises(UserError, match=r"R-ASPP .* at least 2 pictures"):
        check_batch_norm(model_config("raspp"), (769, 769), batch_size=1)
    check_batch_norm(model_config("raspp"), (769, 769), batch_size=2)


def test_crop_of_one_cell_is_refused_for_one_picture():
    check_batch_norm(model_config("lraspp"), (17, 16), batch_size=1)
    check_batch_norm(model_config("lraspp"), None, batch_size=1)
    with pytest.raises(UserError, match="a crop of 16x16 is one cell"):
        check_batch_norm(model_config("lraspp"), (16, 16), batch_size=1)
