"""The detection losses against torchvision's operators and its SSD, and what pictures without boxes teach."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_iou, sigmoid_focal_loss

from densevision.detection.anchors import AnchorCache, torchvision_anchors
from densevision.detection.box_coder import encode
from densevision.detection.losses import DetectionLoss, assign, focal_loss

ANCHORS = AnchorCache(torchvision_anchors(), (16, 32, 64, 128, 256, 512))((320, 320), torch.device("cpu"))
CLASSES = 5


def example(counts, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    outputs = {
        "class_logits": torch.randn(len(counts), len(ANCHORS), CLASSES + 1, generator=generator, dtype=dtype) * 3,
        "box_deltas": torch.randn(len(counts), len(ANCHORS), 4, generator=generator, dtype=dtype),
    }
    # boxes far enough apart that no two claim one anchor: torchvision lets the last win, the official matcher the first
    cells = [torch.randperm(16, generator=generator)[:n] for n in counts]
    low = [torch.stack([c % 4, c // 4], 1) * 80 + torch.rand(len(c), 2, generator=generator) * 20 for c in cells]
    boxes = [torch.cat([x, x + 15 + torch.rand(len(x), 2, generator=generator) * 45], 1) for x in low]
    labels = [torch.randint(0, CLASSES, (n,), generator=generator) for n in counts]
    return {name: value.requires_grad_() for name, value in outputs.items()}, boxes, labels


@pytest.mark.parametrize("gamma", [2.0, 1.5])
def test_focal_loss_equals_torchvisions(gamma):
    logits = torch.randn(2, 40, CLASSES + 1, dtype=torch.float64, requires_grad=True)
    columns = torch.randint(0, CLASSES + 1, (2, 40)) * (torch.rand(2, 40) < 0.3)
    target = F.one_hot(columns, CLASSES + 1).double()
    target[..., 0] = 0
    expected = sigmoid_focal_loss(logits, target, alpha=0.75, gamma=gamma, reduction="sum")
    (slope,) = torch.autograd.grad(expected, logits)
    ours = focal_loss(logits, columns, 0.75, gamma)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(torch.autograd.grad(ours * 3, logits)[0], slope * 3)


@pytest.mark.parametrize("value", [-200.0, 0.0, 200.0])
def test_focal_loss_is_finite_everywhere(value):
    logits = torch.full((1, 2, 3), value, requires_grad=True)
    total = focal_loss(logits, torch.tensor([[0, 1]]), 0.75, 2.0)
    total.backward()
    assert total.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("counts", [(3, 0, 9), (1,), (0, 0), (16, 2)])
def test_official_loss_written_out(counts):
    outputs, boxes, labels = example(counts)
    total, count = DetectionLoss()(outputs, ANCHORS, boxes, labels)
    targets, columns = assign(ANCHORS, boxes, labels, 0.5)
    target = F.one_hot(columns, CLASSES + 1).double() * (columns > 0)[..., None]
    expected = sigmoid_focal_loss(outputs["class_logits"], target, alpha=0.75, gamma=2, reduction="sum")
    matched = columns > 0
    wanted = encode(targets, ANCHORS).double()[matched]
    expected = expected + F.smooth_l1_loss(outputs["box_deltas"][matched], wanted, reduction="sum") / 4
    torch.testing.assert_close(total, expected)
    assert int(count) == int(matched.sum())
    assert (count > 0) == any(counts)


def test_a_picture_without_boxes_teaches_what_is_background():
    outputs, boxes, labels = example((0,))
    total, count = DetectionLoss()(outputs, ANCHORS, boxes, labels)
    total.backward()
    assert (float(total.detach()) > 0, float(count)) == (True, 0.0)
    assert (outputs["class_logits"].grad > 0).all()
    assert not outputs["box_deltas"].grad.any()


@pytest.mark.parametrize("counts", [(3, 0, 9), (5,), (12, 1)])
def test_softmax_loss_equals_torchvisions(counts):
    outputs, boxes, labels = example(counts, torch.float32)
    theirs = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
    matcher = SSDMatcher(0.5)
    matched = [
        matcher(box_iou(picture, ANCHORS)) if len(picture) else torch.full((len(ANCHORS),), -1) for picture in boxes
    ]
    losses = theirs.compute_loss(
        [{"boxes": b, "labels": label + 1} for b, label in zip(boxes, labels, strict=True)],
        {"cls_logits": outputs["class_logits"], "bbox_regression": outputs["box_deltas"]},
        [ANCHORS] * len(counts),
        matched,
    )
    total, count = DetectionLoss(score="softmax")(outputs, ANCHORS, boxes, labels)
    torch.testing.assert_close(total / count, losses["classification"] + losses["bbox_regression"])


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_outputs_are_computed_in_float32(score, dtype):
    outputs, boxes, labels = example((2, 0), torch.float32)
    exact, count = DetectionLoss(score)(outputs, ANCHORS, boxes, labels)
    half = {name: value.to(dtype) for name, value in outputs.items()}
    total, half_count = DetectionLoss(score)(half, ANCHORS, boxes, labels)
    assert total.dtype == torch.float32
    assert half_count == count
    torch.testing.assert_close(total, exact, rtol=0.02, atol=0)


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
def test_the_loss_stays_on_the_device(score):
    with FakeTensorMode(), torch.device("cuda"):
        outputs = {"class_logits": torch.randn(2, 9, 4), "box_deltas": torch.randn(2, 9, 4)}
        boxes, labels = [torch.rand(3, 4), torch.rand(0, 4)], [torch.zeros(n, dtype=torch.long) for n in (3, 0)]
        total, count = DetectionLoss(score)(outputs, torch.rand(9, 4), boxes, labels)
    assert total.device.type == count.device.type == "cuda"
