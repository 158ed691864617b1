"""The detection scores against pycocotools, which reads the annotations and the results from files as a user would."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from datamodules import CocoDataModule
from densevision.config.schema import DataConfig
from densevision.metrics import DetectionScorer
from densevision.metrics.coco_tables import hotcoco_tables, pycocotools_tables
from tests.trees import write_png

STATS = [
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"),
]


def official(annotations, results):
    """The twelve figures and the AP of each category id, -1 where not defined, of two files."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    per_class = {}
    for k, number in enumerate(evaluation.params.catIds):
        defined = precision[:, :, k][precision[:, :, k] > -1]
        per_class[truth.cats[number]["name"]] = defined.mean() if defined.size else -1
    return dict(zip(STATS, evaluation.stats, strict=True)), per_class


def scorer(root, name="annotations.json"):
    keys = {"val_images": "images", "val_annotations": name, "image_size": [32, 32], "num_workers": 0}
    module = CocoDataModule(DataConfig(name="coco", root=str(root), **keys))
    module.setup("validate")
    return DetectionScorer(module.val_dataset.truth, module.label_map)


def fill(judge, detections, order=None):
    """Hand over {image id: (boxes xyxy, scores, labels)} in batches of two."""
    ids = list(detections) if order is None else order
    for start in range(0, len(ids), 2):
        batch = ids[start : start + 2]
        judge.update(batch, *zip(*(detections[image_id] for image_id in batch), strict=True))


def assert_official(root, judge, name="annotations.json"):
    assert judge.write(root / "results.json") > 0
    figures, per_class = official(root / name, root / "results.json")
    ours = judge.compute()
    for key, value in figures.items():
        assert (-1 if math.isnan(ours.figures[key]) else ours.figures[key]) == pytest.approx(value, abs=1e-9), key
    assert {k: -1 if math.isnan(v) else v for k, v in ours.map_per_class.items()} == pytest.approx(per_class, abs=1e-9)
    return ours


def draw(root, seed, pictures=25, classes=6, crowds=0.1, ties=False, sizes=(2, 250), first_id=1):
    """Write annotations with random boxes, ids with gaps and pictures without boxes, and jittered detections."""
    rng = np.random.default_rng(seed)
    image_ids = rng.choice(10_000, pictures, replace=False).tolist()
    category_ids = np.sort(rng.choice(np.arange(1, 91), classes, replace=False)).tolist()
    images = [{"id": i, "file_name": "a.png", "width": 640, "height": 480} for i in image_ids]
    annotations, detections = [], {}
    for image_id in image_ids:
        count = int(rng.choice([0, 1, 3, 12]))
        wide_high = np.exp(rng.uniform(*np.log(sizes), (count, 2)))
        boxes = np.concatenate([rng.uniform(-10, 500, (count, 2)), wide_high], axis=1)
        labels = rng.integers(0, classes - 1, count)  # the last class does not occur
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            entry = {"id": first_id + len(annotations), "image_id": image_id, "category_id": category_ids[label]}
            area = box[2] * box[3] * rng.uniform(0.3, 1)
            annotations.append({**entry, "bbox": box, "area": area, "iscrowd": int(rng.random() < crowds)})
        again = np.repeat(np.arange(count), rng.integers(0, 6, count))
        near = boxes[again] + rng.normal(size=(len(again), 4)) * boxes[again][:, [2, 3, 2, 3]] * 0.1
        astray = np.concatenate([rng.uniform(0, 400, (5, 2)), rng.uniform(1, 200, (5, 2))], axis=1)
        found = np.concatenate([near, astray])
        found[:, 2:] = found[:, :2] + np.abs(found[:, 2:])
        scores = rng.random(len(found))
        which = np.concatenate([labels[again], rng.integers(0, classes, 5)])
        detections[image_id] = found.astype(np.float32), np.round(scores, 1 if ties else 7).astype(np.float32), which
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": f"c{i}"} for i in category_ids],
    }
    (root / "annotations.json").write_text(json.dumps(content))
    write_png(root / "images" / "a.png", np.zeros((480, 640, 3), np.uint8))
    return detections


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "kind",
    [{}, {"ties": True}, {"crowds": 0.8}, {"sizes": (2, 20)}, {"sizes": (200, 300)}, {"classes": 2, "pictures": 3}],
    ids=str,
)
def test_scores_equal_the_official_ones_of_the_files(tmp_path, seed, kind):
    detections = draw(tmp_path, seed, **kind)
    judge = scorer(tmp_path)
    fill(judge, detections)
    ours = assert_official(tmp_path, judge)
    if kind == {"sizes": (2, 20)}:
        assert math.isnan(ours.figures["map_large"])
        assert ours.to_dict()["map_large"] is None


def test_the_order_of_pictures_and_a_second_look_change_nothing(tmp_path):
    detections = draw(tmp_path, 7, ties=True)
    judge, other = scorer(tmp_path), scorer(tmp_path)
    fill(judge, detections)
    fill(other, detections, order=[*reversed(detections), *list(detections)[:5]])
    assert judge.compute().to_dict() == other.compute().to_dict()
    judge.write(tmp_path / "a.json")
    other.write(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("tables", [hotcoco_tables, pycocotools_tables])
def test_both_engines_give_the_same_tables(tmp_path, tables):
    judge = scorer_of_draw(tmp_path)
    precision, recall = tables(judge.truth, judge.rows(), judge.label_map)
    wanted = judge.compute()
    np.testing.assert_array_equal(precision, wanted.precision)
    np.testing.assert_array_equal(recall, wanted.recall)


def scorer_of_draw(root, **kind):
    detections = draw(root, 3, **kind)
    judge = scorer(root)
    fill(judge, detections)
    return judge


def test_an_annotation_of_id_0_is_judged_as_officially_and_said(tmp_path, caplog):
    ours = assert_official(tmp_path, scorer_of_draw(tmp_path, first_id=0))
    assert ours.figures["map"] > 0
    assert "number the annotations from 1" in caplog.text


def test_real_annotations_with_crowds(test_data, tmp_path):
    root = test_data / "coco_mini"
    name = "annotations/instances_val2017.json"
    module = CocoDataModule(DataConfig(name="coco", root=str(root), image_size=[32, 32], num_workers=0))
    module.setup("validate")
    truth, label_map = module.val_dataset.truth, module.label_map
    rng = np.random.default_rng(0)
    for shift, correct in ((0.0, 1.0), (0.05, 0.8), (0.2, 0.5)):
        judge = DetectionScorer(truth, label_map)
        for image_id in truth.image_ids.tolist():
            own = truth.box_image_ids == image_id
            boxes = truth.boxes[own]
            boxes = boxes + rng.normal(size=boxes.shape) * shift * boxes[:, [2, 3, 2, 3]]
            boxes[:, 2:] = boxes[:, :2] + np.abs(boxes[:, 2:])
            labels = np.searchsorted(label_map.ids, truth.category_ids[own])
            labels = np.where(rng.random(len(labels)) < correct, labels, rng.integers(0, 80, len(labels)))
            judge.update([image_id], [boxes], [rng.random(len(labels)).round(2)], [labels])
        judge.write(tmp_path / "results.json")
        figures, per_class = official(root / name, tmp_path / "results.json")
        scores = judge.compute()
        assert scores.figures == pytest.approx(figures, abs=1e-9)
        assert scores.map_per_class == pytest.approx(per_class, abs=1e-9)
        if not shift:
            assert figures["map"] > 0.99
