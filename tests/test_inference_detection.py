"""densevision.load of a detector: its predictions are those of the model behind it, in the picture's own pixels."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from densevision import __version__
from densevision.config import config_to_dict, load_config
from densevision.inference import DetectionPredictor, load
from densevision.io import read_image, resize_image
from densevision.models import build_model, resolved
from densevision.structures import LabelMap

LABELS = LabelMap(ids=(3, 7), names=("square", "bar"), colors=((255, 0, 0), (0, 0, 255)))
SMALL = ["model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35", "data.image_size=[64,96]"]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    torch.manual_seed(0)
    config = load_config("ssdlite_v3_coco", [*SMALL, "model.head.max_detections=20"]).config
    config.model = resolved(config.model)
    state = {f"model.{key}": value for key, value in build_model(config.model, 2).state_dict().items()}
    about = {"version": __version__, "config": config_to_dict(config), "label_map": LABELS.to_dict()}
    path = tmp_path_factory.mktemp("checkpoint") / "best.ckpt"
    torch.save({"state_dict": state, "densevision": about}, path)
    return load(path)


@pytest.fixture
def picture():
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.array(Image.fromarray(coarse).resize((130, 70), Image.Resampling.BILINEAR))


def test_boxes_are_the_models_in_the_pictures_pixels(predictor, picture):
    assert isinstance(predictor, DetectionPredictor)
    result = predictor.predict(picture)
    images = torch.from_numpy(resize_image(picture, (64, 96)).copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        (found,) = predictor.postprocess(predictor.model(images), predictor.model.anchors((64, 96)), (64, 96))
    np.testing.assert_allclose(result.boxes, found.boxes.numpy() * [130 / 96, 70 / 64, 130 / 96, 70 / 64], rtol=1e-5)
    np.testing.assert_array_equal(result.labels, found.labels.numpy())
    assert len(result.scores) == 20
    assert (np.diff(result.scores) <= 0).all()
    assert result.names[0] == LABELS.names[result.labels[0]]


def test_all_is_written_and_the_surer_are_drawn(predictor, picture, tmp_path):
    result = predictor.predict(picture)
    result.write(tmp_path, "x")
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["size"] == [70, 130]
    assert [entry["category_id"] for entry in written["detections"]] == [LABELS.ids[k] for k in result.labels]
    assert [entry["box"] for entry in written["detections"]] == result.boxes.tolist()
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), result.overlay())
    assert np.array_equal(result.overlay(min_score=1.1), picture)
    assert not np.array_equal(result.overlay(min_score=0.0), picture)
