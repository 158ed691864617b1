"""Box coding and matching: against torchvision's, and against the published rules written out."""

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from densevision.detection.box_coder import decode, encode
from densevision.detection.matcher import match_anchors, pairwise_iou


def random_boxes(*shape, seed=0, side=320):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(*shape, 2, generator=generator) * side
    return torch.cat([low, low + 1 + torch.rand(*shape, 2, generator=generator) * side / 3], -1)


def test_coding_equals_torchvision_and_is_undone():
    boxes, anchors = random_boxes(50), random_boxes(50, seed=1)
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    deltas = encode(boxes, anchors)
    torch.testing.assert_close(deltas, coder.encode_single(boxes, anchors))
    torch.testing.assert_close(decode(deltas, anchors), boxes, rtol=1e-4, atol=1e-3)
    wild = torch.randn(50, 4) * 40
    torch.testing.assert_close(decode(wild, anchors), coder.decode_single(wild, anchors), rtol=1e-4, atol=1e-2)


def test_iou():
    boxes, others = random_boxes(2, 7), random_boxes(9, seed=1)
    expected = torch.stack([box_iou(picture, others) for picture in boxes])
    torch.testing.assert_close(pairwise_iou(boxes, others), expected)
    assert not pairwise_iou(torch.zeros(1, 4), torch.tensor([[0.0, 0, 0, 0], [-1, -1, 1, 1]])).any()


def match_by_the_rules(iou, positive):
    """The published rules, one anchor and one box after the other."""
    matches = []
    for anchor in iou.T.tolist():
        best = max(range(len(anchor)), key=lambda n: (anchor[n], -n))
        matches.append(best if anchor[best] >= positive else -1)
    for number, row in reversed(list(enumerate(iou.tolist()))):
        best = max(range(len(row)), key=lambda a: (row[a], -a))
        if row[best] > 0:
            matches[best] = number
    return matches


@pytest.mark.parametrize("count", [1, 2, 30, 500])
def test_every_picture_is_matched_by_the_published_rules(count):
    anchors = random_boxes(400, seed=1)
    iou = pairwise_iou(random_boxes(2, count, seed=count), anchors)
    matches = match_anchors(iou, 0.5)
    assert matches.tolist() == [match_by_the_rules(picture, 0.5) for picture in iou]
    assert (matches >= 0).any()


def test_of_two_boxes_that_claim_an_anchor_the_first_gets_it():
    iou = torch.tensor([[0.1, 0.3, 0.0], [0.2, 0.4, 0.0], [0.0, 0.0, 0.0]])
    assert match_anchors(iou).tolist() == [-1, 0, -1]


def test_a_claim_goes_before_a_better_overlap():
    iou = torch.tensor([[0.6, 0.9], [0.55, 0.1]])
    assert match_anchors(iou).tolist() == [1, 0]
