"""Anchors as published, as torchvision's, and as a configuration gives them."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from densevision.detection.anchors import ANCHORS, AnchorCache, grid_anchors, shapes_from_config, ssdlite_anchors
from densevision.errors import UserError

STRIDES = (16, 32, 64, 128, 256, 512)


def test_published_shapes():
    shapes = ssdlite_anchors()
    assert [len(pairs) for pairs in shapes] == [3, 6, 6, 6, 6, 6]
    assert shapes[0] == [(0.1, 0.1), pytest.approx((0.2 * 2**0.5, 0.2 / 2**0.5)), pytest.approx((0.1414214, 0.2828427))]
    assert shapes[1][0] == pytest.approx((0.35, 0.35))
    assert shapes[1][4] == pytest.approx((0.35 * 0.3333**0.5, 0.35 / 0.3333**0.5))
    assert shapes[5][5] == pytest.approx((0.95**0.5, 0.95**0.5))


@pytest.mark.parametrize(("side", "count"), [(320, 2034), (300, 1917)])
def test_published_count(side, count):
    cache = AnchorCache(ssdlite_anchors(), STRIDES)
    assert len(cache((side, side), torch.device("cpu"))) == count


def test_centres_lie_evenly_and_borders_are_crossed():
    anchors = grid_anchors(ssdlite_anchors(), [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)], (320, 320))
    torch.testing.assert_close(anchors[0], torch.tensor([-8.0, -8.0, 24.0, 24.0]))
    # cell (1, 2) of the 3x3 map, whose stride is 106.7 and not 128
    first = 1200 + 600 + 150 + 6 * (1 * 3 + 2)
    centre = (anchors[first, :2] + anchors[first, 2:]) / 2
    torch.testing.assert_close(centre, torch.tensor([2.5 * 320 / 3, 1.5 * 320 / 3]))
    assert anchors.min() < -100


def test_on_a_wide_picture_anchors_follow_the_shorter_side():
    anchors = grid_anchors([[(0.5, 0.25)]], [(2, 4)], (100, 400))
    torch.testing.assert_close(anchors[5], torch.tensor([125.0, 62.5, 175.0, 87.5]))


def test_torchvisions_are_equal():
    generator = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    cache = AnchorCache(ANCHORS["torchvision"](6), STRIDES)
    maps = [torch.zeros(1, 1, *grid) for grid in cache.grids((320, 320))]
    theirs = generator(ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)]), maps)[0]
    torch.testing.assert_close(cache((320, 320), torch.device("cpu")), theirs, rtol=0, atol=5e-5)


def test_a_size_is_built_once_and_can_be_learnt_from_afterwards():
    cache = AnchorCache(ssdlite_anchors(), STRIDES)
    with torch.inference_mode():
        first = cache((64, 96), torch.device("cpu"))
    assert cache((64, 96), torch.device("cpu")) is first
    (torch.ones(1, requires_grad=True) * first).sum().backward()


def test_anchors_are_made_on_the_device():
    with FakeTensorMode():
        assert AnchorCache(ssdlite_anchors(), STRIDES)((64, 64), torch.device("cuda")).device.type == "cuda"


@pytest.mark.parametrize(
    ("anchors", "said"),
    [
        ("ssdlit", "unknown set of anchors 'ssdlit'; did you mean 'ssdlite'"),
        ([[[0.1, 0.1]]], "expected ssdlite, torchvision or 2 lists"),
        ([[[0.1, 0.1]], []], "map 1: expected at least one"),
        ([[[0.1, 0.1]], [[0.1]]], "map 1: expected at least one"),
        ([[[0.1, 0.1]], [[0.1, 0]]], "map 1: .* above 0"),
        ([[[0.1, 0.1]], 0.5], "map 1"),
    ],
)
def test_mistakes_are_sentences(anchors, said):
    with pytest.raises(UserError, match=said) as caught:
        shapes_from_config(anchors, 2)
    assert caught.value.key == "model.head.anchors"
