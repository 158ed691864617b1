"""Many processes give what one gives: the same scores to the last bit, and the same training."""

import json

import pytest
import torch

from tests.processes import run_together
from tests.trees import write_cityscapes_tree, write_class_tree, write_coco_tree

pytestmark = pytest.mark.processes

COMMON = ["data.num_workers=0", "wandb.mode=disabled", "trainer.accelerator=cpu", "trainer.pictures=1"]
SEGMENTATION = [
    "lraspp_v3_cityscapes", *COMMON, "model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35",
    "model.head.pool_window=null", "data.crop_size=[32,48]", "data.scale_range=[1,1]",
]  # fmt: skip
DETECTION = [
    "ssdlite_v3_coco", *COMMON, "model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35",
    "model.head.extras=[16,16,16,16]", "data.image_size=[64,64]", "data.augment=none", "optim.warmup_steps=0",
    "optim.clip_norm=10", "data.eval_batch_size=1",
]  # fmt: skip
CLASSIFICATION = [
    "mobilenet_v3_imagenet", *COMMON, "data.name=class_folders", "trainer.max_epochs=null",
    "model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35",
    "data.image_size=32", "data.eval_batch_size=1",
]  # fmt: skip

# where steps are too large for a network, a difference by rounding grows tenfold a step, and no two runs are the same
RATES = {
    "segmentation": ["optim.lr=0.01"],
    "detection": ["optim.lr=0.01"],
    "classification": ["optim.name=sgd", "optim.lr=0.01", "optim.backbone_lr_mult=0.005", "optim.warmup_steps=0"],
}
# in single precision a difference by rounding jumps to 1e-2 within a dozen steps at those, of one process too
SMALL_RATES = {"segmentation": ["optim.lr=3e-4"], "detection": ["optim.lr=1e-5"]}


def draw(task, root, pictures, val):
    if task == "segmentation":
        write_cityscapes_tree(root, "train", ["aachen"], count=pictures, size=(40, 60))
        write_cityscapes_tree(root, "val", ["munster"], count=val, size=(40, 60))
        return [*SEGMENTATION, f"data.root={root}"]
    if task == "detection":
        write_coco_tree(root, "train2017", count=pictures)
        write_coco_tree(root, "val2017", count=val)
        return [*DETECTION, f"data.root={root}"]
    write_class_tree(root, ["cat", "dog", "owl"], count=max(1, val // 3))
    return [*CLASSIFICATION, f"data.root={root}"]


@pytest.mark.parametrize(
    ("task", "pictures", "worlds"),
    [
        ("segmentation", 7, (2, 3)),
        ("segmentation", 2, (3,)),
        ("detection", 7, (2, 3)),
        ("detection", 2, (3,)),
        ("classification", 9, (2,)),
    ],
)
def test_scores_are_those_of_one_process_to_the_last_bit(tmp_path, task, pictures, worlds):
    words = draw(task, tmp_path / "data", 4, pictures)
    run, out = tmp_path / "run", tmp_path / "1.json"
    # always in a fork: some libraries' threads, once started here, would be missing in every other fork
    assert run_together(["train", *words, "data.batch_size=2", "trainer.max_steps=1", f"output_dir={run}"], 1) == [0]
    best = str(run / "checkpoints" / "best.ckpt")
    assert run_together(["evaluate", best, "--json", str(out)], 1) == [0]
    alone = json.loads(out.read_text())
    assert alone["pictures"] == pictures
    for world in worlds:
        out = tmp_path / f"{world}.json"
        assert run_together(["evaluate", best, "--json", str(out)], world) == [0] * world
        assert json.loads(out.read_text()) == alone


def trained(words, folder, world, batch_size, accumulate):
    words = [*words, f"data.batch_size={batch_size}", f"trainer.accumulate={accumulate}", f"output_dir={folder}"]
    assert run_together(["train", *words], world) == [0] * world
    stored = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return stored, [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.parametrize(
    ("task", "precision", "accumulate", "tolerance", "steps"),
    [
        ("segmentation", "64-true", 2, 1e-9, 5),
        ("detection", "64-true", 1, 1e-9, 5),
        ("classification", "64-true", 2, 1e-9, 5),
        *[
            pytest.param(task, precision, accumulate, tolerance, 50, marks=pytest.mark.slow)
            for task in ("segmentation", "detection")
            for precision, tolerance in (("64-true", 1e-9), ("32-true", 1e-3))
            for accumulate in (1, 2)
        ],
    ],
)
def test_training_of_two_processes_follows_that_of_one(tmp_path, task, precision, accumulate, tolerance, steps):
    """Two processes' batches are of half the size; half of them at a time where they accumulate. Dropout would draw in
    each process for itself."""
    words = [*draw(task, tmp_path / "data", 19, 21 if task == "classification" else 1), "model.head.dropout=0"]
    words += [f"trainer.max_steps={steps}", f"trainer.val_every={steps}", f"trainer.log_every={steps // 5}"]
    words += [f"trainer.precision={precision}", "optim.schedule=constant"]
    words += (SMALL_RATES if precision == "32-true" else RATES)[task]
    one, one_losses = trained(words, tmp_path / "one", 1, 8 // accumulate, accumulate)
    two, two_losses = trained(words, tmp_path / "two", 2, 4 // accumulate, accumulate)
    assert len(one_losses) == 5
    assert one_losses[-1] < one_losses[0]
    torch.testing.assert_close(torch.tensor(two_losses), torch.tensor(one_losses), rtol=tolerance, atol=tolerance)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
