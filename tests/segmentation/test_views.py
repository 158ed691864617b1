"""Whole pictures, sliding windows, scales and mirroring: the class map is that of the averaged probabilities."""

import math
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from densevision.config.schema import EvaluationConfig
from densevision.errors import UserError
from densevision.inference import load
from densevision.segmentation import views as module
from densevision.segmentation.postprocess import class_map
from densevision.segmentation.views import Views, see, views_from_config
from tests.checkpoints import write_checkpoint

WEIGHT = torch.randn(5, 3, 9, 9, generator=torch.Generator().manual_seed(0)) / 100


def segment(images):
    """A stand-in for a network: logits at a quarter of the size, rounded up, that depend on the surroundings."""
    return F.conv2d(images.float(), WEIGHT, stride=4, padding=4)


def pictures(height=61, width=83, batch=2):
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)


def upsampled(logits, size, align_corners):
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(61, 83), (64, 64), (130, 97)], ids=str)
@pytest.mark.parametrize("views", [Views(), Views(window=(61, 83), stride=(1, 1)), Views(window=(999, 999))], ids=str)
def test_one_view_of_the_whole_is_the_plain_path_to_the_bit(views, size, align_corners):
    expected = class_map(segment(pictures()), size, align_corners)
    assert torch.equal(see(segment, pictures(), size, align_corners, views), expected)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("shape", [(61, 83), (64, 64), (1, 7), (2, 200)], ids=str)
def test_mirroring_averages_two_probabilities(shape, align_corners):
    images = pictures(*shape)
    plain = upsampled(segment(images), shape, align_corners).softmax(1)
    mirrored = upsampled(segment(images.flip(3)).flip(3), shape, align_corners).softmax(1)
    result = see(segment, images, shape, align_corners, Views(flip=True))
    assert_same_but_for_ties(result, plain + mirrored)


@pytest.mark.parametrize("align_corners", [True, False])
def test_windows_average_where_they_overlap(align_corners):
    images = pictures()
    total = torch.zeros(2, 5, 61, 83)
    count = torch.zeros(61, 83)
    for top in (0, 20, 21):
        for left in (0, 30, 33):
            logits = segment(images[:, :, top : top + 40, left : left + 50])
            part = (slice(top, top + 40), slice(left, left + 50))
            total[(..., *part)] += upsampled(logits, (40, 50), align_corners).softmax(1)
            count[part] += 1
    result = see(segment, images, (61, 83), align_corners, Views((40, 50), (20, 30)))
    assert_same_but_for_ties(result, total / count)


def test_scales_are_averaged_at_the_size_asked_for():
    images = pictures()
    total = torch.zeros(2, 5, 122, 166)
    for size in ((30, 42), (107, 145)):  # scales 0.5 and 1.75
        scaled = F.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
        total += upsampled(segment(scaled), (122, 166), False).softmax(1)
    result = see(segment, images, (122, 166), False, Views(scales=(0.5, 1.75)))
    assert_same_but_for_ties(result, total)


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.75, 1.25, 2.0])
@pytest.mark.parametrize("align_corners", [True, False])
def test_windows_of_a_scaled_picture_are_those_of_the_picture_scaled_first(scale, align_corners):
    """The network here returns what it was shown, so the class map shows the pixels themselves."""
    images = pictures(90, 121)
    scaled = round(90 * scale), round(121 * scale)
    shown = []

    def watched(part):
        shown.append(part.clone())
        return part[:, :, ::4, ::4].float()

    see(watched, images, (90, 121), align_corners, Views((24, 31), (17, 31), (scale,)))
    expected = F.interpolate(images.float(), size=scaled, mode="bilinear", antialias=True)
    places = [
        (top, left)
        for top in module._starts(scaled[0], min(24, scaled[0]), 17)
        for left in module._starts(scaled[1], min(31, scaled[1]), 31)
    ]
    assert len(shown) == len(places) > 1
    for part, (top, left) in zip(shown, places, strict=True):
        torch.testing.assert_close(
            part, expected[:, :, top : top + part.shape[2], left : left + part.shape[3]], rtol=0, atol=2e-3
        )


def assert_same_but_for_ties(result, probabilities):
    top = probabilities.topk(2, dim=1).values
    clear = (top[:, 0] - top[:, 1]) > 1e-4 * top[:, 0]
    assert clear.float().mean() > 0.98
    assert torch.equal(result[clear].long(), probabilities.argmax(1)[clear])


@pytest.mark.parametrize(
    "views", [Views((17, 23), (11, 13), (0.5, 1.0, 1.25), True), Views(scales=(0.1, 2.0))], ids=str
)
@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (61, 83)], ids=str)
def test_the_strips_it_works_in_do_not_show(monkeypatch, views, shape):
    expected = see(segment, pictures(*shape), shape, True, views)
    assert expected.shape == (2, *shape)
    monkeypatch.setattr(module, "_STRIP", 1)
    assert torch.equal(see(segment, pictures(*shape), shape, True, views), expected)


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 2.0)], ids=str)
def test_of_a_huge_picture_no_more_is_held_than_windows_and_strips(monkeypatch, scales):
    """The largest tensor that any operation makes, and the windows' logits that are alive at one time."""
    monkeypatch.setattr(module, "_STRIP", 2**17)
    sizes, alive, held = set(), weakref.WeakSet(), []

    def watched(images):
        sizes.add(tuple(images.shape[2:]))
        logits = torch.zeros(1, 19, 4, 4)
        alive.add(logits)
        held.append(len(alive))
        return logits

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
                self.elements = max(self.elements, result.numel())
            return result

    images = torch.zeros(1, 3, 1, 1, dtype=torch.uint8).expand(1, 3, 1300, 1101)
    with Largest() as largest:
        assert see(watched, images, (1300, 1101), True, Views((256, 256), (256, 256), scales)).shape == (1, 1300, 1101)
    assert sizes == {(256, 256)}
    window = 3 * 256 * 512  # of the picture's pixels, half its size
    assert largest.elements <= max(2**17, 2 * window) < 3 * 1300 * 1101
    assert max(held) <= sum(2 * math.ceil(1101 * scale / 256) + 1 for scale in scales)


def test_it_runs_on_a_fake_gpu():
    with FakeTensorMode():
        weight = torch.zeros(5, 3, 9, 9, device="cuda")
        images = torch.zeros(2, 3, 61, 83, dtype=torch.uint8, device="cuda")
        views = Views((40, 50), (20, 30), (0.5, 1.0), True)
        result = see(lambda x: F.conv2d(x.float(), weight, stride=4, padding=4), images, (70, 90), True, views)
    assert result.shape == (2, 70, 90)
    assert result.device.type == "cuda"


def test_the_configuration_says_what_is_seen():
    assert views_from_config(EvaluationConfig(), [769, 769]) == Views()
    assert views_from_config(EvaluationConfig(mode="slide"), [769, 769]) == Views((769, 769), (513, 513))
    slide = EvaluationConfig(mode="slide", window=[64, 48], stride=[32, 48], scales=[0.5, 2], flip=True)
    assert views_from_config(slide, None) == Views((64, 48), (32, 48), (0.5, 2.0), True)


@pytest.mark.parametrize(
    ("evaluation", "key"),
    [
        (EvaluationConfig(mode="slide"), "evaluation.window"),
        (EvaluationConfig(mode="slide", window=[8, 8], stride=[9, 8]), "evaluation.stride"),
        (EvaluationConfig(scales=[]), "evaluation.scales"),
        (EvaluationConfig(scales=[1.0, 0.0]), "evaluation.scales"),
    ],
)
def test_views_that_cannot_be_are_refused(evaluation, key):
    with pytest.raises(UserError) as error:
        views_from_config(evaluation, None)
    assert error.value.key == key


def test_predictions_are_seen_as_the_checkpoint_says(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (70, 91, 3)).astype(np.uint8)
    words = ["evaluation.mode=slide", "evaluation.window=[48,64]", "evaluation.flip=true"]
    predictor = load(write_checkpoint(tmp_path / "x.ckpt", words))
    images = torch.from_numpy(picture).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = see(predictor.model, images, (70, 91), True, Views((48, 64), (32, 43), flip=True))
    np.testing.assert_array_equal(predictor.predict(picture).class_map, expected[0].numpy())
