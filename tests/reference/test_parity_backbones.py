"""Logits equal to torchvision's and timm's networks, on random weights with random batch-norm statistics."""

import re

import pytest
import timm
import torch
import torchvision
from torch import nn

from densevision.backbones import BACKBONES, Backbone
from densevision.backbones.pretrained import TIMM_NAMES, TORCHVISION_BACKBONES, load_backbone, read_pretrained
from densevision.classification import ClassificationHead
from densevision.layers import NormSpec, Preprocess
from densevision.models import create_model

# source, its name, our family, width
REFERENCES = [
    ("torchvision", "mobilenet_v2", "mobilenet_v2", 1.0),
    ("torchvision", "mobilenet_v2", "mobilenet_v2", 0.5),
    ("torchvision", "mobilenet_v2", "mobilenet_v2", 1.4),
    ("torchvision", "mobilenet_v3_large", "mobilenet_v3_large", 1.0),
    ("torchvision", "mobilenet_v3_small", "mobilenet_v3_small", 1.0),
    ("torchvision", "mnasnet0_5", "mnasnet_b1", 0.5),
    ("torchvision", "mnasnet0_75", "mnasnet_b1", 0.75),
    ("torchvision", "mnasnet1_0", "mnasnet_b1", 1.0),
    ("torchvision", "mnasnet1_3", "mnasnet_b1", 1.3),
    ("timm", "mobilenetv1_100", "mobilenet_v1", 1.0),
    ("timm", "mobilenetv1_125", "mobilenet_v1", 1.25),
    ("timm", "semnasnet_050", "mnasnet_a1", 0.5),
    ("timm", "semnasnet_075", "mnasnet_a1", 0.75),
    ("timm", "semnasnet_100", "mnasnet_a1", 1.0),
    ("timm", "semnasnet_140", "mnasnet_a1", 1.4),
    ("timm", "mnasnet_050", "mnasnet_b1", 0.5),
    ("timm", "mnasnet_100", "mnasnet_b1", 1.0),
    ("timm", "mnasnet_small", "mnasnet_small", 1.0),
    ("timm", "mobilenetv2_035", "mobilenet_v2", 0.35),
    ("timm", "mobilenetv2_050", "mobilenet_v2", 0.5),
    ("timm", "mobilenetv2_075", "mobilenet_v2", 0.75),
    ("timm", "mobilenetv2_100", "mobilenet_v2", 1.0),
    ("timm", "mobilenetv2_140", "mobilenet_v2", 1.4),
    ("timm", "mobilenetv3_large_075", "mobilenet_v3_large", 0.75),
    ("timm", "mobilenetv3_large_100", "mobilenet_v3_large", 1.0),
    ("timm", "mobilenetv3_small_075", "mobilenet_v3_small", 0.75),
    ("timm", "mobilenetv3_small_100", "mobilenet_v3_small", 1.0),
    ("timm", "tf_mobilenetv3_large_minimal_100", "mobilenet_v3_large_minimalistic", 1.0),
    ("timm", "tf_mobilenetv3_small_minimal_100", "mobilenet_v3_small_minimalistic", 1.0),
]


def randomise(model):
    """Batch normalisation that is no identity, and weights that keep the activations' size."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    return model.eval()


def build_reference(source, name, width):
    if source == "timm":
        return timm.create_model(name)
    arguments = {"width_mult": width} if width != 1 and name == "mobilenet_v2" else {}
    return torchvision.models.get_model(name, weights=None, **arguments)


@pytest.fixture
def reference_file(tmp_path):
    def save(model):
        torch.save(model.state_dict(), tmp_path / "reference.pth")
        return str(tmp_path / "reference.pth")

    return save


def normalised(images):
    return torchvision.transforms.functional.normalize(images, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def classifier_of(weights, architecture, num_classes=1000, **backbone_arguments):
    """Backbone and classifier in our names, filled from a state dict."""
    norm = NormSpec(momentum=0.1, eps=weights.eps)
    last = "last_conv" if architecture.last_conv else "c5"
    backbone = Backbone(architecture, (last,), norm=norm, **backbone_arguments)
    load_backbone(backbone, weights)
    act = architecture.last_conv.act if architecture.last_conv else "relu"
    head = ClassificationHead(architecture.feature_info[last].channels, num_classes, architecture.pre_logits, act=act)
    head.load_state_dict(weights.part("head"))
    network = nn.ModuleDict({"backbone": backbone, "head": head}).eval()
    return network, lambda images: head(backbone(images)[last])


def test_every_network_that_can_be_downloaded_is_compared():
    hubs = {"torchvision": TORCHVISION_BACKBONES, "timm": TIMM_NAMES}
    known = {(hub, name, *network) for hub, names in hubs.items() for network, name in names.items()}
    assert known <= set(REFERENCES)


@pytest.mark.parametrize(("source", "name", "family", "width"), REFERENCES)
def test_logits_and_parameters_equal(source, name, family, width, reference_file):
    torch.manual_seed(0)
    reference = randomise(build_reference(source, name, width))
    weights = read_pretrained(reference_file(reference), family, width)
    assert weights.source == source
    network, forward = classifier_of(weights, BACKBONES[family](width_mult=width))
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in reference.parameters())
    reference, network = reference.double(), network.double()
    with torch.no_grad():
        # an even and an odd side; TensorFlow's padding is ours on odd ones alone
        images = torch.randn(1, 3, 65 if name.startswith("tf_") else 64, 97, dtype=torch.float64)
        expected = reference(images)
        assert expected.std() > 1e-3
        torch.testing.assert_close(forward(images), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv3_small_100"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_features_equal_timm(name, output_stride, reference_file):
    """timm dilates by the published rule: the block that loses its stride keeps the rate so far."""
    torch.manual_seed(0)
    reference = randomise(timm.create_model(name, features_only=True, output_stride=output_stride))
    family = re.sub(r"mobilenetv(\d)(.*)_100", r"mobilenet_v\1\2", name)
    architecture = BACKBONES[family](output_stride=output_stride)
    backbone = Backbone(architecture, (architecture.top,), norm=NormSpec(0.1, 1e-5)).eval()
    load_backbone(backbone, read_pretrained(reference_file(reference), family))
    images = torch.randn(1, 3, 97, 129)
    with torch.no_grad():
        expected, ours = reference(images)[-1], backbone(images)[architecture.top]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    assert ours.shape[-1] == 128 // output_stride + 1


def test_published_mobilenet_v2_file(test_data):
    path = test_data.parent / "weights" / "mobilenet_v2-b0353104.pth"
    reference = torchvision.models.mobilenet_v2()
    reference.load_state_dict(torch.load(path, weights_only=True))
    weights = read_pretrained(str(path), "mobilenet_v2")
    assert (weights.source, weights.eps, weights.preprocess) == ("torchvision", 1e-5, "imagenet")
    _, forward = classifier_of(weights, BACKBONES["mobilenet_v2"]())
    images = torch.rand(2, 3, 97, 128)
    with torch.no_grad():
        expected = reference.eval()(normalised(images))
        torch.testing.assert_close(forward(Preprocess("imagenet")(images * 255)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "dtype", "tolerance"), [((97, 129), "float32", 1e-5), ((64, 96), "float64", 1e-10)])
def test_lraspp_equals_torchvision(size, dtype, tolerance, reference_file):
    torch.manual_seed(0)
    reference = randomise(
        torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)
    )
    override = f"model.pretrained={reference_file(reference)}"
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        ours = create_model("configs/lraspp_v3_voc_torchvision.yaml", [override]).eval()
        images = torch.rand(2, 3, *size) * 255
        pixels = normalised(images / 255)
    finally:
        torch.set_default_dtype(torch.float32)
    reference = reference.to(images.dtype)
    with torch.no_grad():
        expected = reference(pixels)["out"]
        logits = nn.functional.interpolate(
            ours(images), size=size, mode="bilinear", align_corners=ours.head.align_corners
        )
    torch.testing.assert_close(logits, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in reference.parameters())
