"""What a model makes of pictures of any kind, and what a mistake in a configuration says."""

import pytest
import torch

import densevision
from densevision.config import load_config
from densevision.config.loader import CONFIG_DIRS
from densevision.config.schema import BackboneConfig, HeadConfig, ModelConfig
from densevision.errors import UserError
from densevision.model_backbone import build_architecture
from densevision.model_heads import SEGMENTATION_HEADS
from densevision.models import build_model, create_model


def small_model(backbone, head, output_stride, **changes):
    return build_model(
        ModelConfig(
            backbone=BackboneConfig(name=backbone, width_mult=0.35, output_stride=output_stride, **changes),
            head=HeadConfig(name=head, channels=8),
        ),
        num_classes=5,
    )


def pixels(*shape, **keywords):
    return torch.randint(0, 256, shape, dtype=torch.uint8, **keywords)


@pytest.mark.parametrize("head", sorted(SEGMENTATION_HEADS))
def test_autocast(head):
    model = small_model("mobilenet_v3_large", head, 16)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(pixels(2, 3, 65, 97))
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("head", sorted(SEGMENTATION_HEADS))
@pytest.mark.parametrize("size", [(1, 1), (7, 500), (33, 32), (97, 129)])
def test_any_size(head, size):
    model = small_model("mobilenet_v3_small", head, 16).eval()
    assert model(pixels(1, 3, *size)).isfinite().all()


@pytest.mark.parametrize("head", sorted(SEGMENTATION_HEADS))
def test_pixels_may_be_bytes_or_floats_and_each_picture_is_its_own(head):
    model = small_model("mobilenet_v3_large", head, 16).eval()
    images = pixels(3, 3, 64, 80)
    with torch.no_grad():
        together = model(images)
        torch.testing.assert_close(model(images.float()), together)
        torch.testing.assert_close(torch.cat([model(image[None]) for image in images]), together)


def test_same_output_in_train_and_eval_but_for_normalisation():
    model = small_model("mobilenet_v2", "lraspp", 16)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    images = pixels(1, 3, 64, 64)
    torch.testing.assert_close(model(images), model.eval()(images))


def test_a_seed_repeats_the_weights():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(small_model("mobilenet_v3_small", "lraspp", 16).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def test_create_model_is_a_plain_module():
    model = densevision.create_model(
        "configs/lraspp_v3_cityscapes.yaml", ["model.backbone.width_mult=0.75"], num_classes=7
    )
    assert isinstance(model, torch.nn.Module)
    assert model.eval()(pixels(1, 3, 64, 64)).shape == (1, 7, 8, 8)
    assert create_model("lraspp_v3_cityscapes").head.low_classifier.out_channels == 19
    assert create_model("lraspp_v3_voc_torchvision").head.low_classifier.out_channels == 21
    ours, theirs = (create_model("ssdlite_v3_voc", num_classes=classes) for classes in (None, 20))
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


def test_the_recipe_on_v2_has_the_full_tail():
    model = create_model("lraspp_v2_cityscapes")
    assert model.backbone.feature_info["c5"].channels == 320
    assert model.backbone.feature_info["c5"].stride == 16
    assert model.head.local.conv.out_channels == 128


def test_unknown_backbone_names_the_nearest_and_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: [lraspp_v3_cityscapes.yaml]\nmodel: {backbone: {name: mobilenet_v3_lrge}}\n")
    with pytest.raises(UserError) as caught:
        create_model(file)
    assert str(caught.value).startswith(f"{file}: model.backbone.name: unknown backbone 'mobilenet_v3_lrge'")
    assert "did you mean 'mobilenet_v3_large'?" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.head.name=lrasp", "did you mean 'lraspp'"),
        ("model.head.low_tap=c3_first_", "did you mean 'c3_first'"),
        ("model.backbone.output_stride=4", "none of 32, 16, 8"),
        ("model.backbone.reduced_tail=maybe", "none of"),
        ("model.preprocess=caffe", "none of"),
        ("model.backbone.identity_tensor_multiplier=0.5", "only mobilenext has partial residuals"),
    ],
)
def test_mistakes_are_sentences(override, said):
    with pytest.raises(UserError, match=said) as caught:
        create_model("lraspp_v3_cityscapes", [override])
    assert f"override '{override}'" in str(caught.value)


@pytest.mark.parametrize("first_map", ["c4_expansion", "c3_expansion"])
def test_ssdlite_has_output_stride_16_or_32(first_map):
    words = ["model.backbone.output_stride=8", f"model.head.first_map={first_map}"]
    with pytest.raises(UserError, match=r"override 'model\.backbone\.output_stride=8': .* 16 or 32, not 8"):
        create_model("ssdlite_v3_coco", words)


def test_reduced_tail_true_is_the_segmentation_cut():
    config = load_config("lraspp_v3_cityscapes").config.model
    assert config.backbone.reduced_tail == "segmentation"
    assert build_model(config, 19).backbone.architecture.blocks[12].expansion == 336


def activations(hswish_from, name="mobilenet_v3_large"):
    architecture = build_architecture(BackboneConfig(name=name, reduced_tail="segmentation", hswish_from=hswish_from))
    return [architecture.stem.act, *(block.act for block in architecture.blocks), architecture.last_conv.act]


def test_hswish_moves_as_in_table_5():
    assert activations(80) == activations(None)
    assert set(activations(0)) == {"relu"}
    assert set(activations(16)) == {"hswish"}
    assert activations(112) == ["hswish", *["relu"] * 10, *["hswish"] * 6]


def test_what_has_no_hswish_cannot_move_it():
    with pytest.raises(UserError, match="no h-swish"):
        activations(16, "mobilenet_v2")


@pytest.mark.parametrize("file", sorted((CONFIG_DIRS[0] / "ablations").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_ablation_builds_and_differs_from_the_published_row(file):
    shapes = [[tuple(p.shape) for p in create_model(config).parameters()] for config in ("paper/table7_row08", file)]
    same_weights = ("table5_", "figure10_pool", "table8_large")
    assert (shapes[0] == shapes[1]) == file.stem.startswith(same_weights)
