"""How the loss is divided: batches of one, accumulated, learn what one batch of all learns."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from densevision.config.schema import Config, OptimConfig
from densevision.segmentation.losses import SegmentationLoss
from densevision.structures import LabelMap
from densevision.tasks.base import BaseTask

LABELS = LabelMap(ids=(0, 1, 2), names=("a", "b", "c"), colors=((0, 0, 0),) * 3)


class PixelTask(BaseTask):
    """One 1x1 convolution, which no normalisation couples to the other pictures of a batch."""

    def batch_loss(self, batch):
        return self.loss(self.model(batch["images"]), batch["labels"])


def samples(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 6, 8, generator=generator, dtype=dtype)
    labels = torch.randint(0, 3, (4, 6, 8), generator=generator, dtype=torch.uint8)
    for index, rows in enumerate((0, 5, 2, 6)):  # unequal counts of labelled pixels; the last has none
        labels[index, :rows] = 255
    return [{"images": image, "labels": label} for image, label in zip(images, labels, strict=True)]


def trained_weight(batch_size, accumulate, weights=None, clip_norm=None, precision="64-true"):
    torch.manual_seed(0)
    config = Config(optim=OptimConfig(lr=0.5, schedule="constant", clip_norm=clip_norm))
    task = PixelTask(nn.Conv2d(3, 3, 1), SegmentationLoss(True, weights), LABELS, config)
    trainer = pl.Trainer(
        accelerator="cpu", precision=precision, max_epochs=2, accumulate_grad_batches=accumulate,
        gradient_clip_val=clip_norm, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    data = samples(torch.float64 if precision == "64-true" else torch.float32)
    trainer.fit(task, DataLoader(data, batch_size=batch_size))
    return task.model.weight.detach().clone()


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]], ids=["plain", "weighted"])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(1, 4), (2, 2)])
def test_accumulated_batches_learn_what_one_batch_learns(batch_size, accumulate, weights):
    whole = trained_weight(4, 1, weights)
    torch.testing.assert_close(trained_weight(batch_size, accumulate, weights), whole, rtol=1e-12, atol=1e-12)


def test_the_gradient_is_that_of_torchs_mean():
    torch.manual_seed(0)
    model = nn.Conv2d(3, 3, 1).double()
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0)
    images = torch.stack([s["images"] for s in samples()])
    labels = torch.stack([s["labels"] for s in samples()]).long()
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels, ignore_index=255).backward()
        optimizer.step()
    config_decay = OptimConfig().weight_decay
    assert (model.weight - before).abs().max() > 0.01
    # the task's own weight decay of 4e-5 is all that may differ
    torch.testing.assert_close(trained_weight(4, 1), model.weight.detach(), rtol=0, atol=4 * config_decay)


def test_clipping_bounds_the_divided_gradient():
    torch.manual_seed(0)
    start = nn.Conv2d(3, 3, 1).double().weight.detach()
    free = (trained_weight(4, 1) - start).norm()
    clipped = (trained_weight(4, 1, clip_norm=1e-3) - start).norm()
    # two steps of lr 0.5 with momentum 0.9: at most 0.5e-3 * (1 + 1.9), and the decay
    assert clipped < 0.5e-3 * 2.9 + 1e-4 < 0.1 * free


def test_half_precision_does_not_overflow():
    assert trained_weight(4, 1, precision="bf16-mixed").isfinite().all()
