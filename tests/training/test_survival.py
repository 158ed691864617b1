"""A run that is killed, again and again, ends as if nothing had happened: same weights, same log."""

import json
import multiprocessing
import os
import signal

import pytest
import torch

from densevision.cli import main
from tests.trees import write_cityscapes_tree

# R-ASPP for its dropout; 11 pictures in batches of 2, so that the 14 steps end in the middle of the third epoch
WORDS = [
    "train", "lraspp_v3_cityscapes", "model.head.name=raspp", "model.backbone.name=mobilenet_v3_small",
    "model.backbone.width_mult=0.35", "data.crop_size=[32,48]", "data.batch_size=2", "data.photometric=0.5",
    "trainer.max_steps=14", "trainer.val_every=4", "trainer.checkpoint_every=1", "trainer.log_every=3",
    "trainer.pictures_every=2", "wandb.mode=disabled",
]  # fmt: skip
CLOCKS = ("seconds", "train/images_per_second", "train/data_wait")
FORK = multiprocessing.get_context("fork")
pytestmark = pytest.mark.processes


def killed_at(place, call):
    """Let this process die by SIGKILL at the ``call``-th visit of ``place``."""
    from densevision.tasks.segmentation import SegmentationTask

    def bomb(function, half_written):
        visits = 0

        def wrapped(*args, **kwargs):
            nonlocal visits
            visits += 1
            if visits == call:
                if half_written:
                    with open(args[1], "wb") as file:
                        file.write(b"PK\x03\x04 the beginning of a checkpoint")
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    if place == "write":
        torch.save = bomb(torch.save, half_written=True)
    elif place == "evaluation":
        SegmentationTask.validation_step = bomb(SegmentationTask.validation_step, half_written=False)
    elif place == "step":
        SegmentationTask.on_before_optimizer_step = bomb(SegmentationTask.on_before_optimizer_step, half_written=False)


def child(words, place, call):
    torch.set_num_threads(1)
    if place:
        killed_at(place, call)
    os._exit(main(words))


def run(words, place=None, call=0):
    process = FORK.Process(target=child, args=(words, place, call))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def what_is_left(run_dir):
    stored = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return stored, [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


def assert_same(left, right):
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert left == right


AVERAGED = ["optim.ema_decay=0.9", "trainer.bn_recalibration=2", "trainer.channels_last=true", "optim.name=muon"]


def survives(tmp_path, kills, workers, more=(), steps=14):
    root = tmp_path / "cityscapes"
    write_cityscapes_tree(root, "train", ["aachen"], count=11, size=(40, 60))
    write_cityscapes_tree(root, "val", ["munster"], count=3, size=(40, 60))
    words = [*WORDS, f"data.root={root}", f"data.num_workers={workers}", f"trainer.max_steps={steps}", *more]
    whole, patched = tmp_path / "whole", tmp_path / "patched"
    assert run([*words, f"output_dir={whole}"]) == 0
    for place, call in kills:
        assert run([*words, f"output_dir={patched}"], place, call) == -signal.SIGKILL, (place, call)
    assert run([*words, f"output_dir={patched}"]) == 0
    left, left_lines = what_is_left(whole)
    right, right_lines = what_is_left(patched)
    assert left_lines == right_lines
    every_third, every_fourth = ([*range(n, steps, n), steps] for n in (3, 4))  # losses, evaluations
    assert [line["step"] for line in left_lines] == sorted(every_third + every_fourth)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
        assert_same(left[part], right[part])


@pytest.mark.parametrize(("workers", "more"), [(0, AVERAGED), (2, [])], ids=["alone, averaged", "workers"])
def test_a_run_killed_five_times_ends_as_if_it_never_was(tmp_path, workers, more):
    kills = [("write", 2), ("evaluation", 2), ("step", 3), ("write", 3), ("evaluation", 1)]
    survives(tmp_path, kills, workers, more)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], AVERAGED], ids=["plain", "averaged"])
def test_a_run_killed_twenty_times_ends_as_if_it_never_was(tmp_path, more):
    kills = [("write", 2), ("evaluation", 1), ("step", 3), ("write", 1), ("evaluation", 3)] * 4
    survives(tmp_path, kills, workers=2, more=more, steps=36)
