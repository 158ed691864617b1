"""DetectionScorer: what is collected, what is not defined, and that processes give what one gives."""

import builtins
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing

from densevision.metrics import DetectionResults, DetectionScorer
from densevision.metrics.reduce import rows_of_processes
from densevision.structures import DetectionTruth, LabelMap

CLASSES = LabelMap((3, 44), ("cat", "dog"), ((255, 0, 0), (0, 255, 0)))


def truth(boxes, image_ids=(5, 9), categories=None, owners=None, crowd=None):
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    count = len(boxes)
    return DetectionTruth(
        image_ids=np.array(image_ids, np.int64),
        box_image_ids=np.full(count, image_ids[0]) if owners is None else np.array(owners),
        category_ids=np.full(count, 3) if categories is None else np.array(categories),
        annotation_ids=np.arange(1, count + 1),
        boxes=boxes,
        areas=boxes[:, 2] * boxes[:, 3],
        crowd=np.zeros(count, bool) if crowd is None else np.array(crowd),
    )


def found(judge, image_id, boxes, scores, labels):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    judge.update([image_id], [boxes], [torch.tensor(scores)], [torch.tensor(labels, dtype=torch.int64)])


def test_scores_by_hand():
    judge = DetectionScorer(truth([[10, 10, 20, 20], [50, 50, 20, 20]], owners=[5, 9]), CLASSES)
    found(judge, 5, [[10, 10, 30, 30]], [0.9], [0])
    found(judge, 9, [], [], [])
    scores = judge.compute()
    # one of two found, exactly: precision 1 up to recall .5, at 51 of the 101 recalls
    assert scores.figures["map"] == pytest.approx(51 / 101)
    assert scores.figures["mar_100"] == pytest.approx(0.5)
    assert scores.map_per_class["cat"] == scores.figures["map"]
    assert math.isnan(scores.map_per_class["dog"])
    assert math.isnan(scores.figures["map_large"])


def test_what_is_not_defined_is_null_in_json():
    judge = DetectionScorer(truth([]), CLASSES)
    found(judge, 5, [[0, 0, 9, 9]], [0.5], [1])
    said = json.loads(json.dumps(judge.compute().to_dict(), allow_nan=False))
    assert said.pop("map_per_class") == said.pop("map_50_per_class") == {"cat": None, "dog": None}
    assert len(said) == 12
    assert set(said.values()) == {None}


def test_nothing_found_scores_nothing_and_an_unseen_picture_counts():
    judge = DetectionScorer(truth([[0, 0, 50, 50], [0, 0, 50, 50]], owners=[5, 9]), CLASSES)
    assert judge.compute().figures["map"] == 0.0
    found(judge, 5, [[0, 0, 50, 50]], [0.5], [0])
    assert judge.compute().figures["mar_100"] == 0.5
    judge.reset()
    assert judge.compute().figures["mar_100"] == 0.0


def test_a_picture_that_comes_twice_counts_once():
    judge = DetectionScorer(truth([[0, 0, 50, 50]]), CLASSES)
    for score in (0.5, 0.9):
        found(judge, 9, [[0, 0, 9, 9]], [score], [1])
        found(judge, 5, [[0, 0, 50, 50]], [score], [0])
    rows = judge.rows()
    assert rows["image_id"].tolist() == [5, 9]
    assert rows["score"].tolist() == [0.5, 0.5]


def test_a_picture_of_another_split_is_refused():
    judge = DetectionScorer(truth([[0, 0, 50, 50]]), CLASSES)
    found(judge, 7, [[0, 0, 50, 50]], [0.5], [0])
    with pytest.raises(ValueError, match=r"\[7\]"):
        judge.compute()


def test_numbers_that_are_none_are_left_out_and_said(caplog):
    judge = DetectionScorer(truth([[0, 0, 50, 50]]), CLASSES)
    found(judge, 5, [[0, 0, 50, 50], [0, 0, math.nan, 9], [0, 0, 9, 9]], [0.5, 0.9, math.nan], [0, 0, 0])
    assert judge.compute().figures["map"] == pytest.approx(1.0)
    assert "2 of 3 detections are not finite" in caplog.text


def test_the_results_file_has_the_data_sets_ids_and_loses_no_digit(tmp_path):
    results = DetectionResults(CLASSES)
    corners = torch.rand(20, 2) * 100
    boxes = torch.cat([corners, corners + torch.rand(20, 2) * 50], dim=1)
    scores = torch.rand(20)
    found(results, 2**40, boxes.tolist(), scores.tolist(), [0, 1] * 10)
    assert results.write(tmp_path / "new" / "results.json") == 20
    entries = json.loads((tmp_path / "new" / "results.json").read_text())
    assert {entry["image_id"] for entry in entries} == {2**40}
    assert [entry["category_id"] for entry in entries] == [3, 44] * 10
    assert np.array_equal(np.float32([entry["score"] for entry in entries]), scores.numpy())
    wide = np.array([entry["bbox"] for entry in entries])
    wide[:, 2:] += wide[:, :2]
    assert np.array_equal(wide.astype(np.float32), boxes.numpy())


def test_no_detection_at_all_is_an_empty_list(tmp_path):
    results = DetectionResults(CLASSES)
    results.write(tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == []


def test_without_hotcoco_pycocotools_judges_and_says_so(monkeypatch, caplog):
    judge = DetectionScorer(truth([[0, 0, 50, 50], [5, 5, 9, 9]]), CLASSES)
    found(judge, 5, [[0, 0, 50, 48]], [0.5], [0])
    fast = judge.compute()
    assert not caplog.records
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "hotcoco":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    slow = judge.compute()
    assert "hotcoco is not installed" in caplog.text
    assert slow.to_dict() == fast.to_dict()
    np.testing.assert_array_equal(slow.precision, fast.precision)


def detections(index):
    rng = np.random.default_rng(index)
    count = index % 4
    corners = rng.uniform(0, 60, (count, 2))
    return (
        np.concatenate([corners, corners + 20], 1).astype(np.float32),
        rng.random(count).round(1),
        rng.integers(0, 2, count),
    )


def many(pictures):
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 60, (3 * pictures, 2)), np.full((3 * pictures, 2), 20.0)], axis=1)
    owners = np.repeat(np.arange(pictures), 3) * 7
    crowd = rng.random(3 * pictures) < 0.2
    drawn = truth(boxes, np.arange(pictures) * 7, rng.choice([3, 44], 3 * pictures), owners, crowd)
    return replace(drawn, voc=True)


def judge_share(rank, world, folder):
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet{world}", rank=rank, world_size=world)
    calls = []
    gather = torch.distributed.all_gather
    torch.distributed.all_gather = lambda *args: (calls.append(1), gather(*args))[1]
    for pictures in (7, 1):  # uneven shares; a process without a picture
        judge = DetectionScorer(many(pictures), CLASSES)
        # as a padding sampler would, the last process sees the first picture once more
        for index in [*range(rank, pictures, world), *([0] if rank == world - 1 else [])]:
            judge.update([7 * index], *([part] for part in detections(index)))
        scores = judge.compute()
        np.save(folder / f"{world}_{pictures}_{rank}.npy", scores.precision)
        np.save(folder / f"{world}_{pictures}_{rank}_voc.npy", list(scores.voc.values()))
        judge.write(folder / f"{world}_{pictures}_{rank}.json")
    assert len(calls) == 2 * 2 * 4  # pictures, and compute and write: the number of pictures does not matter
    assert rows_of_processes(np.arange(6.0).reshape(2, 3)[: 2 - rank]).shape == (2 * world - sum(range(world)), 3)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("world", [2])
def test_processes_give_what_one_gives(tmp_path, world):
    torch.multiprocessing.spawn(judge_share, (world, tmp_path), nprocs=world)
    for pictures in (7, 1):
        alone = DetectionScorer(many(pictures), CLASSES)
        for index in range(pictures):
            alone.update([7 * index], *([part] for part in detections(index)))
        alone.write(tmp_path / "alone.json")
        for rank in range(world):
            np.testing.assert_array_equal(
                np.load(tmp_path / f"{world}_{pictures}_{rank}.npy"), alone.compute().precision
            )
            np.testing.assert_array_equal(
                np.load(tmp_path / f"{world}_{pictures}_{rank}_voc.npy"), list(alone.compute().voc.values())
            )
        written = [tmp_path / f"{world}_{pictures}_{rank}.json" for rank in range(world)]
        assert [file.exists() for file in written] == [True] + [False] * (world - 1)
        assert written[0].read_bytes() == (tmp_path / "alone.json").read_bytes()


@pytest.mark.gpu
def test_rows_cross_nccl_unchanged(tmp_path):
    torch.distributed.init_process_group("nccl", f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        for rows in (np.arange(6.0).reshape(2, 3), np.empty((0, 3))):
            np.testing.assert_array_equal(rows_of_processes(rows), rows)
    finally:
        torch.distributed.destroy_process_group()
