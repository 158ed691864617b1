"""Detections equal those of a plain loop over pictures and classes, whatever the scores look like."""

import itertools

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.ops import nms

from densevision.detection.anchors import AnchorCache, ssdlite_anchors
from densevision.detection.box_coder import decode, encode
from densevision.detection.matcher import pairwise_iou
from densevision.detection.postprocess import Detections, Postprocess

SIZE = (320, 320)
ANCHORS = AnchorCache(ssdlite_anchors(), (16, 32, 64, 128, 256, 512))(SIZE, torch.device("cpu"))
CLASSES = 12
OFFICIAL = Postprocess()
TORCHVISION = Postprocess("softmax", 0.001, 0.55, 300, 300, True)
# how much an object lifts its class, and how much the background lies above all: noise, early, trained, sure
STAGES = {"noise": (0, 0), "early": (4, 3), "trained": (12, 9), "sure": (25, 20)}


def example(stage, pictures=2, seed=0):
    """Outputs of a network: noise, and objects whose anchors agree on their boxes the more the further it is."""
    lift, background = STAGES[stage]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(pictures, len(ANCHORS), CLASSES + 1, generator=generator)
    logits[..., 1:] -= background
    deltas = torch.randn(pictures, len(ANCHORS), 4, generator=generator)
    for picture in range(pictures):
        for _ in range(7):
            low = torch.rand(2, generator=generator) * 240
            box = torch.cat([low, low + 20 + torch.rand(2, generator=generator) * 150])
            overlap = pairwise_iou(box[None], ANCHORS)[0]
            logits[picture, :, 1 + int(torch.randint(CLASSES, (), generator=generator))] += lift * overlap
    return {"class_logits": logits, "box_deltas": deltas}


def reference(settings, outputs):
    """The published steps, one picture and one class after the other."""
    results = []
    for logits, deltas in zip(outputs["class_logits"], outputs["box_deltas"], strict=True):
        every = logits.softmax(-1) if settings.score == "softmax" else logits.sigmoid()
        boxes = decode(deltas, ANCHORS)
        if settings.clip_before_nms:
            boxes = boxes.clamp(0, 320)
        found = []
        for label in range(CLASSES):
            scores = every[:, 1 + label]
            chosen = (scores > settings.score_threshold).nonzero()[:, 0]
            chosen = chosen[scores[chosen].argsort(descending=True)][: settings.candidates_per_class]
            chosen = chosen[nms(boxes[chosen], scores[chosen], settings.nms_iou)]
            found += [(float(scores[a]), label, boxes[a].clamp(0, 320)) for a in chosen]
        if not settings.clip_before_nms:
            found = [f for f in found if f[2][2] > f[2][0] and f[2][3] > f[2][1]]
        found.sort(key=lambda f: -f[0])
        results.append(found[: settings.max_detections])
    return results


def assert_equal_detections(ours, expected):
    for detections, wanted in zip(ours, expected, strict=True):
        assert detections.labels.tolist() == [label for _, label, _ in wanted]
        torch.testing.assert_close(detections.scores, torch.tensor([score for score, _, _ in wanted]))
        boxes = torch.stack([box for _, _, box in wanted]) if wanted else torch.zeros(0, 4)
        torch.testing.assert_close(detections.boxes, boxes)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "settings",
    [
        OFFICIAL,
        TORCHVISION,
        Postprocess(nms_iou=0.45, max_detections=10),
        Postprocess(score_threshold=0.3, candidates_per_class=5),
        Postprocess("softmax", max_detections=1000),
    ],
    ids=["official", "torchvision", "few", "capped", "many"],
)
def test_detections_equal_a_plain_loop(settings, stage):
    outputs = example(stage, seed=len(stage))
    assert_equal_detections(settings(outputs, ANCHORS, SIZE), reference(settings, outputs))


def test_suppression_that_leaves_few_looks_further():
    """All anchors agree on two boxes: of tens of thousands of candidates, a few survive."""
    outputs = example("trained")
    box = torch.tensor([[50.0, 60, 150, 200], [200, 10, 300, 90]])[torch.arange(len(ANCHORS)) % 2]
    outputs["box_deltas"] = encode(box, ANCHORS).expand(2, -1, -1)
    found = OFFICIAL(outputs, ANCHORS, SIZE)
    assert [len(detections.scores) for detections in found] == [2 * CLASSES] * 2
    assert_equal_detections(found, reference(OFFICIAL, outputs))


def test_nothing_above_the_threshold():
    outputs = example("noise")
    (first, _) = Postprocess(score_threshold=1.0)(outputs, ANCHORS, SIZE)
    assert first.boxes.shape == (0, 4)
    assert first.scores.shape == first.labels.shape == (0,)


def test_boxes_outside_the_picture_are_dropped():
    outputs = example("noise")
    outputs["box_deltas"][..., 0] = 1e4
    assert [len(found.scores) for found in Postprocess(score_threshold=0.9)(outputs, ANCHORS, SIZE)] == [0, 0]


def test_pictures_are_suppressed_apart_also_in_one_launch():
    outputs = example("trained", pictures=3)
    best = OFFICIAL._best(outputs["class_logits"][..., 1:], outputs["box_deltas"], ANCHORS, SIZE, 300)
    valid = best.scores > 0.01
    kept = OFFICIAL._survivors(best, valid, together=True)
    assert torch.equal(kept, OFFICIAL._survivors(best, valid, together=False))
    assert 0 < kept.sum() < valid.sum()


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [OFFICIAL, TORCHVISION], ids=["official", "torchvision"])
def test_detections_on_a_gpu_are_those_on_the_cpu(settings):
    outputs = example("trained")
    on_gpu = {name: value.cuda() for name, value in outputs.items()}
    for ours, theirs in zip(settings(on_gpu, ANCHORS.cuda(), SIZE), settings(outputs, ANCHORS, SIZE), strict=True):
        assert torch.equal(ours.labels.cpu(), theirs.labels)
        torch.testing.assert_close(ours.boxes.cpu(), theirs.boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_outputs_give_float32_detections(dtype):
    outputs = {name: value.to(dtype) for name, value in example("trained").items()}
    (found, _) = OFFICIAL(outputs, ANCHORS, SIZE)
    assert found.boxes.dtype == found.scores.dtype == torch.float32


def test_resized():
    found = Detections(torch.tensor([[32.0, 64, 320, 160]]), torch.ones(1), torch.zeros(1, dtype=torch.long))
    assert found.resized((320, 320), (480, 640)).boxes.tolist() == [[64.0, 96.0, 640.0, 240.0]]


class FixedShape(nn.Module):
    """A suppression with fixed shapes as a module, which torch.export takes."""

    def __init__(self, settings):
        super().__init__()
        self.settings = settings
        self.register_buffer("anchors", ANCHORS)

    def forward(self, class_logits, box_deltas):
        outputs = {"class_logits": class_logits, "box_deltas": box_deltas}
        return self.settings.fixed_shape(outputs, self.anchors, SIZE)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "settings",
    [Postprocess(max_detections=30), Postprocess("softmax", 0.001, 0.55, 30, 20, True)],
    ids=["official", "tv"],
)
def test_fixed_shapes_hold_the_same_detections(settings, stage):
    outputs = example(stage)
    boxes, scores, labels, counts = FixedShape(settings)(**outputs)
    assert (boxes.shape, scores.shape, labels.shape) == ((2, 30, 4), (2, 30), (2, 30))
    for picture, found in enumerate(settings(outputs, ANCHORS, SIZE)):
        count = int(counts[picture])
        torch.testing.assert_close(boxes[picture, :count], found.boxes)
        torch.testing.assert_close(scores[picture, :count], found.scores)
        assert labels[picture, :count].tolist() == found.labels.tolist()
        assert not boxes[picture, count:].any()
        assert not scores[picture, count:].any()


def test_fixed_shapes_go_from_block_to_block():
    """More boxes of one class than a block holds, most of them suppressed by detections of the block before."""
    torch.manual_seed(0)
    corner = 100 * torch.rand(40, 2).repeat(25, 1) + 3 * torch.rand(1000, 2)
    anchors = torch.cat([corner, corner + 30], 1)
    outputs = {"class_logits": torch.randn(1, 1000, 2), "box_deltas": torch.zeros(1, 1000, 4)}
    for settings in (Postprocess(nms_iou=0.5), Postprocess(nms_iou=0.5, candidates_per_class=600)):
        (found,) = settings(outputs, anchors, (140, 140))
        boxes, scores, _, count = settings.fixed_shape(outputs, anchors, (140, 140))
        assert 20 < int(count) == len(found.boxes) < 100
        torch.testing.assert_close(boxes[0, : int(count)], found.boxes)
        torch.testing.assert_close(scores[0, : int(count)], found.scores)


@pytest.mark.parametrize("length", [2, 7, 31])
def test_a_chain_of_boxes_that_suppress_each_other_is_followed_with_fixed_shapes(length):
    """Each box overlaps its neighbours: the best suppresses the second, so the third stays, and so on."""
    left = 4.0 * torch.arange(length)
    anchors = torch.stack([left, torch.zeros(length), left + 20, torch.full((length,), 20.0)], 1)
    outputs = {"class_logits": torch.zeros(1, length, 2), "box_deltas": torch.zeros(1, length, 4)}
    outputs["class_logits"][0, :, 1] = torch.linspace(3, 1, length)
    settings = Postprocess(nms_iou=0.6, max_detections=length)
    (found,) = settings(outputs, anchors, (20, 400))
    boxes, _, _, count = settings.fixed_shape(outputs, anchors, (20, 400))
    assert int(count) == len(found.boxes) == -(-length // 2)
    torch.testing.assert_close(boxes[0, : int(count)], found.boxes)


def test_fixed_shapes_go_through_export():
    module = FixedShape(Postprocess(max_detections=20))
    outputs = example("early", pictures=1)
    exported = torch.export.export(module, tuple(outputs.values())).module()
    for ours, theirs in itertools.pairwise([module(**outputs), exported(*outputs.values())]):
        for left, right in zip(ours, theirs, strict=True):
            torch.testing.assert_close(left, right)


def test_the_suppression_with_fixed_shapes_stays_on_the_device():
    with FakeTensorMode(), torch.device("cuda"):
        outputs = {"class_logits": torch.randn(2, 40, 4), "box_deltas": torch.randn(2, 40, 4)}
        for part in Postprocess(max_detections=5).fixed_shape(outputs, torch.rand(40, 4), SIZE):
            assert part.device.type == "cuda"
