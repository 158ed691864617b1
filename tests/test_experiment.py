"""Configuration -> data: which format goes with which task."""

import pytest

from datamodules import DATAMODULES
from densevision.cli import main
from densevision.config.schema import Config
from densevision.errors import UserError
from densevision.experiment import TASKS, build_datamodule

FITTING = {
    "segmentation": {"cityscapes", "folders", "voc"},
    "detection": {"coco", "voc", "yolo"},
    "classification": {"class_folders", "imagenet"},
}


@pytest.mark.parametrize("name", sorted(DATAMODULES))
@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_format_is_taken_for_the_tasks_that_it_has_labels_for(task, name):
    config = Config()
    config.task, config.data.name, config.data.root = task, name, "/nowhere"
    if name in FITTING[task]:
        assert build_datamodule(config).data.name == name
        return
    with pytest.raises(UserError, match=f"{name} has no labels for {task}; known: ") as caught:
        build_datamodule(config)
    assert caught.value.key == "data.name"
    assert FITTING[task] == set(str(caught.value).partition("known: ")[2].split(", "))


@pytest.mark.parametrize("verb", ["train", "check_data"])
@pytest.mark.parametrize(
    ("config", "name"),
    [("mobilenext_cifar10", "voc"), ("ssdlite_v3_voc", "class_folders"), ("lraspp_v3_voc", "coco")],
)
def test_data_of_another_task_is_told_in_a_sentence(verb, config, name, tmp_path, capsys):
    words = [f"data.root={tmp_path}", f"output_dir={tmp_path / 'run'}", "wandb.mode=disabled"]
    assert main([verb, config, f"data.name={name}", *words]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: override 'data.name={name}': data.name: {name} has no labels for ")
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()
