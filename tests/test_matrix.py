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
BATCH = 8  # fewer leave a ReLU inside squeeze-and-excite without a picture that opens it
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


def config_of(backbone, head, output_stride, cut=False):
    """A narrow network, resolved as a checkpoint stores it; ``cut``: with the reduced tail published for its task."""
    config = Config()
    config.data.name = "folders"
    config.model.backbone.name, config.model.head.name = backbone, head
    config.model.backbone.width_mult, config.model.backbone.output_stride = 0.35, output_stride
    config.model.head.channels = 8
    if cut:
        config.model.backbone.reduced_tail = "detection" if head in DETECTION_HEADS else "segmentation"
    config.model = resolved(config.model)
    return config


def network(backbone, head, output_stride, cut=False):
    return build_model(config_of(backbone, head, output_stride, cut).model, CLASSES)


def pixels(batch):
    return torch.randint(0, 256, (batch, 3, *SIZE), dtype=torch.uint8)


def tensors(outputs):
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]


def check_shapes(model, head, output_stride, outputs):
    if head in DETECTION_HEADS:
        anchors = len(model.anchors(SIZE))
        assert outputs["class_logits"].shape == (BATCH, anchors, CLASSES + 1)
        assert outputs["box_deltas"].shape == (BATCH, anchors, 4)
    elif head in CLASSIFICATION_HEADS:
        assert outputs.shape == (BATCH, CLASSES)
    else:
        stride = 8 if head == "lraspp" else output_stride
        assert outputs.shape == (BATCH, CLASSES, SIZE[0] // stride, SIZE[1] // stride)


def task_loss(model, head, outputs):
    """The loss that trains such a head."""
    if head in CLASSIFICATION_HEADS:
        return cross_entropy(outputs, torch.arange(BATCH) % CLASSES)
    if head in SEGMENTATION_HEADS:
        labels = torch.randint(0, CLASSES, (BATCH, *SIZE))
        total, count = SegmentationLoss(align_corners=model.head.align_corners)(outputs, labels)
    else:
        # one picture has a box for each map, that of its last anchor; the others have none
        anchors, cache = model.anchors(SIZE), model.anchor_cache
        grids = cache.grids(SIZE)
        counts = [h * w * len(shapes) for (h, w), shapes in zip(grids, cache.shapes, strict=True)]
        assert sum(counts) == len(anchors)
        boxes = [anchors[torch.tensor(counts).cumsum(0) - 1], *[torch.zeros(0, 4)] * (BATCH - 1)]
        labels = [torch.arange(len(found)) % CLASSES for found in boxes]
        total, count = DetectionLoss()(outputs, anchors, boxes, labels)
    return total / count


@pytest.mark.parametrize(("backbone", "head", "output_stride"), CASES)
def test_features_shapes_loss_and_gradients(backbone, head, output_stride):
    torch.manual_seed(0)
    model = network(backbone, head, output_stride)
    images = pixels(BATCH)
    maps = model.backbone(model.preprocess(images))
    for name, info in model.backbone.feature_info.items():
        assert maps[name].shape == (BATCH, info.channels, SIZE[0] // info.stride, SIZE[1] // info.stride), name
    outputs = model(images)
    check_shapes(model, head, output_stride, outputs)
    loss = task_loss(model, head, outputs)
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert not [name for name, p in model.named_parameters() if p.grad.abs().max() == 0]


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
    config = config_of(backbone, head, output_stride, cut=True)
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
    model = network(backbone, head, output_stride, cut=True).eval()
    images = pixels(1)
    exported = torch.export.export(model, (images,)).module()
    with torch.no_grad():
        for ours, theirs in zip(tensors(exported(images)), tensors(model(images)), strict=True):
            torch.testing.assert_close(ours, theirs)
