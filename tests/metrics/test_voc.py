"""VOC's mAP against the devkit's algorithm, written out as in VOCevaldet.m over its own files."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from datamodules import VocDataModule
from densevision.config.schema import DataConfig
from densevision.metrics import DetectionScorer
from tests.trees import voc_xml, write_png, write_text


def devkit(annotations, names, results, kind, rule):
    """AP of a class. results: lines of comp3_det, (picture, score, x1, y1, x2, y2) in pixels from 1, both inclusive."""
    truth, npos = {}, 0
    for name in names:
        objects = []
        for entry in ElementTree.parse(annotations / f"{name}.xml").findall("object"):
            if entry.findtext("name") == kind:
                box = [float(entry.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
                objects.append({"box": box, "difficult": entry.findtext("difficult") == "1", "found": False})
        truth[name] = objects
        npos += sum(not thing["difficult"] for thing in objects)
    if npos == 0:
        return math.nan
    tp, fp = [], []
    for name, _, *box in sorted(results, key=lambda line: -line[1]):  # stable, as MATLAB's
        best, thing = -math.inf, None
        for candidate in truth[name]:
            x1, y1, x2, y2 = candidate["box"]
            wide = min(box[2], x2) - max(box[0], x1) + 1
            high = min(box[3], y2) - max(box[1], y1) + 1
            if wide > 0 and high > 0:
                union = (box[2] - box[0] + 1) * (box[3] - box[1] + 1) + (x2 - x1 + 1) * (y2 - y1 + 1) - wide * high
                if wide * high / union > best:
                    best, thing = wide * high / union, candidate
        tp.append(0)
        fp.append(0)
        if best < 0.5:
            fp[-1] = 1
        elif not thing["difficult"]:
            (fp if thing["found"] else tp)[-1] = 1
            thing["found"] = True
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    with np.errstate(invalid="ignore"):
        recall, precision = tp / npos, np.nan_to_num(tp / (tp + fp))
    if rule == "voc07":
        return sum(np.max(precision[recall >= t], initial=0) / 11 for t in np.arange(0, 1.1, 0.1))
    recall, precision = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())


def scorer(root, classes):
    keys = {"train_list": "all.txt", "val_list": "all.txt", "image_size": [32, 32], "classes": list(classes)}
    module = VocDataModule(DataConfig(name="voc", root=str(root), num_workers=0, **keys))
    module.setup("validate")
    return DetectionScorer(module.val_dataset.truth, module.label_map)


def draw(root, seed, pictures=30, difficult=0.2, ties=False, grid=1, classes=("a", "b", "c", "never")):
    """Write random objects and return each picture's detections, near them or astray: (boxes xyxy, scores, labels)."""
    rng = np.random.default_rng(seed)
    names = [f"p{number:03d}" for number in rng.permutation(pictures)]
    found = []
    for name in names:
        count = int(rng.choice([0, 1, 3, 8]))
        corners = rng.integers(1, 60, (count, 2)) * grid
        boxes = np.concatenate([corners, corners + rng.integers(5, 40, (count, 2)) * grid], axis=1)
        kinds = rng.integers(0, len(classes) - 1, count)
        hard = (rng.random(count) < difficult).astype(int)
        objects = [(classes[k], *box, flag) for k, box, flag in zip(kinds, boxes.tolist(), hard, strict=True)]
        write_text(root / "Annotations" / f"{name}.xml", voc_xml(objects, f"{name}.png", None))
        write_png(root / "JPEGImages" / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
        again = np.repeat(np.arange(count), rng.integers(0, 4, count))
        near = boxes[again] + rng.integers(-4, 5, (len(again), 4)) * grid
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
        lost = rng.integers(1, 60, (3, 2)) * grid
        near = np.concatenate([near, np.concatenate([lost, lost + 20], axis=1)])
        scores = np.round(rng.random(len(near)), 1 if ties else 7)
        found.append((near, scores, np.concatenate([kinds[again], rng.integers(0, len(classes), 3)])))
    write_text(root / "all.txt", "\n".join(names))
    return names, found


def assert_official(root, judge, names, found, classes=("a", "b", "c", "never")):
    for image_id, (boxes, scores, labels) in enumerate(found, 1):
        judge.update([image_id], [boxes - np.array([1.0, 1, 0, 0])], [scores], [labels])
    said = judge.compute().to_dict()
    for rule in ("voc07", "voc12"):
        wanted = []
        for k, kind in enumerate(classes):
            lines = [
                (name, score, *box)
                for name, (boxes, scores, labels) in zip(names, found, strict=True)
                for box, score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
                if label == k
            ]
            wanted.append(devkit(root / "Annotations", names, lines, kind, rule))
            ours = said[f"map_{rule}_per_class"][kind]
            assert (math.nan if ours is None else ours) == pytest.approx(wanted[-1], abs=1e-12, nan_ok=True)
        mean = np.nanmean(wanted) if not np.isnan(wanted).all() else math.nan
        ours = said[f"map_{rule}"]
        assert (math.nan if ours is None else ours) == pytest.approx(mean, abs=1e-12, nan_ok=True)
    return said


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "kind", [{}, {"ties": True}, {"difficult": 0.8}, {"difficult": 1.0}, {"difficult": 0.0, "grid": 7}], ids=str
)
def test_average_precision_equals_the_devkits(tmp_path, seed, kind):
    names, found = draw(tmp_path, seed, **kind)
    said = assert_official(tmp_path, scorer(tmp_path, ("a", "b", "c", "never")), names, found)
    assert (said["map_voc07"] is None) == (kind.get("difficult") == 1.0)
    assert said["map_voc12_per_class"]["never"] is None


def test_an_overlap_of_exactly_half_is_enough_and_the_first_of_two_counts(tmp_path):
    objects = [("a", 1, 1, 10, 10), ("a", 11, 1, 20, 10), ("b", 1, 1, 9, 9)]
    write_text(tmp_path / "Annotations/x.xml", voc_xml(objects, "x.png", None))
    write_png(tmp_path / "JPEGImages/x.png", np.zeros((8, 8, 3), np.uint8))
    write_text(tmp_path / "all.txt", "x")
    boxes = np.array([[1, 1, 20, 10], [1, 1, 20, 10], [1, 1, 10, 5], [1, 1, 3, 3]])
    found = [(boxes, np.array([0.9, 0.9, 0.5, 0.5]), np.array([0, 0, 0, 1]))]
    said = assert_official(tmp_path, scorer(tmp_path, "ab"), ["x"], found, "ab")
    assert said["map_voc12_per_class"] == {"a": 0.5, "b": 0.0}


def test_finding_the_difficult_costs_nothing_and_missing_it_neither(tmp_path):
    write_text(tmp_path / "Annotations/x.xml", voc_xml([("a", 1, 1, 10, 10), ("a", 31, 1, 40, 10, 1)], "x", None))
    write_png(tmp_path / "JPEGImages/x.png", np.zeros((8, 8, 3), np.uint8))
    write_text(tmp_path / "all.txt", "x")
    right, hard = [0, 0, 10, 10], [30, 0, 40, 10]
    for boxes in ([right], [hard, hard, right]):
        judge = scorer(tmp_path, "a")
        judge.update([1], [np.array(boxes, float)], [np.linspace(1, 0.5, len(boxes))], [np.zeros(len(boxes), int)])
        said = judge.compute().to_dict()
        assert said["map_voc07"] == said["map_voc12"] == pytest.approx(1.0)
        assert said["map"] == pytest.approx(1.0), "COCO's evaluation passes over it, too"


def test_nothing_found_is_zero_and_other_formats_have_no_such_figure(tmp_path):
    draw(tmp_path, 0)
    judge = scorer(tmp_path, ("a", "b", "c", "never"))
    said = judge.compute()
    assert said.figures["map_voc07"] == said.figures["map_voc12"] == 0.0
    assert (
        "map_voc07"
        not in DetectionScorer(type(judge.truth)(**{**vars(judge.truth), "voc": False}), judge.label_map)
        .compute()
        .to_dict()
    )
