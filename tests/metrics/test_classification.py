"""Top-1 and top-5 against torch's own sorting, ties, broken logits, and any split over processes."""

import pytest
import torch

from densevision.metrics import reduce
from densevision.metrics.classification import TopAccuracy


def accuracy(logits, labels):
    metric = TopAccuracy()
    metric.update(logits, labels)
    return metric.compute()


@pytest.mark.parametrize("classes", [2, 7, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_stable_sorting(classes, dtype):
    torch.manual_seed(0)
    logits, labels = torch.randn(300, classes).to(dtype), torch.randint(0, classes, (300,))
    order = logits.float().argsort(dim=1, descending=True, stable=True)
    right = order == labels[:, None]
    expected = {"top1": right[:, 0].sum().item() / 300, "top5": right[:, :5].any(1).sum().item() / 300}
    assert accuracy(logits, labels) == expected


def test_ties_go_to_the_lower_class_and_no_number_is_never_right():
    assert accuracy(torch.zeros(10, 10), torch.arange(10)) == {"top1": 0.1, "top5": 0.5}
    assert accuracy(torch.full((4, 3), torch.nan), torch.tensor([0, 1, 2, 0]))["top1"] == 0
    assert TopAccuracy().compute() == {"top1": 0.0, "top5": 0.0}


def test_batches_and_processes_add_up(monkeypatch):
    torch.manual_seed(1)
    logits, labels = torch.randn(64, 9), torch.randint(0, 9, (64,))
    parts = [TopAccuracy(), TopAccuracy()]
    for index in range(0, 64, 7):
        parts[index % 2].update(logits[index : index + 7], labels[index : index + 7])
    total = parts[0].counts + parts[1].counts
    monkeypatch.setattr("densevision.metrics.classification.sum_over_processes", lambda counts: total)
    assert parts[0].compute() == accuracy_of(total)
    monkeypatch.setattr("densevision.metrics.classification.sum_over_processes", reduce.sum_over_processes)
    assert accuracy(logits, labels) == accuracy_of(total)


def accuracy_of(counts):
    pictures, first, five = counts.tolist()
    return {"top1": first / pictures, "top5": five / pictures}
