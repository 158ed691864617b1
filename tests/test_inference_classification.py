"""densevision.load of a classifier: the probabilities are its model's, of the middle of the picture."""

import json

import numpy as np
import pytest
import torch

from densevision import __version__
from densevision.cli import run
from densevision.config import config_to_dict, load_config
from densevision.inference import ClassificationPredictor, ClassificationResult, load
from densevision.io import read_image, resize_image, write_png
from densevision.models import build_model, resolved
from densevision.structures import LabelMap

LABELS = LabelMap(ids=(0, 1, 2), names=("cat", "dog", "a bird"), colors=((255, 0, 0), (0, 255, 0), (0, 0, 255)))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    config = load_config("mobilenext_cifar10", ["model.backbone.width_mult=0.35", "data.eval_crop=0.5"]).config
    config.model = resolved(config.model)
    state = {f"model.{key}": value for key, value in build_model(config.model, 3).state_dict().items()}
    about = {"version": __version__, "config": config_to_dict(config), "label_map": LABELS.to_dict()}
    path = tmp_path_factory.mktemp("checkpoint") / "best.ckpt"
    torch.save({"state_dict": state, "densevision": about}, path)
    return path


def picture(height=80, width=120, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_probabilities_are_the_models_on_the_middle(checkpoint):
    predictor = load(checkpoint)
    assert isinstance(predictor, ClassificationPredictor)
    seen = resize_image(picture()[20:60, 40:80], (32, 32))  # half of the shorter side
    with torch.no_grad():
        logits = predictor.model(torch.from_numpy(seen.copy()).permute(2, 0, 1)[None])
    result = predictor.predict(picture())
    np.testing.assert_allclose(result.probabilities, logits.softmax(1)[0].numpy(), rtol=1e-6)
    assert list(result.top(2)) == [LABELS.names[k] for k in logits[0].topk(2).indices]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (33, 2), (900, 700)], ids=str)
def test_a_picture_of_any_size_is_predicted_and_drawn(checkpoint, size):
    result = load(checkpoint).predict(picture(*size))
    assert result.probabilities.sum() == pytest.approx(1)
    drawn = result.overlay()
    assert drawn.shape[0] > size[0]
    assert max(drawn.shape) < 1100, "a small picture is enlarged, but not without bounds"


def test_a_result_names_its_surest_classes_of_equals_the_first():
    result = ClassificationResult(picture(4, 4), np.array([0.2, 0.6, 0.2], np.float32), LABELS)
    assert list(result.top()) == ["dog", "cat", "a bird"]
    assert result.summary == "dog 0.600, cat 0.200, a bird 0.200"


def test_the_command_writes_a_picture_and_all_probabilities_and_prints_a_line(checkpoint, tmp_path, capsys):
    write_png(tmp_path / "in" / "x.png", picture())
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    assert run("predict", [str(checkpoint), str(tmp_path / "in"), "--output", str(tmp_path), "--device", "cpu"]) == 1
    result = load(checkpoint).predict(picture())
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["size"] == [80, 120]
    assert {entry["name"]: entry["probability"] for entry in written["classes"]} == result.top(3)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), result.overlay())
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == f"{tmp_path / 'in' / 'x.png'}: {result.summary}"
    assert "bad.png is empty" in said.err
