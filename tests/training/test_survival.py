"""A run that is killed, again and again, ends as if nothing had happened: same weights, same log."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from densevision.checkpoint import read_checkpoint
from densevision.cli import main
from densevision.errors import UserError
from tests.processes import FORK, LONGEST
from tests.trees import write_cityscapes_tree

pytestmark = pytest.mark.processes

# R-ASPP for its dropout; 11 pictures in batches of 2, so that the 14 steps end in the middle of the third epoch
WORDS = [
    "train", "lraspp_v3_cityscapes", "model.head.name=raspp", "model.backbone.name=mobilenet_v3_small",
    "model.backbone.width_mult=0.35", "data.crop_size=[32,48]", "data.batch_size=2", "data.photometric=0.5",
    "trainer.max_steps=14", "trainer.val_every=4", "trainer.checkpoint_every=1", "trainer.log_every=3",
    "trainer.pictures_every=2", "wandb.mode=disabled",
]  # fmt: skip
CLOCKS = ("seconds", "train/images_per_second", "train/data_wait", "step/")  # how the names of such fields begin


def killed_at(place, call, witness=Path(os.devnull)):
    """Let this process die by SIGKILL at the ``call``-th visit of ``place``, after it has told the file ``witness``.

    place: in the midst of a "write", an "evaluation" or a "step", or just before a file takes this name.
    """
    from densevision.tasks.segmentation import SegmentationTask

    def bomb(function, counts=lambda args: True):
        visits = 0

        def wrapped(*args, **kwargs):
            nonlocal visits
            visits += counts(args)
            if visits == call:
                if place == "write":
                    with open(args[1], "wb") as file:
                        file.write(b"PK\x03\x04 the beginning of a checkpoint")
                with witness.open("a") as file:
                    file.write(f"{place}\n")
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    if place == "write":
        torch.save = bomb(torch.save)
    elif place == "evaluation":
        SegmentationTask.validation_step = bomb(SegmentationTask.validation_step)
    elif place == "step":
        SegmentationTask.on_before_optimizer_step = bomb(SegmentationTask.on_before_optimizer_step)
    else:
        os.replace = bomb(os.replace, counts=lambda args: Path(args[1]).name == place)


def child(words, *kill):
    torch.set_num_threads(1)
    if kill:
        killed_at(*kill)
    os._exit(main(words))


def run(words, *kill):
    process = FORK.Process(target=child, args=(words, *kill))
    process.start()
    process.join(LONGEST)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def what_is_left(run_dir):
    stored = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return stored, [{key: value for key, value in line.items() if not key.startswith(CLOCKS)} for line in lines]


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


def survives(tmp_path, kills, workers=0, more=(), steps=14, after_each=lambda checkpoints: None):
    root = tmp_path / "cityscapes"
    write_cityscapes_tree(root, "train", ["aachen"], count=11, size=(40, 60))
    write_cityscapes_tree(root, "val", ["munster"], count=3, size=(40, 60))
    words = [*WORDS, f"data.root={root}", f"data.num_workers={workers}", f"trainer.max_steps={steps}", *more]
    whole, patched, witness = tmp_path / "whole", tmp_path / "patched", tmp_path / "witness.txt"
    assert run([*words, f"output_dir={whole}"]) == 0
    for place, call in kills:
        assert run([*words, f"output_dir={patched}"], place, call, witness) == -signal.SIGKILL, (place, call)
        after_each(patched / "checkpoints")
    assert witness.read_text().split() == [place for place, _ in kills]
    assert run([*words, f"output_dir={patched}"]) == 0
    left, left_lines = what_is_left(whole)
    right, right_lines = what_is_left(patched)
    assert left_lines == right_lines
    losses, evaluations = ([*range(n, steps, n), steps] for n in (3, 4))
    assert [line["step"] for line in left_lines] == sorted([*losses, *evaluations, *range(50, steps, 50)])
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
        assert_same(left[part], right[part])
    names = sorted(file.name for file in (patched / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    best, same_best = (
        torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True) for folder in (whole, patched)
    )
    assert_same(best["state_dict"], same_best["state_dict"])


@pytest.mark.parametrize(("workers", "more"), [(0, AVERAGED), (2, [])], ids=["alone, averaged", "workers"])
def test_a_run_killed_five_times_ends_as_if_it_never_was(tmp_path, workers, more):
    kills = [("write", 2), ("evaluation", 2), ("step", 3), ("write", 3), ("evaluation", 1)]
    survives(tmp_path, kills, workers, more)


def test_a_run_that_counts_epochs_survives_too(tmp_path):
    epochs = ["trainer.max_steps=null", "trainer.max_epochs=3"]
    survives(tmp_path, [("step", 4), ("evaluation", 2), ("write", 3)], more=epochs, steps=15)


def test_a_kill_at_any_moment_of_a_save_and_damage_to_the_last_checkpoint_are_survived(tmp_path):
    def spoil(checkpoints):
        read_checkpoint(checkpoints / "previous.ckpt")
        last = checkpoints / "last.ckpt"
        if last.exists():
            with last.open("r+b") as file:  # in place: another name of the same file would be hit too
                file.seek(last.stat().st_size // 2)
                file.write(b"damage" * 100)
            with pytest.raises(UserError, match="not a whole checkpoint"):
                read_checkpoint(last)
            read_checkpoint(checkpoints / "previous.ckpt")

    kills = [("best.ckpt", 1), ("next.ckpt", 1), ("previous.ckpt", 2), ("last.ckpt", 1), ("last.ckpt", 2)]
    survives(tmp_path, kills, steps=8, after_each=spoil)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], AVERAGED], ids=["plain", "averaged"])
def test_a_run_killed_twenty_times_ends_as_if_it_never_was(tmp_path, more):
    kills = [("write", 2), ("evaluation", 1), ("step", 3), ("write", 1), ("evaluation", 3)] * 4

    def after_the_first_checkpoint(checkpoints):
        assert (checkpoints / "last.ckpt").exists()

    survives(tmp_path, kills, workers=2, more=more, steps=52, after_each=after_the_first_checkpoint)
