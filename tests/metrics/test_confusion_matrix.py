"""ConfusionMatrix: what is counted, what the scores are, on one process, several, and a GPU."""

import json
import math

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch._subclasses.fake_tensor import FakeTensorMode

from densevision.metrics import ConfusionMatrix


def u8(values):
    return torch.tensor(values, dtype=torch.uint8)[None]


def scores(prediction, truth, names="abc"):
    matrix = ConfusionMatrix(tuple(names))
    matrix.update(u8(prediction), u8(truth))
    return matrix.compute()


def test_scores_by_hand():
    result = scores([[0, 0, 1], [1, 2, 2]], [[0, 1, 1], [1, 1, 255]])
    assert result.iou == {"a": 1 / 2, "b": 2 / 4, "c": 0.0}
    assert result.miou == pytest.approx(1 / 3)
    assert result.pixel_accuracy == 3 / 5
    assert result.accuracy["a"] == 1.0
    assert result.accuracy["b"] == 2 / 4
    assert math.isnan(result.accuracy["c"])
    np.testing.assert_array_equal(result.counts, [[1, 0, 0, 0], [1, 2, 1, 0], [0, 0, 0, 0]])


def test_a_class_neither_there_nor_predicted_has_no_score():
    result = scores([[0, 1]], [[0, 1]])
    assert math.isnan(result.iou["c"])
    assert result.miou == 1.0


def test_without_labelled_pixels_nothing_is_defined_and_json_says_null():
    result = scores([[0, 1]], [[255, 255]])
    assert math.isnan(result.miou)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == {
        "miou": None,
        "pixel_accuracy": None,
        "iou": {"a": None, "b": None, "c": None},
    }


def test_a_prediction_of_no_class_misses_the_true_one():
    result = scores([[255, 3, 0]], [[0, 0, 0]])
    assert result.iou["a"] == 1 / 3
    assert result.counts[0].tolist() == [1, 0, 0, 2]


@pytest.mark.parametrize("num_classes", [1, 2, 19, 127, 128, 181, 255])
def test_counts_are_exact_for_any_number_of_classes(num_classes):
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, num_classes, (2, 61, 67), generator=generator).to(torch.uint8)
    prediction = torch.randint(0, num_classes, truth.shape, generator=generator).to(torch.uint8)
    truth[torch.rand(truth.shape, generator=generator) < 0.15] = 255
    matrix = ConfusionMatrix([str(k) for k in range(num_classes)])
    matrix.update(prediction[:1], truth[:1])
    matrix.update(prediction[1:], truth[1:])
    expected = np.zeros((num_classes, num_classes + 1), np.int64)
    keep = truth != 255
    np.add.at(expected, (truth[keep].numpy(), prediction[keep].numpy()), 1)
    np.testing.assert_array_equal(matrix.compute().counts, expected)


def test_reset_forgets_and_computing_twice_does_not_count_twice():
    matrix = ConfusionMatrix("ab")
    matrix.update(u8([[0, 1]]), u8([[0, 1]]))
    assert matrix.compute().counts.sum() == matrix.compute().counts.sum() == 2
    matrix.reset()
    assert matrix.compute().counts.sum() == 0


def test_what_is_no_class_map_is_refused():
    matrix = ConfusionMatrix("ab")
    with pytest.raises(ValueError, match=r"\(1, 1, 2\), labels \(1, 2, 1\)"):
        matrix.update(u8([[0, 1]]), u8([[0], [1]]))
    with pytest.raises(TypeError, match="int64"):
        matrix.update(u8([[0, 1]]).long(), u8([[0, 1]]))
    with pytest.raises(ValueError, match="256"):
        ConfusionMatrix(["x"] * 256)


def test_a_label_of_no_class_is_not_silently_ignored():
    with pytest.raises(ValueError, match=r"\[3, 77\].*3 classes"):
        scores([[0, 0, 0]], [[0, 77, 3]])


def test_runs_on_a_fake_gpu_without_waiting_for_it():
    with FakeTensorMode():
        matrix = ConfusionMatrix("ab")
        maps = torch.zeros(2, 4, 5, dtype=torch.uint8, device="cuda")
        matrix.update(maps, maps)
        matrix.update(maps, maps)
        assert matrix._counts.device.type == "cuda"


@pytest.mark.gpu
def test_a_gpu_counts_the_same():
    truth = torch.randint(0, 19, (2, 128, 256)).to(torch.uint8)
    prediction = torch.randint(0, 19, truth.shape).to(torch.uint8)
    here, there = ConfusionMatrix([str(k) for k in range(19)]), ConfusionMatrix([str(k) for k in range(19)])
    here.update(prediction, truth)
    torch.cuda.set_sync_debug_mode("error")
    there.update(prediction.cuda(), truth.cuda())
    torch.cuda.set_sync_debug_mode("default")
    np.testing.assert_array_equal(here.compute().counts, there.compute().counts)


def picture_pair(index):
    generator = torch.Generator().manual_seed(index)
    return torch.randint(0, 3, (2, 1, 5 + index, 7), generator=generator).to(torch.uint8)


def count_share(rank, world, folder):
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    for pictures in (5, 1):  # uneven shares; a process without a picture
        matrix = ConfusionMatrix("abc")
        for index in range(rank, pictures, world):
            matrix.update(*picture_pair(index))
        counts = [matrix.compute().counts, matrix.compute().counts]
        np.save(folder / f"{pictures}_{rank}.npy", np.stack(counts))
    torch.distributed.destroy_process_group()


def test_processes_give_what_one_gives(tmp_path):
    torch.multiprocessing.spawn(count_share, (2, tmp_path), nprocs=2)
    for pictures in (5, 1):
        alone = ConfusionMatrix("abc")
        for index in range(pictures):
            alone.update(*picture_pair(index))
        for rank in range(2):
            for counts in np.load(tmp_path / f"{pictures}_{rank}.npy"):
                np.testing.assert_array_equal(counts, alone.compute().counts)
