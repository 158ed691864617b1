"""The segmentation loss against torch's own cross-entropy."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from densevision.segmentation.losses import SegmentationLoss, sqrt_class_weights


def example(classes=5):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 4, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (2, 31, 47), generator=generator, dtype=torch.uint8)
    labels[:, :7] = 255
    return logits.requires_grad_(), labels


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 0.25, 3.0]], ids=["plain", "weighted"])
@pytest.mark.parametrize("align_corners", [True, False])
def test_the_quotient_is_torchs_mean_at_full_resolution(weights, align_corners):
    logits, labels = example()
    total, count = SegmentationLoss(align_corners, weights)(logits, labels)
    upsampled = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=align_corners)
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = F.cross_entropy(upsampled, labels.long(), weight=weight, ignore_index=255)
    torch.testing.assert_close(total / count, expected)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 0.25, 3.0]], ids=["plain", "weighted"])
def test_a_crop_without_a_labelled_pixel_gives_zero_and_no_gradient(weights):
    logits, labels = example()
    total, count = SegmentationLoss(True, weights)(logits, torch.full_like(labels, 255))
    total.backward()
    assert float(total) == float(count) == 0.0
    assert not logits.grad.any()


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 0.25, 3.0]], ids=["plain", "weighted"])
def test_hard_pixels_alone_are_learnt_from(weights):
    logits, labels = example()
    upsampled = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=True)
    valid = labels != 255
    probability = upsampled.softmax(1).gather(1, torch.where(valid, labels, 0).long()[:, None])[:, 0]
    for ohem, min_kept in ((0.15, 0.0), (0.15, 0.25), (1.0, 0.0)):
        total, count = SegmentationLoss(True, weights, ohem, min_kept)(logits, labels)
        hardest = probability[valid].sort()[0][max(0, round(min_kept * labels.numel()) - 1)]
        hard = valid & (probability <= max(ohem, hardest if min_kept else 0.0))
        weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        kept = torch.where(hard, labels, 255).long()
        torch.testing.assert_close(total / count, F.cross_entropy(upsampled, kept, weight=weight, ignore_index=255))
        assert hard.sum() < valid.sum() or ohem == 1.0


def test_where_nothing_is_hard_and_nothing_need_be_kept_there_is_no_loss():
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    total, count = SegmentationLoss(True, None, ohem=0.4, ohem_min_kept=0.0)(logits, torch.zeros(1, 8, 8).byte())
    total.backward()
    assert float(total) == float(count) == 0.0
    assert not logits.grad.any()


def test_more_pixels_to_keep_than_are_labelled_keeps_no_ignored_one():
    logits, labels = example()
    plain, hard = SegmentationLoss(True), SegmentationLoss(True, None, ohem=0.01, ohem_min_kept=1.0)
    torch.testing.assert_close(hard(logits, labels), plain(logits, labels))


def test_sqrt_weights_favour_rare_classes_up_to_the_cap():
    weights = sqrt_class_weights([900, 100, 0, 1], cap=2.0)
    assert weights[1] == pytest.approx(3 * weights[0])
    assert weights[2] == 1.0
    assert weights[3] == 2.0


@pytest.mark.parametrize("ohem", [None, 0.7])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 0.25, 3.0]], ids=["plain", "weighted"])
def test_the_loss_stays_on_the_device(weights, ohem):
    with FakeTensorMode():
        loss = SegmentationLoss(True, weights, ohem).to("cuda")
        logits = torch.randn(2, 5, 4, 6, device="cuda")
        labels = torch.zeros(2, 31, 47, dtype=torch.uint8, device="cuda")
        total, count = loss(logits, labels)
    assert total.device.type == count.device.type == "cuda"
