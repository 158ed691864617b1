"""The detection task: gradients, what an evaluation collects, and that it learns."""

import dataclasses
import types

import numpy as np
import pytest
import torch

from densevision.config import load_config
from densevision.metrics.detection import DetectionScorer
from densevision.models import build_model
from densevision.structures import DetectionTruth, LabelMap
from densevision.tasks.detection import DetectionTask

LABELS = LabelMap(ids=(3, 7), names=("square", "bar"), colors=((255, 0, 0), (0, 0, 255)))
SMALL = ["model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35", "data.image_size=64"]


@pytest.fixture
def task():
    torch.manual_seed(0)
    config = load_config("ssdlite_v3_coco", SMALL).config
    return DetectionTask(build_model(config.model, 2), LABELS, config)


def batch_of(counts, size=64):
    generator = torch.Generator().manual_seed(0)
    images, boxes, labels = torch.full((len(counts), 3, size, size), 100, dtype=torch.uint8), [], []
    for picture, count in enumerate(counts):
        low = torch.randint(0, size - 24, (count, 2), generator=generator)
        label = torch.randint(0, 2, (count,), generator=generator)
        sides = torch.where(label[:, None] == 0, torch.tensor([20, 20]), torch.tensor([24, 10]))
        for (x, y), (width, height), kind in zip(low.tolist(), sides.tolist(), label.tolist(), strict=True):
            images[picture, :, y : y + height, x : x + width] = torch.tensor([[250, 30, 30], [30, 30, 250]])[kind][
                :, None, None
            ]
        boxes.append(torch.cat([low, low + sides], 1).float())
        labels.append(label)
    return {
        "images": images,
        "boxes": boxes,
        "labels": labels,
        "names": [f"{n}.png" for n in range(len(counts))],
        "image_ids": [10 * (n + 1) for n in range(len(counts))],
        "sizes": [(size, 2 * size)] * len(counts),
    }


@pytest.mark.parametrize("counts", [(2, 1), (0, 3), (0, 0)])
def test_the_loss_is_a_sum_and_the_number_of_matched_anchors(task, counts):
    total, count = task.batch_loss(batch_of(counts))
    assert total.isfinite()
    assert (count > 0) == any(counts)
    total.backward()
    assert all(p.grad.isfinite().all() for p in task.model.head.class_predictors.parameters())


def test_the_first_loss_is_moderate(task):
    """With a prior of .01, and not with the published bias of 0, which costs the more the more anchors there are."""
    total, count = task.batch_loss(batch_of((2, 3)))
    assert total / count < 20


def evaluate(task, batch, truth):
    source = types.SimpleNamespace(truth=truth)
    task._trainer = types.SimpleNamespace(val_dataloaders=types.SimpleNamespace(source=source))
    task.eval()
    with torch.inference_mode():
        task.on_validation_epoch_start()
        task.validation_step(batch, 0)
        task.on_validation_epoch_end()


def truth_of(batch):
    """The boxes in stored pixels, twice as wide as the network's."""
    boxes = torch.cat(batch["boxes"]).double() * torch.tensor([2, 1, 2, 1])
    boxes[:, 2:] -= boxes[:, :2]
    counts = [len(b) for b in batch["boxes"]]
    return DetectionTruth(
        image_ids=np.array(batch["image_ids"]),
        box_image_ids=np.repeat(batch["image_ids"], counts),
        category_ids=np.array(LABELS.ids)[torch.cat(batch["labels"]).numpy()],
        annotation_ids=np.arange(1, sum(counts) + 1),
        boxes=boxes.numpy(),
        areas=boxes[:, 2:].prod(1).numpy(),
        crowd=np.zeros(sum(counts), bool),
    )


def test_a_few_pictures_are_learnt(task):
    """Loss, matching, coding, postprocessing, scaling to the stored size and scores agree with each other."""
    batch = batch_of((2, 2, 1, 0))
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    for _ in range(40):
        total, count = task.batch_loss(batch)
        optimizer.zero_grad()
        (total / count.clamp(min=1)).backward()
        optimizer.step()
    for module in task.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        task.model(batch["images"])
    evaluate(task, batch, truth_of(batch))
    assert task.evaluation["map_50"] > 0.9
    assert task.evaluation["map"] == task.report["map"] > 0.5
    assert set(task.report["map_per_class"]) == {"square", "bar"}
    assert {"map/square", "map/bar", "mar_100", "map_small"} <= set(task.evaluation)
    sample = {"name": "a", "image": batch["images"][0], **{k: batch[k][0] for k in ("boxes", "labels")}}
    shown = task.show_prediction(sample)
    assert len(shown.boxes["truth"][0]) == 2
    picture = shown.drawing
    assert picture.dtype == np.uint8
    assert picture.shape[1] > 128


def test_without_annotations_nothing_is_judged_and_predictions_are_written(task, tmp_path):
    task.keep_predictions(tmp_path / "results.json")
    evaluate(task, batch_of((1, 0)), None)
    assert not isinstance(task.found, DetectionScorer)
    assert (task.report, task.evaluation) == ({}, {})
    assert (tmp_path / "results.json").read_text().startswith('[{"image_id": 10, "category_id": ')


def test_the_configuration_decides_loss_and_thresholds():
    config = load_config(
        "ssdlite_v3_coco_torchvision", [*SMALL, "loss.match_iou=0.4", "model.head.max_detections=7"]
    ).config
    task = DetectionTask(build_model(config.model, 2), LABELS, config)
    assert (task.loss.score, task.loss.match_iou) == ("softmax", 0.4)
    assert dataclasses.asdict(task.postprocess)["max_detections"] == 7
    with torch.no_grad():
        task.eval()
        found = task.detect(batch_of((1, 1))["images"], [(64, 64), (640, 1280)])
    assert all(len(detections.scores) <= 7 for detections in found)
    assert found[1].boxes[:, 2].max() > 64
