"""Runs of two processes that lose one, are told to stop, or find the disk full: they end soon, say why, and go on."""

import os
import resource
import signal

import pytest
import torch

from densevision.cli import main
from densevision.tasks.segmentation import SegmentationTask
from tests.processes import run_together
from tests.training.test_survival import AVERAGED, WORDS, assert_same, killed_at, what_is_left
from tests.trees import write_cityscapes_tree

pytestmark = pytest.mark.processes

STEPS = 6


@pytest.fixture
def words(tmp_path):
    root = tmp_path / "cityscapes"
    write_cityscapes_tree(root, "train", ["aachen"], count=11, size=(40, 60))
    write_cityscapes_tree(root, "val", ["munster"], count=3, size=(40, 60))
    small = [f"data.root={root}", "data.num_workers=0", f"trainer.max_steps={STEPS}", "trainer.accelerator=cpu"]
    return [*WORDS, *small, *AVERAGED, "optim.schedule=constant", "trainer.log_every=2"]


def assert_same_runs(left, right):
    left, left_lines = what_is_left(left)
    right, right_lines = what_is_left(right)
    assert left_lines == right_lines
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
        assert_same(left[part], right[part])


def dies(rank, place, call):
    def before(own):
        if own == rank:
            killed_at(place, call)

    return before


def test_a_run_that_lost_processes_ends_as_if_it_had_not(words, tmp_path):
    whole, patched = tmp_path / "whole", tmp_path / "patched"
    assert run_together([*words, f"output_dir={whole}"], 2) == [0, 0]
    words = [*words, f"output_dir={patched}"]
    for rank, place, call in ((1, "step", 4), (0, "write", 2), (1, "evaluation", 1)):
        codes = run_together(words, 2, dies(rank, place, call), said=tmp_path)
        assert codes[rank] == -signal.SIGKILL
        assert codes[1 - rank] == 1
        said = (tmp_path / f"{1 - rank}.txt").read_text()
        assert "lost contact with another process" in said
        assert "Traceback" not in said
    assert run_together(words, 2) == [0, 0]
    assert_same_runs(whole, patched)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_all_processes_stop_at_one_step_whichever_got_the_signal(words, tmp_path, number):
    def before(rank):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        original, calls = SegmentationTask.on_before_optimizer_step, iter(range(100))

        def signalled(self, optimizer):
            if next(calls) == 1 and rank == 1:
                os.kill(os.getpid(), number)
            return original(self, optimizer)

        SegmentationTask.on_before_optimizer_step = signalled

    run = tmp_path / "run"
    words = [*words, f"output_dir={run}"]
    # SLURM may tell any of them, and the first process is the one that asks for the job to be put back
    assert run_together(words, 2, before, said=tmp_path) == [128 + number] * 2
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["global_step"] == 4  # asked for in step 2, known to all in step 3, that is evaluated at step 4
    assert "goes on from the last checkpoint" in (tmp_path / "0.txt").read_text()


def test_a_full_disk_is_told_and_the_checkpoint_before_it_is_whole(words, tmp_path):
    """The limit on the size of a file stands in for the disk's: the writer gets the same kind of error."""
    run = tmp_path / "run"
    words = [*words, f"output_dir={run}"]
    assert run_together([*words, "trainer.max_steps=2"], 2) == [0, 0]
    last = run / "checkpoints" / "last.ckpt"
    before, size = last.read_bytes(), last.stat().st_size

    def limit(rank):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    assert run_together(words, 2, limit, said=tmp_path) == [1, 1]
    said = (tmp_path / "0.txt").read_text()
    assert "last.ckpt" in said
    assert "the checkpoint before it is whole" in said
    assert "lost contact" in (tmp_path / "1.txt").read_text()
    assert last.read_bytes() == before
    assert [file.name for file in last.parent.iterdir() if "partial" in file.name] == []
    assert run_together(words, 2) == [0, 0]


def test_the_checkpoint_that_slurm_had_written_is_taken_when_it_is_newer(words, tmp_path, capsys):
    """Lightning's own handler of SLURM's signal writes hpc_ckpt_N.ckpt into the run directory."""
    run = tmp_path / "run"
    words = [*words, f"output_dir={run}", "trainer.val_every=1"]
    assert main([*words, "trainer.max_steps=2"]) == 0
    folder = run / "checkpoints"
    (folder / "last.ckpt").rename(run / "hpc_ckpt_1.ckpt")
    (folder / "previous.ckpt").rename(folder / "last.ckpt")
    assert main([*words, "trainer.max_steps=3"]) == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert "hpc_ckpt_1.ckpt, step 2" in said
    assert main([*words, "trainer.max_steps=4"]) == 0
    assert "last.ckpt, step 3" in capsys.readouterr().out.replace("\n", "")


def test_another_number_of_processes_is_told(words, tmp_path, capsys):
    words = [*words, f"output_dir={tmp_path / 'run'}"]
    assert run_together([*words, "trainer.max_steps=1"], 2) == [0, 0]
    assert main([*words, "trainer.max_steps=2"]) == 0
    assert "2 processes trained together and now it is 1" in capsys.readouterr().out
