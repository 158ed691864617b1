"""show_batch as a user calls it."""

import pytest

from densevision.cli import main
from densevision.io import read_image
from tests.trees import write_cityscapes_tree


@pytest.fixture
def tree(tmp_path):
    for split in ("train", "val"):
        write_cityscapes_tree(tmp_path, split, ("aachen",), count=3)
    return tmp_path


def show(tree, *words):
    keys = [f"data.root={tree}", "data.batch_size=2", "data.crop_size=[40,80]"]
    return main(["show_batch", "lraspp_v3_cityscapes", *keys, *map(str, words)])


def test_the_picture_shows_pictures_beside_their_masks(tree, tmp_path, capsys):
    assert show(tree, "--output", tmp_path / "new" / "grid.png", "--count", 1) == 0
    drawn = read_image(tmp_path / "new" / "grid.png")
    assert drawn.shape[0] > 40
    assert drawn.shape[1] >= 2 * 80
    assert "1 training pictures" in capsys.readouterr().out


def test_the_same_seed_draws_the_same_batch(tree, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert show(tree, "--output", tmp_path / f"{name}.png", f"seed={seed}") == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_a_batch_that_cannot_be_filled_is_a_sentence(tree, tmp_path, capsys):
    assert show(tree, "data.batch_size=4", "--output", tmp_path / "grid.png") == 1
    assert "fewer than one batch of 4" in capsys.readouterr().err
    assert not (tmp_path / "grid.png").exists()
