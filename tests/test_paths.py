"""Whether something is there, asked of any text that a user may write."""

import os

import numpy as np
import pytest

from datamodules import TASK_DATAMODULES
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from densevision.io import list_images, read_image
from densevision.paths import is_file, is_folder, is_there, names_in
from tests.pictures import save

NO_NAMES = ["x" * 300, "x/" * 5000, "x\0y"]
MODULES = {f"{task} {name}": module for task, names in TASK_DATAMODULES.items() for name, module in names.items()}


def test_what_is_there_is_told(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "b").mkdir()
    (tmp_path / "c").symlink_to("nowhere")
    answers = {name: (is_folder(path), is_file(path), is_there(path)) for name in "abcd" for path in [tmp_path / name]}
    none = (False, False, False)
    assert answers == {"a": (False, True, True), "b": (True, False, True), "c": none, "d": none}
    assert names_in(tmp_path) == ["a", "b", "c"]
    assert names_in(tmp_path, folders_only=True) == ["b"]


@pytest.mark.parametrize("name", NO_NAMES, ids=["long", "deep", "NUL"])
def test_what_no_file_can_be_called_is_not_there(tmp_path, name):
    assert [ask(tmp_path / name) for ask in (is_folder, is_file, is_there)] == [False] * 3
    for ask in (names_in, read_image, lambda path: list_images([path])):
        with pytest.raises(UserError):
            ask(tmp_path / name)


def test_a_folder_that_may_not_be_looked_into_is_a_sentence(tmp_path):
    (tmp_path / "shut").mkdir(mode=0)
    if os.access(tmp_path / "shut", os.R_OK):
        pytest.skip("root may look everywhere")
    for ask, path in ((is_folder, "shut/a"), (names_in, "shut")):
        with pytest.raises(UserError, match="Permission denied"):
            ask(tmp_path / path)


@pytest.mark.parametrize("name", NO_NAMES, ids=["long", "deep", "NUL"])
@pytest.mark.parametrize("module", MODULES)
def test_a_data_set_at_such_a_place_is_a_sentence(tmp_path, module, name):
    save(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    format_name = module.split()[1]
    keys = [{"root": name}, {"root": str(tmp_path), "train_split": name}]
    if format_name in ("folders", "voc"):
        one_folder = {"root": str(tmp_path), "images": ".", "classes": ["a", "b"], "val_fraction": 0.5}
        keys += [{**one_folder, key: name} for key in ("images", "masks", "classes", "train_list")]
    if format_name == "coco":
        keys += [{"root": str(tmp_path), key: name} for key in ("train_images", "train_annotations")]
    for words in keys:
        with pytest.raises(UserError):
            MODULES[module](DataConfig(name=format_name, image_size=[32, 32], **words)).setup("fit")
