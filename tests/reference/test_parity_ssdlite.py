"""torchvision's SSDLite, by name map and configuration: equal outputs and equal detections."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.image_list import ImageList

from densevision.config import load_config
from densevision.errors import UserError
from densevision.models import build_model, build_postprocess, coco_ids, create_model
from densevision.structures import LabelMap

CONFIG = "configs/ssdlite_v3_coco_torchvision.yaml"


@pytest.fixture(scope="module")
def reference():
    """Random weights and statistics; classes and boxes differ, and no score is rounded to 1, where order ends."""
    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    for module in reference_predictors(model):
        nn.init.normal_(module.weight, std=0.05)
        nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def reference_predictors(model):
    heads = (model.head.classification_head, model.head.regression_head)
    return [block[1] for head in heads for block in head.module_list]


@pytest.fixture(scope="module")
def file(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "ssdlite.pth"
    torch.save(reference.state_dict(), path)
    return f"model.pretrained={path}"


def outputs_of(reference, pixels):
    """What torchvision's detector computes before its post-processing."""
    maps = list(reference.backbone((pixels / 255 - 0.5) / 0.5).values())
    outputs = reference.head(maps)
    anchors = reference.anchor_generator(ImageList(pixels, [(320, 320)] * len(pixels)), maps)
    return outputs, anchors


def test_outputs_and_detections_equal(reference, file):
    model = create_model(CONFIG, [file]).eval()
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in reference.parameters()) == 3440060
    pixels = torch.randint(0, 256, (2, 3, 320, 320)).float()
    with torch.no_grad():
        theirs, anchors = outputs_of(reference, pixels)
        ours = model(pixels)
        for name, key in (("class_logits", "cls_logits"), ("box_deltas", "bbox_regression")):
            scale = theirs[key].abs().max().item()
            torch.testing.assert_close(ours[name], theirs[key], rtol=0, atol=1e-5 * scale)
        torch.testing.assert_close(model.anchors((320, 320)), anchors[0], rtol=0, atol=5e-5)
        expected = reference.postprocess_detections(theirs, anchors, [(320, 320)] * 2)
        found = build_postprocess(load_config(CONFIG).config.model.head)(ours, model.anchors((320, 320)), (320, 320))
    for mine, wanted in zip(found, expected, strict=True):
        assert len(mine.scores) == 300
        assert torch.equal(mine.labels + 1, wanted["labels"])
        torch.testing.assert_close(mine.scores, wanted["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(mine.boxes, wanted["boxes"], rtol=0, atol=1e-2)


def test_the_whole_pipeline_equals_theirs_on_a_picture(reference, file):
    model = create_model(CONFIG, [file]).eval()
    picture = torch.randint(0, 256, (3, 320, 320), dtype=torch.uint8)
    with torch.no_grad():
        (wanted,) = reference([picture / 255])
        outputs = model(picture[None])
    settings = build_postprocess(load_config(CONFIG).config.model.head)
    (found,) = settings(outputs, model.anchors((320, 320)), (320, 320))
    assert torch.equal(found.labels + 1, wanted["labels"])
    torch.testing.assert_close(found.boxes, wanted["boxes"], rtol=1e-3, atol=1e-2)


def test_columns_of_the_classes_that_the_data_has(file):
    """The published columns are COCO's ids; data with some of them takes theirs."""
    whole = create_model(CONFIG, [file])
    config = load_config(CONFIG, [file]).config.model
    some = build_model(config, 3, class_ids=[1, 17, 90])
    images = torch.randint(0, 256, (1, 3, 320, 320), dtype=torch.uint8)
    with torch.no_grad():
        logits, chosen = (model.eval()(images)["class_logits"] for model in (whole, some))
    torch.testing.assert_close(chosen, logits[..., [0, 1, 17, 90]])
    for ids in (None, [1, 2, 1000]):
        with pytest.raises(UserError, match=r"class_predictors\.0\.project\.weight"):
            build_model(config, 3, class_ids=ids)


def test_ids_are_cocos_where_the_names_are():
    of_coco = LabelMap(ids=(1, 17, 90), names=("person", "cat", "toothbrush"), colors=((0, 0, 0),) * 3)
    assert coco_ids(of_coco) == (1, 17, 90)
    assert coco_ids(replace(of_coco, names=("aeroplane", "cat", "toothbrush"))) is None
    assert coco_ids(replace(of_coco, ids=(0, 17, 90))) is None


def test_the_backbone_alone(file, caplog):
    """A detector's backbone starts another one; here with the tail that torchvision reduces."""
    override = file.replace("model.pretrained", "model.backbone.pretrained")
    with caplog.at_level(logging.WARNING, logger="densevision"):
        model = create_model("ssdlite_v3_coco", [override])
    assert not caplog.text
    assert model.preprocess.mode == "half"
    whole = create_model(CONFIG, [file])
    for key, value in whole.backbone.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[key]), key


def test_published_weights_are_one_word_away(monkeypatch):
    asked = []

    def no_network(*args, **kwargs):
        asked.append(str(args[0]))
        raise OSError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(UserError, match="torchvision's weights could not be downloaded"):
        create_model(CONFIG, ["model.pretrained=torchvision"])
    assert "ssdlite320_mobilenet_v3_large_coco" in asked[0]
    with pytest.raises(UserError, match=r"no published weights of this network \(mobilenet_v2, .*ssdlite"):
        create_model(CONFIG, ["model.pretrained=torchvision", "model.backbone.name=mobilenet_v2"])
