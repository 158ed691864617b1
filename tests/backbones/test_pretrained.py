"""Reading published weights: whose they are, what follows, and what is said when they do not fit."""

import logging

import pytest
import timm
import torch
import torchvision

from densevision.backbones import BACKBONES, Backbone
from densevision.backbones.pretrained import load_backbone, read_pretrained
from densevision.config import config_to_dict, load_config
from densevision.errors import UserError
from densevision.models import build_model, create_model, resolved

V2, V3 = "lraspp_v2_cityscapes", "lraspp_v3_cityscapes"
FULL = "model.backbone.reduced_tail=false"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Randomly initialised state dicts of torchvision and timm, a damaged and a foreign one."""
    folder = tmp_path_factory.mktemp("weights")
    states = {
        "torchvision_v2": torchvision.models.mobilenet_v2().state_dict(),
        "torchvision_v3": {"model": torchvision.models.mobilenet_v3_large().state_dict(), "epoch": 3},
        "timm_v2": timm.create_model("mobilenetv2_100").state_dict(),
        "timm_v3": {"state_dict": timm.create_model("mobilenetv3_large_100").state_dict()},
        "torchvision_lraspp": torchvision.models.segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=21
        ).state_dict(),
        "resnet": torchvision.models.resnet18().state_dict(),
    }
    for name, state in states.items():
        torch.save(state, folder / f"{name}.pth")
    (folder / "damaged.pth").write_bytes((folder / "resnet.pth").read_bytes()[:1000])
    return lambda name: f"model.backbone.pretrained={folder / name}.pth"


@pytest.mark.parametrize(
    ("config", "file", "eps"),
    [
        (V2, "torchvision_v2", 1e-5),
        (V3, "torchvision_v3", 1e-3),
        (V2, "timm_v2", 1e-5),
        (V3, "timm_v3", 1e-5),
    ],
)
def test_epsilon_and_preprocessing_follow_the_weights(config, file, eps, files):
    model = create_model(config, [files(file), FULL])
    assert model.backbone.stem.norm.eps == eps
    assert model.preprocess.mode == "imagenet"
    assert model.head.local.norm.eps == 1e-5
    kept = create_model(config, [files(file), FULL, "model.backbone.norm.eps=0.5", "model.preprocess=half"])
    assert kept.backbone.stem.norm.eps == 0.5
    assert kept.preprocess.mode == "half"


@pytest.mark.parametrize(
    ("words", "rates"),
    [
        (["backbone.pretrained", "torchvision_lraspp"], (1, 2, 2, 2)),
        (["pretrained", "torchvision_lraspp", "head.low_tap=c3_first", "head.gate_bias=false"], (1, 2, 2, 2)),
        (["backbone.pretrained", "torchvision_lraspp", "backbone.dilation_rule=old"], (1, 1, 2, 2)),
        (["backbone.pretrained", "torchvision_v3"], (1, 1, 2, 2)),  # trained without dilation
    ],
    ids=str,
)
def test_dilation_follows_the_weights(words, rates, files):
    """torchvision's segmentation networks dilate the block that loses its stride too."""
    key, file, *rest = words
    path = files(file).split("=")[1]
    overrides = [FULL, f"model.{key}={path}", *(f"model.{word}" for word in rest)]
    config = load_config("lraspp_v3_voc", overrides).config.model
    model = build_model(config, 21)
    assert tuple(block.depthwise.conv.dilation[0] for block in model.backbone.blocks[-4:]) == rates
    assert resolved(config).backbone.dilation_rule == ("new" if rates[1] == 2 else "old")


def test_without_weights_the_family_decides():
    model = create_model(V2)
    assert (model.backbone.stem.norm.eps, model.preprocess.mode) == (1e-3, "half")


@pytest.mark.parametrize(
    ("config", "file", "cut", "last", "first"),
    [
        (V2, "torchvision_v2", "segmentation", "blocks.13.depthwise.norm.bias", "blocks.13.project.conv.weight"),
        (V2, "torchvision_v2", "detection", "blocks.13.depthwise.norm.bias", "blocks.13.project.conv.weight"),
        # V3's segmentation cut halves the first expansion too
        (V3, "timm_v3", "segmentation", "blocks.11.project.norm.bias", "blocks.12.expand.conv.weight"),
        (V3, "timm_v3", "detection", "blocks.12.se.expand.bias", "blocks.12.project.conv.weight"),
    ],
)
def test_full_tail_into_a_reduced_one(config, file, cut, last, first, files, caplog):
    path = files(file).split("=")[1]
    with caplog.at_level(logging.WARNING, logger="densevision"):
        model = create_model(config, [files(file), f"model.backbone.reduced_tail={cut}"])
    parameters = dict(model.backbone.named_parameters())
    left = len(parameters) - list(parameters).index(first)
    message = f"{len(parameters) - left} of {len(parameters)} tensors loaded, {left} from {first} on start at random"
    assert message in caplog.text
    assert path in caplog.text
    whole = dict(create_model(config, [files(file), FULL]).backbone.named_parameters())
    loaded = list(parameters)[: len(parameters) - left]
    assert loaded[-1] == last
    assert all(torch.equal(parameters[key], whole[key]) for key in loaded)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["resnet"], "resnet.pth holds conv1.weight"),
        (["damaged"], "damaged.pth is not a whole checkpoint"),
        (["nowhere"], "no checkpoint at .*nowhere.pth; give the path of a file, or torchvision or timm to download"),
        (["torchvision_v3"], r"stem.conv.weight: \(16, 3, 3, 3\) in the file, \(32, 3, 3, 3\) in the network; .* more"),
        (["torchvision_v2", "model.backbone.width_mult=0.75"], r"stem.conv.weight: \(32, 3, 3, 3\) in the file, \(24"),
        # a wrong width is no reduced tail, whatever the tail
        (["timm_v2", "model.backbone.width_mult=0.5", "model.backbone.reduced_tail=true"], "does not fit"),
    ],
)
def test_what_does_not_fit_is_named(overrides, said, files):
    file, *rest = overrides
    with pytest.raises(UserError, match=said) as caught:
        create_model(V2, [files(file), *rest])
    assert str(caught.value).startswith(f"override '{files(file)}': model.backbone.pretrained: ")


def test_own_checkpoint(tmp_path, files):
    """A checkpoint's backbone, with the epsilon and preprocessing it was trained with."""
    config = load_config(V2, [files("timm_v2"), "model.backbone.dilation_rule=new"]).config
    config.model = resolved(config.model)
    trained = build_model(config.model, 5)
    checkpoint = {
        "state_dict": {f"model.{key}": value for key, value in trained.state_dict().items()},
        "densevision": {"version": "0", "config": config_to_dict(config), "label_map": {}},
    }
    torch.save(checkpoint, tmp_path / "best.ckpt")
    model = create_model(V2, [f"model.backbone.pretrained={tmp_path / 'best.ckpt'}"])
    assert (model.backbone.stem.norm.eps, model.preprocess.mode) == (1e-5, "imagenet")
    assert model.backbone.architecture == trained.backbone.architecture
    for key, value in trained.backbone.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[key]), key
    whole = create_model(V2, [f"model.pretrained={tmp_path / 'best.ckpt'}"], num_classes=5)
    assert torch.equal(whole.head.low_classifier.weight, trained.head.low_classifier.weight)
    with pytest.raises(UserError, match=r"head\.low_classifier\.weight"):
        create_model(V2, [f"model.pretrained={tmp_path / 'best.ckpt'}"], num_classes=19)


@pytest.mark.parametrize("file", ["torchvision_v2", "timm_v2"])
def test_a_classifier_s_file_fills_backbone_and_head(file, files):
    path = files(file).split("=")[1]
    model = create_model("paper/classification", [f"model.pretrained={path}"])
    stored = torch.load(path, weights_only=True)
    name = "classifier.1.weight" if file == "torchvision_v2" else "classifier.weight"
    assert torch.equal(model.head.fc.weight, stored[name])


def test_resolved_needs_no_file(files):
    """What a checkpoint stores builds the same network after the pretrained file is gone."""
    config = resolved(load_config(V2, [files("timm_v2")]).config.model)
    assert (config.backbone.norm.eps, config.preprocess) == (1e-5, "imagenet")
    config.backbone.pretrained = "gone.pth"
    model = build_model(config, 19, load_weights=False)
    assert (model.backbone.stem.norm.eps, model.preprocess.mode) == (1e-5, "imagenet")


@pytest.mark.parametrize(
    ("where", "family", "width", "name"),
    [
        ("torchvision", "mnasnet_b1", 1.3, "mnasnet1_3"),
        ("torchvision", "mobilenet_v3_small", 1.0, "mobilenet_v3_small"),
        ("timm", "mnasnet_small", 1.0, "mnasnet_small"),
        ("timm", "mobilenet_v1", 1.25, "mobilenetv1_125"),
        ("timm", "mobilenet_v3_large_minimalistic", 1.0, "tf_mobilenetv3_large_minimal_100"),
    ],
)
def test_a_family_has_its_name_on_the_hub(where, family, width, name, monkeypatch, caplog):
    """The hub's file is stood in for by fresh weights of the network that is asked for."""
    if where == "timm":
        create = timm.create_model
        monkeypatch.setattr("timm.create_model", lambda asked, pretrained: create(asked) if asked == name else None)
    else:
        state = torchvision.models.get_model(name, weights=None).state_dict()
        urls = []
        monkeypatch.setattr(
            "torchvision.models._api.load_state_dict_from_url", lambda url, *a, **k: urls.append(url) or state
        )
    weights = read_pretrained(where, family, width)
    assert ("odd sizes alone" in caplog.text) == name.startswith("tf_")
    if where == "torchvision":
        assert urls == [torchvision.models.get_model_weights(name).DEFAULT.url]
        mean = torchvision.models.get_model_weights(name).DEFAULT.transforms().mean
    else:
        mean = timm.models.get_pretrained_cfg(name).mean
    assert weights.preprocess == ("half" if mean[0] == 0.5 else "imagenet")
    assert weights.eps == (1e-3 if "v3" in name else 1e-5)
    architecture = BACKBONES[family](width_mult=width)
    load_backbone(Backbone(architecture, ("last_conv" if architecture.last_conv else "c5",)), weights)


@pytest.mark.parametrize("where", ["torchvision", "timm"])
def test_downloads_only_when_asked(where, monkeypatch):
    """The two words go to the libraries' own hubs; a hub that cannot be reached is said in a sentence."""
    asked = []

    def no_network(*args, **kwargs):
        asked.append(args)
        raise OSError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    monkeypatch.setattr("timm.create_model", no_network)
    create_model(V2)
    assert not asked
    with pytest.raises(UserError, match=f"{where}'s weights could not be downloaded.*no route"):
        create_model(V2, [f"model.backbone.pretrained={where}"])
    assert asked
    with pytest.raises(UserError, match=r"no published weights|unknown network with weights in timm"):
        create_model(V2, [f"model.backbone.pretrained={where}", "model.backbone.width_mult=0.6"])
