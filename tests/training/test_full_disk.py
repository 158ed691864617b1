"""A disk that is really full: told by its name and its room, and the checkpoint before it is whole."""

import contextlib
import shutil
import subprocess

import pytest
import torch

from densevision.cli import main
from densevision.training.checkpoints import Checkpoints
from tests.training.test_survival import WORDS
from tests.trees import write_cityscapes_tree


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", place], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system needs more rights than this process has")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def words(small_disk, tmp_path):
    root = tmp_path / "cityscapes"
    for split in ("train", "val"):
        write_cityscapes_tree(root, split, count=2, size=(40, 60))
    here = [f"data.root={root}", f"output_dir={small_disk / 'run'}", "data.num_workers=0"]
    return [*WORDS, *here, "trainer.pictures_every=null"]


def test_a_full_disk_is_named_and_the_checkpoint_before_it_is_whole(words, small_disk, capsys):
    run = small_disk / "run"
    assert main([*words, "trainer.max_steps=1"]) == 0
    last = run / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    room = shutil.disk_usage(small_disk).free - len(before) // 2
    (small_disk / "others").write_bytes(bytes(room))
    assert main([*words, "trainer.max_steps=3"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {run}")
    assert "the disk is full (0.0 MiB are free)" in said
    assert "the checkpoint before it is whole" in said
    assert last.read_bytes() == before
    (small_disk / "others").unlink()
    assert main([*words, "trainer.max_steps=3"]) == 0


def test_a_full_disk_is_named_where_wandb_fails_on_it_too(words, small_disk, capfd, monkeypatch):
    """Others take the last byte before the second checkpoint; W&B keeps its files and its own log there as well."""
    words = [*words, "wandb.mode=offline", "trainer.pictures_every=1", "trainer.val_every=1", "trainer.max_steps=3"]
    write = Checkpoints._write
    saves = iter(range(100))

    def write_when_full(self, *arguments):
        if next(saves) == 1:
            with contextlib.suppress(OSError), (small_disk / "others").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        write(self, *arguments)

    monkeypatch.setattr(Checkpoints, "_write", write_when_full)
    assert main(words) == 1
    out, err = capfd.readouterr()
    assert "the disk is full (0.0 MiB are free); the checkpoint before it is whole" in err.splitlines()[-1]
    assert "Traceback" not in out + err
    assert len((out + err).splitlines()) < 60
    assert torch.load(small_disk / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 1


def test_a_disk_that_the_copy_of_the_best_fills(words, small_disk, capsys):
    """A checkpoint has room and its copy has not; what was not there before is not said to be whole."""
    run, others = small_disk / "run", small_disk / "others"
    assert main([*words, "trainer.max_steps=1"]) == 0
    size = (run / "checkpoints" / "last.ckpt").stat().st_size

    def leave_room_for_one():
        others.unlink(missing_ok=True)
        others.write_bytes(bytes(shutil.disk_usage(small_disk).free - 3 * size // 2))

    last = run / "checkpoints" / "last.ckpt"
    stored = torch.load(last, weights_only=True)
    stored["callbacks"]["Checkpoints"]["best"] = -1.0  # whatever comes next is better
    torch.save(stored, last)
    before = last.read_bytes()
    leave_room_for_one()
    assert main([*words, "trainer.max_steps=2"]) == 1
    said = capsys.readouterr().err
    assert "best.ckpt cannot be written: No space left on device; the checkpoint before it is whole" in said
    assert last.read_bytes() == before

    shutil.rmtree(run)
    leave_room_for_one()
    assert main([*words, "trainer.max_steps=1"]) == 1
    said = capsys.readouterr().err
    assert "best.ckpt cannot be written: No space left on device; there is no checkpoint before it" in said
