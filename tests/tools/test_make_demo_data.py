"""The demo's scenes: the same seed draws the same bits, labels are exact, the tree is Cityscapes' to the letter."""

import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from densevision.errors import UserError

sys.path.append(str(Path(__file__).parents[2] / "tools"))  # last: tools/profile.py must not hide Python's own
import make_demo_data as demo

STUFF = {7: "road", 8: "sidewalk", 11: "building", 17: "pole", 20: "sign", 21: "vegetation", 22: "terrain", 23: "sky"}
THINGS = {24: "person", 26: "car"}
COUNTS = {"train": 3, "val": 2, "test": 1}
SIZE = (64, 128)


@pytest.fixture(scope="module")
def scenes():
    return [demo.draw_scene(seed, (128, 256)) for seed in range(8)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "cityscapes"
    assert demo.write_tree(root, COUNTS, SIZE)
    return root


def contents(root):
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


@pytest.mark.parametrize("size", [(32, 32), (97, 211), (128, 256), (200, 64), (1024, 2048)])
def test_a_scene_has_the_asked_size_and_only_official_labels(size):
    image, labels, instances = demo.draw_scene(3, size)
    assert (image.shape, labels.shape, instances.shape) == ((*size, 3), size, size)
    assert (image.dtype, labels.dtype, instances.dtype) == (np.uint8, np.uint8, np.uint16)
    assert set(np.unique(labels)) <= STUFF.keys() | THINGS.keys()


def test_the_same_seed_draws_the_same_bits(scenes):
    for once, again in zip(scenes[2], demo.draw_scene(2, (128, 256)), strict=True):
        np.testing.assert_array_equal(once, again)


def test_other_seeds_draw_other_scenes(scenes):
    assert len({labels.tobytes() for _, labels, _ in scenes}) == len(scenes)


def test_a_scene_is_the_same_at_every_size():
    _, small, _ = demo.draw_scene(5, (128, 256))
    _, large, _ = demo.draw_scene(5, (512, 1024))
    assert (small == large[2::4, 2::4]).mean() > 0.95


def test_nearly_every_scene_has_every_class(scenes):
    present = np.array([[(labels == label).mean() > 0.001 for label in STUFF | THINGS] for _, labels, _ in scenes])
    assert present.mean() > 0.9
    assert present[:, list(STUFF | THINGS).index(7)].all()
    assert present[:, list(STUFF | THINGS).index(26)].all()


def test_instances_agree_with_labels(scenes):
    for _, labels, instances in scenes:
        thing = np.isin(labels, list(THINGS))
        np.testing.assert_array_equal(instances[thing] // 1000, labels[thing])
        np.testing.assert_array_equal(instances[~thing], labels[~thing])
        assert len(np.unique(instances[thing])) > 3


def test_labels_follow_the_picture(scenes):
    """Where the label changes the picture does: edges are twice as strong there as inside the regions."""
    for image, labels, _ in scenes:
        step = np.abs(np.diff(image.astype(int), axis=1)).sum(2)
        border = np.diff(labels.astype(int), axis=1) != 0
        assert step[border].mean() > 2 * step[~border].mean()


def test_the_tree_is_laid_out_as_cityscapes(tree):
    pattern = (
        r"(leftImg8bit/{0}/({1})/\2_\d{{6}}_\d{{6}}_leftImg8bit"
        r"|gtFine/{0}/({1})/\3_\d{{6}}_\d{{6}}_gtFine_(labelIds|instanceIds))\.png"
    )
    files = set(contents(tree)) - {demo.STAMP}
    assert len(files) == 3 * sum(COUNTS.values())
    for split, count in COUNTS.items():
        found = [name for name in files if re.fullmatch(pattern.format(split, "|".join(demo.CITIES[split])), name)]
        assert len(found) == 3 * count


def test_files_hold_the_scene(tree):
    labels = next(tree.glob("gtFine/val/*/*_labelIds.png"))
    stem = str(labels).replace("gtFine_labelIds.png", "")
    ids = cv2.imread(stem + "gtFine_instanceIds.png", cv2.IMREAD_UNCHANGED)
    image = cv2.imread(stem.replace("gtFine", "leftImg8bit") + "leftImg8bit.png")[..., ::-1]
    read = image, cv2.imread(str(labels), cv2.IMREAD_UNCHANGED), ids
    index = int(labels.name.split("_")[1])
    for wanted, got in zip(demo.draw_scene((0, 1, index), SIZE), read, strict=True):
        np.testing.assert_array_equal(wanted, got)


def test_splits_share_no_city_and_no_scene(tree):
    cities = [city for names in demo.CITIES.values() for city in names]
    assert len(set(cities)) == len(cities)
    pictures = [data for name, data in contents(tree).items() if name.startswith("leftImg8bit")]
    assert len(set(pictures)) == sum(COUNTS.values())


def test_the_same_arguments_give_the_same_bits_and_are_drawn_once(tree, tmp_path, capsys):
    argv = ["--size", "64", "128", "--train", "3", "--val", "2", "--test", "1", "--output"]
    demo.main([*argv, str(tmp_path / "again")])
    assert contents(tmp_path / "again") == contents(tree)
    before = {file: file.stat().st_mtime_ns for file in tree.rglob("*")}
    demo.main([*argv, str(tree)])
    assert "complete already" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in tree.rglob("*")}


def test_an_interrupted_run_starts_again(tree, tmp_path):
    root = tmp_path / "half"
    (root / "leftImg8bit").mkdir(parents=True)
    (root / f"{demo.STAMP}.unfinished").write_text((tree / demo.STAMP).read_text())
    assert demo.write_tree(root, COUNTS, SIZE)
    assert contents(root) == contents(tree)


@pytest.mark.parametrize("change", [{"seed": 1}, {"size": (64, 64)}, {"counts": {"train": 1}}])
def test_other_arguments_in_the_same_folder_are_refused(tree, change):
    arguments = {"counts": COUNTS, "size": SIZE, "seed": 0} | change
    with pytest.raises(UserError, match="holds something other than this demo data; name another --output"):
        demo.write_tree(tree, **arguments)


def test_a_folder_of_something_else_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit, match=f"^error: {re.escape(str(tmp_path))} holds something other"):
        demo.main(["--output", str(tmp_path)])
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("size", [(16, 128), (1025, 128), (128, 4096)])
def test_sizes_out_of_range_are_refused(tmp_path, size):
    with pytest.raises(UserError, match="out of range"):
        demo.write_tree(tmp_path, COUNTS, size)
