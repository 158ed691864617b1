"""Augmentation with boxes: the distributions of TensorFlow's and torchvision's, in one resize that boxes follow."""

import math

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision import tv_tensors
from torchvision.transforms import v2

from datamodules.detection_transforms import (
    CROPS,
    SSD_FILL,
    DetectionEvalTransform,
    DetectionTrainTransform,
    iou_crop,
    resize_quickly,
    ssd_crop,
    zoom_out,
)
from datamodules.photometric import distort
from densevision.io import resize_image

SIZE = (96, 128)  # of the picture that is drawn from
BOXES = np.array([[4, 6, 40, 60], [50, 20, 120, 90], [70, 5, 82, 15], [0, 80, 30, 96], [30, 30, 34, 36]], np.float32)
LABELS = np.arange(5)
NONE = np.zeros((0, 4), np.float32)


def assert_same_distribution(ours, theirs, columns):
    """Columns of two samples by the Kolmogorov-Smirnov test, at one in a thousand for all columns together."""
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    for column, name in enumerate(columns):
        result = ks_2samp(ours[:, column], theirs[:, column])
        assert result.pvalue > 1e-3 / len(columns), (name, result, ours[:, column].mean(), theirs[:, column].mean())


def draws(crop, count, boxes=BOXES, size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    return [crop(rng, size, boxes) for _ in range(count)]


def numbers(crop):
    """left, top, width, height, number of boxes, which boxes"""
    wide, high = crop.right - crop.left, crop.bottom - crop.top
    return crop.left, crop.top, wide, high, crop.keep.sum(), crop.keep @ 2 ** np.arange(len(crop.keep))


def torchvision_boxes(boxes=BOXES, size=SIZE):
    return tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=size)


def test_iou_crops_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    picture, theirs = tv_tensors.Image(torch.zeros(3, *SIZE)), []
    for _ in range(800):
        found = v2.RandomIoUCrop().make_params([picture, torchvision_boxes()])
        if not found:
            theirs.append((0, 0, SIZE[1], SIZE[0], 5, 31))
            continue
        kept = found["is_within_crop_area"].numpy()
        place = (found["left"], found["top"], found["width"], found["height"])
        theirs.append((*place, kept.sum(), kept @ 2 ** np.arange(5)))
    ours = [numbers(crop) for crop in draws(iou_crop, 4000)]
    assert_same_distribution(ours, theirs, ("left", "top", "width", "height", "boxes", "which"))


def test_zooming_out_is_distributed_as_torchvisions():
    torch.manual_seed(0)
    picture, rng, theirs, ours = tv_tensors.Image(torch.zeros(3, *SIZE)), np.random.default_rng(0), [], []
    for _ in range(2000):
        left, top, right, bottom = v2.RandomZoomOut(p=1).make_params([picture])["padding"]
        theirs.append((left, top, left + right + SIZE[1], top + bottom + SIZE[0]))
        tall, wide, left, top = zoom_out(rng, SIZE, 1.0)
        ours.append((left, top, wide, tall))
    assert_same_distribution(ours, theirs, ("left", "top", "width", "height"))
    assert 0.45 < np.mean([zoom_out(rng, SIZE)[0] == SIZE[0] for _ in range(1000)]) < 0.55


def street(seed=0):
    """A (96, 128, 3) picture of coloured blocks with noise."""
    rng = np.random.default_rng(seed)
    blocks = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    return np.clip(blocks + rng.normal(0, 10, blocks.shape), 0, 255).astype(np.uint8)


def test_colours_are_distributed_as_torchvisions():
    def described(image):
        image = image.astype(float)
        return *image.mean(axis=(0, 1)), *image.std(axis=(0, 1)), (image.max(axis=2) - image.min(axis=2)).mean()

    torch.manual_seed(0)
    image, rng, change = street()[:, ::-1], np.random.default_rng(0), v2.RandomPhotometricDistort()
    image = np.ascontiguousarray(image)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    theirs = [described(change(tensor).permute(1, 2, 0).numpy()) for _ in range(1000)]
    ours = [described(distort(image, image, rng)) for _ in range(1500)]
    columns = [*(f"mean {c}" for c in "rgb"), *(f"spread {c}" for c in "rgb"), "saturation"]
    assert_same_distribution(ours, theirs, columns)


def test_contrast_changes_about_the_mean_of_the_whole_picture():
    dark, light = np.full((64, 64, 3), 40, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    picture = np.concatenate([dark, light], axis=1)
    means = {distort(dark, picture, np.random.default_rng(seed)).mean().round() for seed in range(200)}
    assert min(means) < 25  # away from 120, to which it is near after a decrease of contrast
    assert max(means) > 75


@pytest.mark.parametrize("name", ["ssd", "ssdlite"])
def test_whole_pipelines_are_distributed_as_torchvisions(name):
    out = (60, 60)
    fill = {tv_tensors.Image: (123, 117, 104)}
    # sanitised before it is resized: rounding would put boxes a hair beyond the edge, and cost them
    steps = [v2.RandomIoUCrop(), v2.SanitizeBoundingBoxes(), v2.RandomHorizontalFlip(0.5), v2.Resize(out)]
    if name == "ssd":
        steps = [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill=fill), *steps]
    theirs_of, rng, image = v2.Compose(steps), np.random.default_rng(0), street()
    ours_of = DetectionTrainTransform(out, name, flip=0.5)
    tensor = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))

    def described(picture, boxes):
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= 2).all(axis=1)]  # SanitizeBoundingBoxes drops small ones before
        centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        first = (*centres[0], *sides[0]) if len(boxes) else (-1, -1, -1, -1)
        fill_share = (np.abs(picture.astype(int) - SSD_FILL).max(axis=2) <= 1).mean().round(2)
        brightness = picture.mean() + rng.normal(0, 2)  # many are whole, and alike but for rounding
        return len(boxes), *first, sides.prod(axis=1).sum(), fill_share, brightness

    torch.manual_seed(0)
    theirs = []
    for _ in range(400):
        sample = theirs_of({"image": tensor, "boxes": torchvision_boxes(), "labels": torch.arange(5)})
        theirs.append(described(sample["image"].permute(1, 2, 0).numpy(), sample["boxes"].numpy()))
    ours = [described(*ours_of(image, BOXES, LABELS, rng)[:2]) for _ in range(2500)]
    names = ("boxes", "x of the first", "y of the first", "width", "height", "area", "fill", "brightness")
    assert_same_distribution(ours, theirs, names)


def tensorflow_crop(rng, size, boxes):
    """ssd_random_crop, one attempt after another as TensorFlow's kernel does it."""
    height, width = size
    degree = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)[rng.integers(7)]
    window = (0, 0, width, height)
    if rng.random() <= 0.15:
        return *window, len(boxes)
    objects = [tuple(map(int, box)) for box in boxes] or [window]
    for _ in range(100):
        aspect = rng.random() * 1.5 + 0.5
        low, high = (round(math.sqrt(share * width * height / aspect)) for share in (0.1, 1.0))
        if round(high * aspect) > width:
            high = int((width + 0.5 - 1e-7) / aspect)
            high -= round(high * aspect) > width
        high = min(high, height)
        tall = low = min(low, high)
        if low < high:
            tall += int(rng.integers(high - low + 1))
        wide = round(tall * aspect)
        if wide * tall < 0.1 * width * height:
            tall += 1
            wide = round(tall * aspect)
        if wide * tall > width * height:
            tall -= 1
            wide = round(tall * aspect)
        if not 0.1 * width * height <= wide * tall <= width * height or wide > width or tall > height:
            continue
        top = int(rng.integers(height - tall)) if tall < height else 0
        left = int(rng.integers(width - wide)) if wide < width else 0
        shares = []
        for x1, y1, x2, y2 in objects:
            across, down = min(x2, left + wide) - max(x1, left), min(y2, top + tall) - max(y1, top)
            if (x2 - x1) * (y2 - y1) >= 1:
                shares.append(max(0, across) * max(0, down) / ((x2 - x1) * (y2 - y1)))
        if any(share >= degree for share in shares):
            window = (left, top, wide, tall)
            break
    left, top, wide, tall = window
    kept = 0
    for x1, y1, x2, y2 in boxes.tolist():
        across, down = min(x2, left + wide) - max(x1, left), min(y2, top + tall) - max(y1, top)
        kept += across > 0 and down > 0 and across * down / ((x2 - x1) * (y2 - y1)) >= degree - 1e-6
    return left, top, wide, tall, kept


@pytest.mark.parametrize("size", [SIZE, (200, 61), (9, 7)])
@pytest.mark.parametrize("boxes", [BOXES, BOXES[2:3], NONE], ids=["many", "one", "none"])
def test_ssd_crops_are_distributed_as_tensorflows(size, boxes):
    boxes = np.clip(boxes, 0, [size[1], size[0]] * 2)
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) > 1).all(axis=1)]
    rng = np.random.default_rng(1)
    theirs = [tensorflow_crop(rng, size, boxes) for _ in range(1000)]
    ours = [numbers(crop)[:5] for crop in draws(ssd_crop, 4000, boxes, size)]
    assert_same_distribution(ours, theirs, ("left", "top", "width", "height", "boxes"))


def test_an_ssd_crop_may_leave_no_box_and_an_iou_crop_never_does():
    assert min(crop.keep.sum() for crop in draws(ssd_crop, 500, BOXES[2:4])) == 0
    assert min(crop.keep.sum() for crop in draws(iou_crop, 500)) == 1


@pytest.mark.parametrize("augment", CROPS)
def test_boxes_stay_on_what_they_mark(augment):
    """A bright and a red rectangle are where their boxes say, to the pixel that rounding may cost."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[30:70, 40:100], image[80:100, 10:130] = (0, 255, 255), (255, 0, 0)
    boxes, labels = np.array([[40, 30, 100, 70], [10, 80, 130, 100]], np.float32), np.array([0, 1])
    transform = DetectionTrainTransform((90, 150), augment, flip=0.5, vertical_flip=0.5)
    seen = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        picture, moved, kept = transform(image, boxes, labels, rng)
        assert picture.shape == (90, 150, 3)
        assert (picture.dtype, moved.dtype) == (np.uint8, np.float32)
        assert moved.shape == (len(kept), 4)
        assert ((moved >= 0) & (moved <= [150, 90, 150, 90])).all()
        if augment == "ssd":
            continue  # colours are changed: they no longer tell
        for box, label in zip(moved, kept, strict=True):
            color = picture[..., 1].astype(int) if label == 0 else picture[..., 0].astype(int) - picture[..., 1]
            rows, columns = np.nonzero((color > 127).any(axis=1))[0], np.nonzero((color > 127).any(axis=0))[0]
            if len(rows):
                found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
                assert np.abs(box - found).max() <= 1.01
                seen += 1
    assert seen > 20 or augment == "ssd"


def test_zoomed_out_boxes_stay_on_what_they_mark():
    image = np.full((120, 160, 3), 255, np.uint8)
    image[30:70, 40:100] = 0
    box, transform = np.array([[40, 30, 100, 70]], np.float32), DetectionTrainTransform((90, 150), "ssd", flip=0.5)
    zoomed = 0
    for seed in range(200):
        picture, moved, kept = transform(image, box, np.array([3]), np.random.default_rng(seed))
        dark = (picture < 40).all(axis=2)
        rows, columns = np.nonzero(dark.any(axis=1))[0], np.nonzero(dark.any(axis=0))[0]
        assert kept.tolist() == [3]
        if len(rows):
            assert np.abs(moved[0] - [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).max() <= 1.5
            zoomed += (picture == SSD_FILL).all(axis=2).any()
    assert zoomed > 40


def test_without_augmentation_training_shows_what_evaluation_shows():
    image = street()
    shown, boxes, labels = DetectionTrainTransform((50, 70))(image, BOXES, LABELS, np.random.default_rng(0))
    judged, judged_boxes = DetectionEvalTransform((50, 70))(image, BOXES)
    assert np.array_equal(shown, judged)
    np.testing.assert_allclose(boxes, judged_boxes, rtol=1e-6)
    assert labels.tolist() == LABELS.tolist()


def test_flips_mirror_picture_and_boxes():
    image = street()
    transform = DetectionTrainTransform(SIZE, flip=1.0, vertical_flip=1.0)
    picture, boxes, _ = transform(image, BOXES, LABELS, np.random.default_rng(0))
    assert np.array_equal(picture, image[::-1, ::-1])
    np.testing.assert_array_equal(boxes[0], [128 - 40, 96 - 60, 128 - 4, 96 - 6])


@pytest.mark.parametrize("augment", CROPS)
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3)])
def test_tiny_pictures_and_pictures_without_boxes_survive(augment, size):
    transform = DetectionTrainTransform((8, 6), augment, flip=0.5, vertical_flip=0.5, photometric=0.5)
    image = np.full((*size, 3), 200, np.uint8)
    whole = np.array([[0, 0, size[1], size[0]]], np.float32)
    for seed in range(30):
        for boxes in (whole, NONE):
            labels = np.zeros(len(boxes), np.int64)
            picture, moved, kept = transform(image, boxes, labels, np.random.default_rng(seed))
            assert picture.shape == (8, 6, 3)
            assert len(moved) == len(kept) <= len(boxes)


@pytest.mark.parametrize("size", [(320, 320), (200, 400), (90, 61), (479, 40), (960, 700)], ids=str)
def test_a_quick_resize_is_near_one_by_area(size):
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8), (0, 0), 1.5)
    quick, slow = resize_quickly(picture, size), resize_image(picture, size)
    assert quick.shape == slow.shape
    assert np.abs(quick.astype(int) - slow).mean() < 3
    assert abs(quick.astype(float).mean() - slow.mean()) < 1
