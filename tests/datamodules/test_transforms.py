"""Training geometry: one warp of a window equals resizing the whole picture and cropping."""

import cv2
import numpy as np
import pytest

from datamodules.transforms import FILL, EvalTransform, TrainTransform, Window, draw_window, warp_image, warp_label
from densevision.structures import IGNORE_INDEX

SIZE = (256, 512)


@pytest.fixture(scope="module")
def picture():
    """A street-like (256, 512, 3) picture: flat regions, edges and noise."""
    rng = np.random.default_rng(0)
    blocks = cv2.resize(rng.integers(0, 256, (32, 64, 3), np.uint8), SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (*SIZE, 3), np.uint8), (0, 0), 1)
    return cv2.addWeighted(blocks, 0.7, noise, 0.3, 0)


@pytest.fixture(scope="module")
def label():
    rng = np.random.default_rng(1)
    return cv2.resize(rng.integers(0, 19, (40, 90), np.uint8), SIZE[::-1], interpolation=cv2.INTER_NEAREST)


def resize_then_crop(array, window, interpolation, fill):
    """What the window shows, the slow way."""
    scaled = cv2.resize(array, window.scaled[::-1], interpolation=interpolation)
    margin = max(window.size)
    padded = cv2.copyMakeBorder(scaled, *[margin] * 4, cv2.BORDER_CONSTANT, value=[fill] * 3)
    top, left = window.top + margin, window.left + margin
    cropped = padded[top : top + window.size[0], left : left + window.size[1]]
    return cropped[:, ::-1] if window.flip else cropped


@pytest.mark.parametrize("crop", [(1, 1), (97, 131), (193, 193), SIZE, (300, 600)])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_one_warp_equals_resize_then_crop(picture, label, crop, flip):
    differences, equal = [], []
    for scale in (0.5, 0.53, 0.75, 0.9137, 1.0, 1.25, 1.618, 2.0):
        window = draw_window(np.random.default_rng(2), SIZE, crop, (scale, scale), flip=flip)
        image, wanted = warp_image(picture, window), resize_then_crop(picture, window, cv2.INTER_LINEAR, FILL)
        assert image.shape == wanted.shape == (*crop, 3)
        differences.append(np.abs(image.astype(int) - wanted).ravel())
        classes = warp_label(label, window)
        equal.append((classes == resize_then_crop(label, window, cv2.INTER_NEAREST, IGNORE_INDEX)).ravel())
    differences, equal = np.concatenate(differences), np.concatenate(equal)
    assert equal.mean() >= 0.9999
    assert differences.mean() <= 0.25
    assert (differences <= 2).mean() >= 0.999


def test_any_scale_and_place_samples_the_same_points(picture):
    means, near = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        height, width = (int(rng.integers(1, side)) for side in SIZE)
        part, scale = picture[:height, :width], float(np.exp(rng.uniform(-3, 3)))
        crop = [int(side) for side in rng.integers(1, 200, 2)]
        window = draw_window(rng, (height, width), crop, (scale, scale), flip=0.5)
        image, wanted = warp_image(part, window), resize_then_crop(part, window, cv2.INTER_LINEAR, FILL)
        assert image.shape == wanted.shape
        difference = np.abs(image.astype(int) - wanted)
        means.append(difference.mean())
        near.append((difference <= 3).mean())
    assert max(means) <= 0.5
    assert np.mean(means) <= 0.2
    assert min(near) >= 0.98


def test_without_scale_and_crop_a_sample_is_the_picture_itself(picture, label):
    image, classes = TrainTransform()(picture, label, np.random.default_rng(0))
    assert np.array_equal(image, picture)
    assert np.array_equal(classes, label)
    image, classes = TrainTransform(flip=1.0)(picture, label, np.random.default_rng(0))
    assert np.array_equal(image, picture[:, ::-1])
    assert np.array_equal(classes, label[:, ::-1])


@pytest.mark.parametrize("flip", [False, True])
def test_outside_the_picture_is_mean_grey_and_ignored(picture, label, flip):
    window = Window(scaled=(10, 20), top=-3, left=-5, size=(16, 40), flip=flip)
    image, classes = warp_image(picture, window), warp_label(label, window)
    outside = np.ones((16, 40), bool)
    outside[3:13, (15 if flip else 5) : (35 if flip else 25)] = False
    assert (image[outside] == FILL).all()
    assert np.array_equal(classes == IGNORE_INDEX, outside)
    assert 0.9 <= abs(FILL / 127.5 - 2) <= 1.1  # about 0 in the network's [-1, 1]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 3)])
def test_tiny_pictures_survive(size):
    image, label = np.full((*size, 3), 200, np.uint8), np.full(size, 3, np.uint8)
    for draw in range(20):
        out, classes = TrainTransform(None, (5, 5), (0.3, 2.0), 0.0, 0.5)(image, label, np.random.default_rng(draw))
        assert out.shape == (5, 5, 3)
        assert set(np.unique(classes)) <= {3, IGNORE_INDEX}
        assert (out[classes == 3] == 200).all()


def test_windows_reach_every_place_and_scales_keep_to_their_grid():
    windows = [draw_window(np.random.default_rng(i), (100, 200), (50, 50), (0.5, 2.0), 0.25, 0.5) for i in range(2000)]
    assert {w.scaled[0] for w in windows} == {50, 75, 100, 125, 150, 175, 200}
    assert {w.top for w in windows if w.scaled[0] == 75} == set(range(26))
    assert 0.45 < np.mean([w.flip for w in windows]) < 0.55
    continuous = [draw_window(np.random.default_rng(i), (100, 200), None, (0.5, 2.0)) for i in range(500)]
    assert len({w.scaled for w in continuous}) > 100
    assert all(w.size == (100, 200) for w in continuous)


def test_the_picture_is_brought_to_image_size_first(picture, label):
    image, classes = TrainTransform((64, 128))(picture, label, np.random.default_rng(0))
    assert np.array_equal(image, cv2.resize(picture, (128, 64), interpolation=cv2.INTER_AREA))
    assert np.array_equal(classes, cv2.resize(label, (128, 64), interpolation=cv2.INTER_NEAREST))


def test_evaluation_resizes_the_picture_and_keeps_the_label(picture, label):
    image, classes = EvalTransform((64, 128))(picture, label)
    assert image.shape == (64, 128, 3)
    assert classes is label
    image, classes = EvalTransform()(picture, None)
    assert image is picture
    assert classes is None


def test_colour_changes_follow_from_the_rng_alone(picture, label):
    transform, other = TrainTransform(photometric=1.0), TrainTransform(photometric=1.0)
    draws = [transform(picture, label, np.random.default_rng(i))[0] for i in range(3)]
    again = [other(picture, label, np.random.default_rng(i))[0] for i in (2, 1, 0)][::-1]
    for first, second in zip(draws, again, strict=True):
        assert np.array_equal(first, second)
        assert first.dtype == np.uint8
    assert not np.array_equal(draws[0], draws[1])
    image, classes = TrainTransform(None, (300, 600), photometric=1.0)(picture, label, np.random.default_rng(0))
    assert (image[classes == IGNORE_INDEX] == FILL).all()
    half = TrainTransform(photometric=0.5)
    unchanged = [np.array_equal(half(picture, label, np.random.default_rng(i))[0], picture) for i in range(60)]
    assert 15 < sum(unchanged) < 45
