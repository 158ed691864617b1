"""densevision.load: what it refuses and says, and that predictions are those of the model behind it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import densevision
from datamodules.cityscapes import CITYSCAPES
from densevision.errors import UserError
from densevision.inference import SegmentationResult, load
from densevision.io import read_image, read_label, resize_image, write_png
from densevision.structures import LabelMap
from tests.checkpoints import checkpoint_of, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.ckpt")


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return densevision.load(checkpoint)


def street(height=70, width=90, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def by_hand(predictor, image, size):
    images = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        logits = predictor.model(images)
    up = F.interpolate(logits, size=size, mode="bilinear", align_corners=predictor.model.head.align_corners)
    return up.argmax(1)[0].numpy()


def test_a_prediction_is_the_models_argmax_at_the_pictures_size(predictor):
    result = predictor.predict(street())
    assert result.class_map.dtype == np.uint8
    np.testing.assert_array_equal(result.class_map, by_hand(predictor, street(), (70, 90)))
    assert len(np.unique(result.class_map)) > 1, "the network should be random enough to be a test"
    assert not predictor.model.training


def test_weights_are_the_checkpoints(predictor, checkpoint):
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    for name, value in predictor.model.state_dict().items():
        assert torch.equal(value, stored[f"model.{name}"]), name


def test_files_arrays_and_pil_pictures_give_the_same(predictor, tmp_path):
    write_png(tmp_path / "a street.png", street())
    of_array = predictor.predict(street())
    for picture in (tmp_path / "a street.png", str(tmp_path / "a street.png"), Image.fromarray(street())):
        result = predictor.predict(picture)
        np.testing.assert_array_equal(result.class_map, of_array.class_map)
        np.testing.assert_array_equal(result.picture, street())


def test_grey_arrays_are_three_equal_channels(predictor):
    grey = street()[..., 0]
    expected = predictor.predict(np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(predictor.predict(grey).class_map, expected.class_map)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (33, 2), (65, 129)], ids=str)
def test_any_size_is_predicted(predictor, size):
    assert predictor.predict(street(*size)).class_map.shape == size


def test_image_size_is_what_the_model_sees_and_the_class_map_keeps_the_pictures(tmp_path):
    predictor = load(write_checkpoint(tmp_path / "x.ckpt", ["data.image_size=[64, 96]"]))
    image = street(100, 150)
    expected = by_hand(predictor, resize_image(image, (64, 96)), (100, 150))
    np.testing.assert_array_equal(predictor.predict(image).class_map, expected)


def test_pretrained_files_are_not_asked_for(tmp_path):
    stored = checkpoint_of()
    stored["densevision"]["config"]["model"]["backbone"]["pretrained"] = "/gone/weights.pth"
    torch.save(stored, tmp_path / "x.ckpt")
    load(tmp_path / "x.ckpt").predict(street())


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        Image.new("I", (4, 4)),
    ],
    ids=["float", "four channels", "no pixels", "32 bit"],
)
def test_arrays_that_are_no_pictures_are_refused(predictor, picture):
    with pytest.raises(ValueError, match=r"expected|no pixels|8-bit"):
        predictor.predict(picture)


def test_a_result_knows_names_colours_shares_and_ids():
    result = SegmentationResult(
        np.zeros((1, 4, 3), np.uint8), np.array([[13, 0, 13, 13]], np.uint8), label_map=CITYSCAPES
    )
    assert result.names[13] == "car"
    assert result.colors[13] == (0, 0, 142)
    assert result.shares == {"car": 0.75, "road": 0.25}
    assert result.label_ids.tolist() == [[26, 7, 26, 26]]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "ä b.webp"])
def test_a_result_saves_its_overlay_in_the_format_of_the_name(predictor, tmp_path, name):
    result = predictor.predict(street())
    result.save(tmp_path / "new" / name)
    saved = read_image(tmp_path / "new" / name)
    assert saved.shape == result.overlay().shape
    assert np.abs(saved.astype(int) - result.overlay()).mean() < 12


def test_a_result_saves_the_data_sets_ids(predictor, tmp_path):
    result = predictor.predict(street())
    result.save_label_ids(tmp_path / "ids.png")
    np.testing.assert_array_equal(read_label(tmp_path / "ids.png"), result.label_ids)


@pytest.mark.parametrize("name", ["a", "a.xyz", "a.psd"])
def test_a_name_of_no_picture_format_is_refused(predictor, tmp_path, name):
    with pytest.raises(UserError, match="no picture format"):
        predictor.predict(street()).save(tmp_path / name)


def test_predict_many_goes_on_after_a_bad_file(predictor, tmp_path):
    write_png(tmp_path / "a.png", street())
    (tmp_path / "b.png").write_bytes(b"")
    found = list(predictor.predict_many([tmp_path / "b.png", tmp_path / "a.png"]))
    assert [path.name for path, _ in found] == ["b.png", "a.png"]
    assert isinstance(found[0][1], UserError)
    assert "b.png" in str(found[0][1])
    assert isinstance(found[1][1], SegmentationResult)


TWENTY = LabelMap(tuple(range(20)), tuple(f"c{k}" for k in range(20)), ((0, 0, 0),) * 20)
BAD = {
    "without configuration": (lambda c: c["densevision"].pop("config"), "no configuration"),
    "without classes": (lambda c: c["densevision"].pop("label_map"), "no list of classes"),
    "an unknown key": (lambda c: c["densevision"]["config"]["data"].update(crop=3), "unknown key 'crop'"),
    "another class count": (
        lambda c: c["densevision"].update(label_map=TWENTY.to_dict()),
        "predict 19 classes, its label map names 20",
    ),
    "other shapes": (
        lambda c: c["densevision"]["config"]["model"]["head"].update(channels=8),
        r"do not fit its configuration: head\..* is \(16.*, not \(8",
    ),
    "a missing weight": (lambda c: c["state_dict"].pop(next(iter(c["state_dict"]))), "lacks 1 of"),
    "a weight too many": (lambda c: c["state_dict"].update({"model.x": torch.ones(1)}), "such as x"),
    "a head of another task": (
        lambda c: c["densevision"]["config"].update(task="classification"),
        "classification",
    ),
}
FOREIGN = {
    "of another project": ({"state_dict": {}, "pytorch-lightning_version": "2.0"}, "no checkpoint of densevision"),
    "a bare state dict": ({"features.0.weight": torch.ones(1)}, "no checkpoint of densevision"),
    "a tensor": (torch.ones(2), "holds a Tensor"),
    "code in it": ({"x": Image.new}, "not a whole checkpoint of tensors and plain values"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_checkpoint_is_named_and_explained(tmp_path, case):
    stored, sentence = FOREIGN[case]
    torch.save(stored, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match=rf"foreign\.ckpt.*{sentence}"):
        load(tmp_path / "foreign.ckpt")


@pytest.mark.parametrize("case", BAD)
def test_a_checkpoint_that_does_not_fit_itself_is_explained(tmp_path, case):
    change, sentence = BAD[case]
    stored = checkpoint_of()
    change(stored)
    torch.save(stored, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match=rf"bad\.ckpt.*{sentence}"):
        load(tmp_path / "bad.ckpt")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_short_checkpoint_is_explained(checkpoint, tmp_path, share):
    data = checkpoint.read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"cut\.ckpt is not a whole checkpoint"):
        load(tmp_path / "cut.ckpt")


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint at .*nowhere\.ckpt"):
        load(tmp_path / "nowhere.ckpt")


@pytest.mark.parametrize("device", ["gpu", "cuda:77"])
def test_a_device_that_is_not_there_is_named(checkpoint, device):
    with pytest.raises(UserError, match=f"no device '{device}'"):
        load(checkpoint, device)
