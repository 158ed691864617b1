"""Drawings: colours in the right places, sizes that hold for any picture."""

import numpy as np
import pytest

from densevision.structures import IGNORE_INDEX, LabelMap
from densevision.visualize import box_comparison, color_map, comparison, draw_boxes, draw_mask, grid, legend, overlay

LABELS = LabelMap(
    ids=(7, 11, 26), names=("road", "building", "a car"), colors=((128, 64, 128), (70, 70, 70), (0, 0, 142))
)
GREY = np.full((20, 30, 3), 100, np.uint8)


def label_with(*columns):
    """(20, 30): equal stripes of the given values."""
    return np.repeat(np.array(columns, np.uint8), 30 // len(columns))[None].repeat(20, 0)


def test_color_map_gives_class_colours_and_black_for_none():
    colors = color_map(np.array([[0, 2], [IGNORE_INDEX, 3]], np.uint8), LABELS)
    assert colors.tolist() == [[[128, 64, 128], [0, 0, 142]], [[0, 0, 0], [0, 0, 0]]]
    assert colors.dtype == np.uint8


def test_a_mask_tints_regions_and_outlines_them():
    drawn = draw_mask(GREY, label_with(0, 2), LABELS, alpha=0.5)
    assert drawn[10, 5].tolist() == [114, 82, 114]
    assert drawn[10, 25].tolist() == [50, 50, 121]
    assert drawn[10, 14].tolist() == [128, 64, 128], "the last column before the border"


def test_ignored_pixels_keep_the_picture_under_a_hatching():
    drawn = draw_mask(GREY, label_with(IGNORE_INDEX), LABELS)
    same = (drawn == GREY).all(-1)
    assert 0.7 < same.mean() < 0.8
    assert (GREY == 100).all(), "the picture given is left as it is"


def test_picture_and_label_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="height, width"):
        draw_mask(GREY, np.zeros((20, 31), np.uint8), LABELS)


def test_a_legend_shows_the_classes_that_occur_and_no_others():
    def colors(picture):
        return {tuple(pixel) for pixel in picture.reshape(-1, 3)}

    some = colors(legend(LABELS, 300, present=[0, IGNORE_INDEX]))
    assert LABELS.colors[0] in some
    assert LABELS.colors[2] not in some
    assert set(LABELS.colors) <= colors(legend(LABELS, 300))
    assert legend(LABELS, 300, present=[IGNORE_INDEX]).shape == (0, 300, 3)


def test_a_narrow_legend_takes_more_rows():
    assert legend(LABELS, 60).shape[0] > legend(LABELS, 600).shape[0]


def test_a_grid_places_pictures_of_any_size():
    red, blue = np.zeros((4, 6, 3), np.uint8), np.zeros((9, 3, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    result = grid([[red, blue], [blue]])
    red_at, blue_at = (result == (255, 0, 0)).all(-1), (result == (0, 0, 255)).all(-1)
    assert red_at[:4, :6].all()
    assert red_at.sum() == 4 * 6
    assert blue_at.sum() == 2 * 9 * 3
    assert grid([[red, blue]], ["one with a long name", "two"]).shape[0] > grid([[red, blue]]).shape[0]


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (64, 48)], ids=str)
@pytest.mark.parametrize("known", [True, False], ids=["with truth", "without"])
def test_a_comparison_of_any_size_can_be_drawn(shape, known):
    picture, prediction = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
    truth = np.full(shape, IGNORE_INDEX, np.uint8) if known else None
    result = comparison(picture, truth, prediction, LABELS)
    assert result.dtype == np.uint8
    assert result.shape[1] >= shape[1] * (3 if known else 2)
    assert result.shape[0] > shape[0], "the captions and the legend"


def test_an_overlay_holds_the_mask_above_its_legend():
    label = label_with(0, 1)
    result = overlay(GREY, label, LABELS)
    np.testing.assert_array_equal(result[:20, :30], draw_mask(GREY, label, LABELS))
    assert len(result) > 20


BOXES = np.array([[2.0, 14, 12, 19], [4, 12, 29, 18]], np.float32)


def test_boxes_have_their_classes_colours_and_the_surest_lies_on_top():
    picture = np.full((200, 300, 3), 100, np.uint8)
    boxes, labels = BOXES * 10, np.array([0, 2])
    for scores, top in ((np.array([0.9, 0.4]), 0), (np.array([0.4, 0.9]), 2), (None, 2)):
        drawn = draw_boxes(picture, boxes, labels, scores, LABELS)
        assert drawn.shape == picture.shape
        assert drawn[140, 40].tolist() == list(LABELS.colors[top])  # the edges of both boxes cross there
        assert drawn[160, 60].tolist() == [100, 100, 100], "the inside stays"
    assert (picture == 100).all()


@pytest.mark.parametrize("size", [(1, 1), (12, 8), (900, 1600)])
def test_boxes_anywhere_on_pictures_of_any_size(size):
    boxes = np.array([[-5, -5, 3, 3], [size[1] - 1, size[0] - 1, size[1] + 9, size[0] + 9], [4, 4, 2, 2]], np.float32)
    picture = np.zeros((*size, 3), np.uint8)
    assert draw_boxes(picture, boxes, np.array([0, 1, 2]), np.array([0.5, 0.5, 0.1]), LABELS).shape == picture.shape
    assert np.array_equal(draw_boxes(picture, boxes[:0], np.zeros(0, int), None, LABELS), picture)


def test_true_boxes_stand_beside_the_found_ones():
    truth, found = (BOXES, np.array([0, 1])), (BOXES[:1], np.array([0]), np.array([0.7]))
    assert box_comparison(GREY, truth, found, LABELS).shape[1] > 2 * GREY.shape[1]
    assert box_comparison(GREY, None, found, LABELS).shape[1] < 2 * GREY.shape[1]
