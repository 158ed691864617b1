"""Every backbone with every head at every output stride: what it gives, what it learns from, and where it can go."""

import io

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy

from densevision.backbones import BACKBONES
from densevision.config import config_to_dict
from densevision.config.loader import config_from_dict
from densevision.config.schema import Config
from densevision.detection.losses import DetectionLoss
from densevision.model_heads import CLASSIFICATION_HEADS, DETECTION_HEADS, HEADS, SEGMENTATION_HEADS
from densevision.models import build_model, resolved
from densevision.segmentation.losses import SegmentationLoss

SIZE = (64, 64)
CLASSES = 5
# SSDLite starts at stride 16
STRIDES = {"raspp": (8, 16, 32), "lraspp": (8, 16, 32), "ssdlite": (16, 32), "classifier": (8, 16, 32)}
# F2 is F1's network and L2 is L1's, at other resolutions
NAMES = sorted(set(BACKBONES) - {"fbnetv2_f2", "fbnetv2_l2"})
PAIRS = [(name, head) for name in NAMES for head in sorted(HEADS)]
MATRIX = [(name, head, stride) for name, head in PAIRS for stride in STRIDES[head]]
# each pair once, and with it each stride: the walk along the pairs goes round the strides at another pace
SAMPLE = [(name, head, STRIDES[head][NAMES.index(name) % len(STRIDES[head])]) for name, head in PAIRS]
# each backbone once, each head and stride several times: exporting takes seconds
EXPORTED = [case for case in SAMPLE if case[1] == sorted(HEADS)[NAMES.index(case[0]) % len(HEADS)]]
CASES = [pytest.param(*case, marks=[] if case in SAMPLE else pytest.mark.slow) for case in MATRIX]
EXPORTS = [pytest.param(*case, marks=[] if case in EXPORTED else pytest.mark.slow) for case in MATRIX]


def test_the_samples_hold_every_backbone_head_and_stride():
    for sample in (SAMPLE, EXPORTED):
        assert {name for name, _, _ in sample} == set(NAMES)
        assert {head for _, head, _ in sample} == set(HEADS)
        assert {stride for _, _, stride in sample} == {8, 16, 32}


def config_of(backbone, head, output_stride, **changes):
    """A narrow network, resolved as a checkpoint stores it."""
    config = Config()
    config.data.name = "folders"
    config.model.backbone.name, config.model.head.name = backbone, head
    config.model.backbone.width_mult, config.model.backbone.output_stride = 0.35, output_stride
    config.model.head.channels = 8
    for key, value in changes.items():
        setattr(config.model.backbone, key, value)
    config.model = resolved(config.model)
    return config


def network(backbone, head, output_stride, **changes):
    return build_model(config_of(backbone, head, output_stride, **changes).model, CLASSES)


def pixels(batch):
    return torch.randint(0, 256, (batch, 3, *SIZE), dtype=torch.uint8)


def tensors(outputs):
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]


def check_shapes(model, head, output_stride, outputs):
    if head in DETECTION_HEADS:
        anchors = len(model.anchors(SIZE))
        assert outputs["class_logits"].shape == (2, anchors, CLASSES + 1)
        assert outputs["box_deltas"].shape == (2, anchors, 4)
    elif head in CLASSIFICATION_HEADS:
        assert outputs.shape == (2, CLASSES)
    else:
        stride = 8 if head == "lraspp" else output_stride
        assert outputs.shape == (2, CLASSES, SIZE[0] // stride, SIZE[1] // stride)


def task_loss(model, head, outputs):
    """The loss that trains such a head."""
    if head in CLASSIFICATION_HEADS:
        return cross_entropy(outputs, torch.tensor([1, 3]))
    if head in SEGMENTATION_HEADS:
        labels = torch.randint(0, CLASSES, (2, *SIZE))
        total, count = SegmentationLoss(align_corners=model.head.align_corners)(outputs, labels)
    else:
        boxes = [torch.tensor([[4.0, 4.0, 40.0, 44.0]]), torch.zeros(0, 4)]
        labels = [torch.tensor([2]), torch.zeros(0, dtype=torch.int64)]
        total, count = DetectionLoss()(outputs, model.anchors(SIZE), boxes, labels)
    return total / count


@pytest.mark.parametrize(("backbone", "head", "output_stride"), CASES)
def test_features_shapes_loss_and_gradients(backbone, head, output_stride):
    torch.manual_seed(0)
    model = network(backbone, head, output_stride)
    images = pixels(2)
    maps = model.backbone(model.preprocess(images))
    for name, info in model.backbone.feature_info.items():
        assert maps[name].shape == (2, info.channels, SIZE[0] // info.stride, SIZE[1] // info.stride), name
    outputs = model(images)
    check_shapes(model, head, output_stride, outputs)
    loss = task_loss(model, head, outputs)
    assert loss.isfinite()
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


@pytest.mark.parametrize(("backbone", "head", "output_stride"), CASES)
def test_no_tensor_stays_on_the_cpu(backbone, head, output_stride):
    """Fake tensors know their device; a backward pass would need a driver."""
    with FakeTensorMode(), torch.device("cuda"):
        model = network(backbone, head, output_stride)
        for mode in (True, False):
            assert {output.device.type for output in tensors(model.train(mode)(pixels(2)))} == {"cuda"}


@pytest.mark.parametrize(("backbone", "head", "output_stride"), CASES)
def test_a_checkpoint_gives_the_same_network(backbone, head, output_stride):
    """The stored configuration is enough to build what the stored weights fit, to the last bit of the outputs."""
    config = config_of(backbone, head, output_stride, reduced_tail="segmentation")
    model = build_model(config.model, CLASSES)
    model(pixels(2))  # statistics that are not the initial ones
    file = io.BytesIO()
    torch.save({"state": model.state_dict(), "config": config_to_dict(config)}, file)
    file.seek(0)
    stored = torch.load(file, weights_only=True)
    again = build_model(config_from_dict(stored["config"], "stored").config.model, CLASSES, load_weights=False)
    again.load_state_dict(stored["state"])
    images = pixels(1)
    with torch.no_grad():
        for ours, theirs in zip(tensors(model.eval()(images)), tensors(again.eval()(images)), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("backbone", "head", "output_stride"), EXPORTS)
def test_export_equals_eager(backbone, head, output_stride):
    model = network(backbone, head, output_stride, reduced_tail="segmentation").eval()
    images = pixels(1)
    exported = torch.export.export(model, (images,)).module()
    with torch.no_grad():
        for ours, theirs in zip(tensors(exported(images)), tensors(model(images)), strict=True):
            torch.testing.assert_close(ours, theirs)
