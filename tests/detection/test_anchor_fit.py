"""Anchors that fit the data, and the share of boxes that a set of anchors can learn."""

import numpy as np
import pytest
import torch

from densevision.detection.anchor_fit import fit_anchors, matchable_shares
from densevision.detection.anchors import grid_anchors, ssdlite_anchors
from densevision.detection.matcher import pairwise_iou

STRIDES = (16, 32, 64, 128, 256, 512)


def boxes_of(sizes, count, image_size, seed=0):
    rng = np.random.default_rng(seed)
    sides = np.asarray(sizes)[rng.integers(len(sizes), size=count)] * rng.uniform(0.9, 1.1, (count, 2))
    low = rng.uniform(0, 1, (count, 2)) * (np.array(image_size[::-1]) - sides)
    return np.concatenate([low, low + sides], axis=1)


@pytest.mark.parametrize("image_size", [(320, 320), (224, 400)])
def test_shares_equal_those_of_all_anchors(image_size):
    boxes = boxes_of([(20, 25), (70, 40), (150, 180)], 500, image_size)
    by_map, on_any = matchable_shares(boxes, image_size, ssdlite_anchors(), STRIDES)
    best = []
    for pairs, stride in zip(ssdlite_anchors(), STRIDES, strict=True):
        grid = (-(-image_size[0] // stride), -(-image_size[1] // stride))
        anchors = grid_anchors([pairs], [grid], image_size)
        best.append(pairwise_iou(torch.from_numpy(boxes), anchors.double()).amax(1) >= 0.5)
    assert by_map == [pytest.approx(float(reached.double().mean())) for reached in best]
    assert on_any == pytest.approx(float(torch.stack(best).any(0).double().mean()))


def test_fitted_anchors_reach_what_the_published_do_not():
    boxes = boxes_of([(45, 12), (12, 45), (100, 30)], 1000, (320, 320))
    published = matchable_shares(boxes, (320, 320), ssdlite_anchors(), STRIDES)[1]
    fitted = fit_anchors(boxes, (320, 320), STRIDES)
    assert matchable_shares(boxes, (320, 320), fitted, STRIDES)[1] > published + 0.2
    assert fitted == fit_anchors(boxes, (320, 320), STRIDES)
    assert fitted[5] == ssdlite_anchors()[5]  # no box is that large


def test_boxes_of_one_kind_stay_on_one_map_however_they_lie():
    """10 pixels are for cells of 8, 40 for 16, 90 for 32: none of the larger takes a place among the smaller."""
    fitted = fit_anchors(boxes_of([(10, 10), (40, 40), (90, 90)], 1000, (320, 320)), (320, 320), (8, *STRIDES))
    for anchors, side in zip(fitted, (10, 40, 90), strict=False):
        assert all(0.85 * side < edge * 320 < 1.15 * side for anchor in anchors for edge in anchor)


@pytest.mark.parametrize("sizes", [[(45, 45)], [(20, 60), (60, 20), (45, 45)]])
def test_no_more_anchors_than_help(sizes):
    """One for each shape that occurs; a second of a shape reaches few boxes more."""
    fitted = fit_anchors(boxes_of(sizes, 500, (320, 320)), (320, 320), STRIDES)
    assert len(sizes) <= len(fitted[0]) <= len(sizes) + 1


def test_large_boxes_go_to_coarse_maps():
    fitted = fit_anchors(np.array([[0.0, 0, 320, 320], [10, 10, 40, 40]]), (320, 320), STRIDES)
    assert fitted[0] == [(0.094, 0.094)]
    assert fitted[3] == [(1.0, 1.0)]


def test_no_boxes():
    by_map, on_any = matchable_shares(np.zeros((0, 4)), (320, 320), ssdlite_anchors(), STRIDES)
    assert np.isnan([*by_map, on_any]).all()
    assert fit_anchors(np.zeros((0, 4)), (320, 320), STRIDES) == ssdlite_anchors()
