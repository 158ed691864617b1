"""SSDLite on every backbone: shapes, gradients, order of the outputs, export, devices, and how it starts."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from densevision.backbones import BACKBONES
from densevision.config import load_config
from densevision.config.schema import BackboneConfig, HeadConfig, ModelConfig
from densevision.detection.losses import DetectionLoss
from densevision.errors import UserError
from densevision.model_heads import check_head
from densevision.models import build_model, build_postprocess, check_batch_norm, create_model, resolved

# the families with an expansion before the first stride-32 block, or, V1, a block before it
NAMES = [name for name in sorted(BACKBONES) if "c4_expansion" in BACKBONES[name]().feature_info]


def small_model(backbone="mobilenet_v3_small", width_mult=0.35, num_classes=5, extras=(512, 256, 256, 128), **head):
    config = ModelConfig(
        backbone=BackboneConfig(name=backbone, width_mult=width_mult, scale_last_conv=True),
        head=HeadConfig(name="ssdlite", extras=list(extras), **head),
    )
    return build_model(config, num_classes)


def pixels(*shape, **keywords):
    return torch.randint(0, 256, shape, dtype=torch.uint8, **keywords)


@pytest.mark.parametrize("first_map", ["c4_expansion", "c3_expansion"])
@pytest.mark.parametrize("backbone", NAMES)
def test_every_parameter_gets_a_gradient(backbone, first_map):
    model = small_model(backbone, first_map=first_map)
    outputs = model(pixels(2, 3, 96, 128))
    anchors = model.anchors((96, 128))
    count = len(anchors)
    of_coarser_maps = (3 * 4 + 2 * 2 + 3) * 6
    expected = {"c4_expansion": 6 * 8 * 3, "c3_expansion": 12 * 16 * 3 + 6 * 8 * 6}[first_map] + of_coarser_maps
    assert count == expected
    assert (outputs["class_logits"].shape, outputs["box_deltas"].shape) == ((2, count, 6), (2, count, 4))
    boxes, labels = [torch.tensor([[10.0, 10, 60, 90]]), torch.zeros(0, 4)], [torch.tensor([2]), torch.zeros(0).long()]
    total, matched = DetectionLoss()(outputs, anchors, boxes, labels)
    # all anchors, so that every map's boxes are asked for
    (total / matched + outputs["box_deltas"].square().mean()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


@pytest.mark.parametrize(
    ("backbone", "c4", "c5"),
    [
        ("mobilenet_v1", 512, 1024),
        ("mobilenet_v2", 576, 1280),
        ("mnasnet_a1", 672, 1280),
        ("mobilenet_v3_large", 672, 960),
        ("mobilenet_v3_small", 288, 576),
    ],
)
def test_maps_of_the_backbone(backbone, c4, c5):
    """C4 is the expansion inside the first stride-32 block, before its stride, and not a block's output; but for V1."""
    with torch.device("meta"):
        model = small_model(backbone, width_mult=1.0)
    c4_info, c5_info = (model.backbone.feature_info[name] for name in model.features)
    assert (c4_info.channels, c4_info.stride) == (c4, 16)
    assert (c5_info.channels, c5_info.stride) == (c5, 32)


@pytest.mark.parametrize(
    ("backbone", "c3"),
    [("mobilenet_v1", 256), ("mobilenet_v2", 192), ("mnasnet_a1", 240), ("mobilenet_v3_large", 240)],
)
def test_a_finer_first_map_comes_before_the_published(backbone, c3):
    """For small objects: the expansion inside the first stride-16 block, all other maps as they were."""
    with torch.device("meta"):
        published, finer = (
            small_model(backbone, width_mult=1.0, first_map=name) for name in ("c4_expansion", "c3_expansion")
        )
    infos = [finer.backbone.feature_info[name] for name in finer.features]
    assert (infos[0].channels, infos[0].stride) == (c3, 8)
    assert finer.features[1:] == published.features
    assert finer.anchor_cache.strides == (8, *published.anchor_cache.strides)


def test_v1_reads_the_output_before_the_first_stride_32_block():
    """Conv2d_11_pointwise: the input of the block that has no expansion."""
    backbone = small_model("mobilenet_v1").backbone
    seen = {}
    backbone.blocks[10].register_forward_hook(lambda module, args, output: seen.update(c4=output))
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert torch.equal(maps["c4_expansion"], seen["c4"])


def test_extra_maps_are_cut_off_not_rounded():
    model = small_model("mobilenet_v2")
    assert [extra.project.conv.out_channels for extra in model.head.extras] == [179, 89, 89, 44]
    assert [extra.reduce.conv.out_channels for extra in model.head.extras] == [89, 44, 44, 22]
    narrow = small_model("mobilenet_v2", width_mult=0.05)
    assert [extra.reduce.conv.out_channels for extra in narrow.head.extras] == [16, 16, 16, 16]


def test_outputs_stand_in_the_order_of_the_anchors():
    """Map by map, row by row, cell by cell, anchor by anchor: with weights at 0, only the biases speak."""
    model = small_model().eval()
    predictor = model.head.class_predictors[1].project
    with torch.no_grad():
        for part in model.head.class_predictors:
            part.project.weight.zero_()
            part.project.bias.zero_()
        predictor.bias.copy_(torch.arange(36.0))  # 6 anchors with 6 columns each
    logits = model(pixels(1, 3, 96, 128))["class_logits"][0]
    first = 6 * 8 * 3
    expected = torch.arange(36.0).view(6, 6).repeat(3 * 4, 1)
    torch.testing.assert_close(logits[first : first + 72], expected)
    assert not logits[:first].any()
    sides = (model.anchors((96, 128))[:, 2:] - model.anchors((96, 128))[:, :2]) / 96
    shapes = torch.tensor(model.anchor_cache.shapes[1]).repeat(3 * 4, 1)
    torch.testing.assert_close(sides[first : first + 72], shapes)


def test_same_outputs_in_train_and_eval_but_for_normalisation():
    model = small_model()
    images = pixels(2, 3, 64, 64)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    trained = model(images)
    torch.testing.assert_close(model.eval()(images), trained)
    torch.testing.assert_close(model(images.float()), trained)


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
def test_weights_start_as_published(score):
    torch.manual_seed(0)
    model = create_model("ssdlite_v3_coco", [f"model.head.score={score}"])
    for part in (model.backbone, model.head.extras):
        weights = torch.cat([m.weight.flatten() for m in part.modules() if isinstance(m, nn.Conv2d)])
        assert weights.abs().max() <= 0.06
        assert weights.std().item() == pytest.approx(0.03 * 0.8796, rel=0.02)
    weights = torch.cat([p.project.weight.flatten() for p in model.head.class_predictors])
    assert weights.std().item() == pytest.approx(0.03, rel=0.02)
    prior = model.head.class_predictors[0].project.bias.sigmoid()
    torch.testing.assert_close(prior, torch.full_like(prior, 0.01 if score == "sigmoid" else 0.5))
    norms = {(m.momentum, m.eps) for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms == {(0.03, 1e-3)}


def test_published_classes_and_anchors():
    model = create_model("configs/ssdlite_v3_coco.yaml")
    assert model.head.class_predictors[0].project.out_channels == 3 * 91
    assert len(model.anchors((320, 320))) == 2034
    assert len(create_model("ssdlite_v3_coco_torchvision", num_classes=80).anchors((320, 320))) == 3234


@pytest.mark.parametrize("backbone", ["mobilenet_v1", "mobilenet_v3_large"])
def test_export_equals_eager(backbone):
    model = small_model(backbone).eval()
    images = pixels(1, 3, 96, 64)
    exported = torch.export.export(model, (images,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(images), model(images))


@pytest.mark.parametrize("backbone", ["mobilenet_v1", "mnasnet_a1", "mobilenet_v3_small"])
def test_no_tensor_stays_on_the_cpu(backbone):
    with FakeTensorMode(), torch.device("cuda"):
        model = small_model(backbone)
        outputs = model(pixels(2, 3, 64, 64))
        assert {value.device.type for value in outputs.values()} == {"cuda"}
        assert model.anchors((64, 64)).device.type == "cuda"


def test_autocast():
    model = small_model()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(pixels(2, 3, 64, 64))
        total, _ = DetectionLoss()(
            outputs, model.anchors((64, 64)), [torch.tensor([[5.0, 5, 40, 40]])] * 2, [torch.tensor([1])] * 2
        )
    assert outputs["class_logits"].dtype == torch.bfloat16
    total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_half_weights_leave_the_anchors_exact():
    model = small_model()
    expected = model.anchors((96, 128)).clone()
    assert torch.equal(model.to(torch.bfloat16).anchors((96, 128)), expected)


@pytest.mark.parametrize("anchors", [[[[0.1, 0.2]], [[0.3, 0.3], [0.5, 0.4]], [[0.9, 0.9]]]])
def test_anchors_of_the_configuration(anchors):
    model = small_model(extras=[64], anchors=anchors)
    assert [p.project.out_channels for p in model.head.box_predictors] == [4, 8, 4]
    assert model(pixels(2, 3, 64, 64))["box_deltas"].shape == (2, 16 + 4 * 2 + 1, 4)


def test_a_resolved_configuration_holds_the_anchors_themselves():
    config = resolved(load_config("ssdlite_v3_coco_torchvision").config.model)
    assert [len(shapes) for shapes in config.head.anchors] == [6] * 6
    assert config.head.norm.momentum == config.backbone.norm.momentum == 0.03
    config.head.anchors[0] = config.head.anchors[0][:2]
    assert build_model(config, 3, load_weights=False).head.box_predictors[0].project.out_channels == 8


def test_thresholds_of_the_configurations():
    official = build_postprocess(load_config("ssdlite_v3_coco").config.model.head)
    assert (official.score, official.score_threshold, official.nms_iou, official.max_detections) == (
        "sigmoid",
        1e-8,
        0.6,
        100,
    )
    theirs = build_postprocess(load_config("ssdlite_v3_coco_torchvision").config.model.head)
    assert (theirs.score_threshold, theirs.nms_iou, theirs.candidates_per_class) == (0.001, 0.55, 300)
    assert theirs.clip_before_nms


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.head.anchors=ssdlit", "did you mean 'ssdlite'"),
        ("model.head.anchors=[[[0.1,0.1]]]", "or 6 lists"),
        ("model.head.score=sigmod", "did you mean 'sigmoid'"),
        ("model.head.nms_iou=2", "between 0 and 1"),
    ],
)
def test_mistakes_are_sentences(override, said):
    with pytest.raises(UserError, match=said) as caught:
        create_model("ssdlite_v3_coco", [override])
    assert f"override '{override}'" in str(caught.value)


def test_a_head_of_another_task_is_refused():
    config = ModelConfig(head=HeadConfig(name="lraspp"))
    check_head("segmentation", config)
    with pytest.raises(UserError, match="lraspp is no head for detection; known: ssdlite"):
        check_head("detection", config)


def test_one_picture_whose_last_map_is_a_cell_is_refused():
    config = load_config("ssdlite_v3_coco").config.model
    with pytest.raises(UserError, match="last map is a single cell of a picture of 320x320"):
        check_batch_norm(config, (320, 320), batch_size=1)
    check_batch_norm(config, (320, 320), batch_size=2)
    check_batch_norm(config, (320, 640), batch_size=1)
