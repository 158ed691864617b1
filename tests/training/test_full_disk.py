"""A disk that is really full: told by its name and its room, and the checkpoint before it is whole."""

import shutil
import subprocess

import pytest

from densevision.cli import main
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


def test_a_full_disk_is_named_and_the_checkpoint_before_it_is_whole(small_disk, tmp_path, capsys):
    root, run = tmp_path / "cityscapes", small_disk / "run"
    for split in ("train", "val"):
        write_cityscapes_tree(root, split, count=2, size=(40, 60))
    words = [*WORDS, f"data.root={root}", f"output_dir={run}", "data.num_workers=0", "trainer.pictures_every=null"]
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
