"""Tables of networks as files: exact in both directions, every mistake told, and as good as a named backbone."""

import json
import re

import pytest
import torch
import yaml

import densevision
from densevision.backbones import (
    BACKBONES,
    architecture_from_dict,
    architecture_to_dict,
    read_architecture,
    write_architecture,
)
from densevision.cli import main
from densevision.config.schema import Config
from densevision.errors import UserError
from densevision.models import build_model
from tests.trees import write_cityscapes_tree


@pytest.mark.parametrize("name", sorted(BACKBONES))
@pytest.mark.parametrize("options", [{}, {"width_mult": 0.35, "output_stride": 16, "reduced_tail": "segmentation"}])
def test_a_file_gives_back_the_network(name, options, tmp_path):
    architecture = BACKBONES[name](**options)
    write_architecture(architecture, tmp_path / "arch.yaml")
    assert read_architecture(tmp_path / "arch.yaml") == architecture
    plain = yaml.safe_load((tmp_path / "arch.yaml").read_text())  # any reader of YAML sees the same
    assert architecture_from_dict(plain, "x") == architecture
    assert architecture_from_dict(json.loads(json.dumps(architecture_to_dict(architecture))), "x") == architecture


MISTAKES = [
    (lambda v: v.pop("stem"), "arch.yaml: stem is not given"),
    (lambda v: v.update(stem=3), "arch.yaml: stem: expected keys (in_channels, out_channels, kernel"),
    (lambda v: v["stem"].update(stride=1), "arch.yaml: stem: stride: expected 2, got 1"),
    (lambda v: v.update(blcks=1), "arch.yaml: unknown key 'blcks'; did you mean 'blocks'?"),
    (lambda v: v.update(blocks={}), "arch.yaml: blocks: expected a list of blocks, got {}"),
    (lambda v: v["blocks"].insert(0, 7), "arch.yaml: blocks[0]: expected keys with op"),
    (lambda v: v["blocks"][0].pop("op"), "arch.yaml: blocks[0]: expected keys with op"),
    (lambda v: v["blocks"][2].update(op="inverted"), "blocks[2].op: unknown operator 'inverted'"),
    (lambda v: v["blocks"][2].update(kernal=3), "blocks[2]: unknown key 'kernal'; did you mean 'kernel'?"),
    (lambda v: v["blocks"][2].pop("kernel"), "blocks[2]: kernel is not given"),
    (lambda v: v["blocks"][2].update(kernel=4), "blocks[2].kernel: expected an odd number, got 4"),
    (lambda v: v["blocks"][2].update(kernel="3"), "blocks[2].kernel: expected a whole number of at least 1, got '3'"),
    (lambda v: v["blocks"][2].update(expansion=0), "blocks[2].expansion: expected a whole number of at least 1"),
    (lambda v: v["blocks"][2].update(squeeze=2.5), "blocks[2].squeeze: expected a whole number of at least 0"),
    (lambda v: v["blocks"][2].update(expand=1), "blocks[2].expand: expected true or false, got 1"),
    (lambda v: v["blocks"][2].update(act="hwish"), "blocks[2].act: unknown activation 'hwish'; did you mean 'hswish'?"),
    (lambda v: v["blocks"][2].update(gate="tanh"), "blocks[2].gate: unknown gate 'tanh'"),
    (lambda v: v["blocks"][2].update(in_channels=8), "blocks[2].in_channels: expected 24, as the layer before it"),
    (lambda v: v["blocks"][1].update(out_channels=40), "blocks[2].in_channels: expected 40"),
    (lambda v: v["blocks"][2].update(stage=5), "blocks[2].stage: expected 3 or 4 after 3, got 5"),
    (lambda v: v["blocks"][2].update(stride=2), "blocks[2].stride: expected 1, or 2 in the first block of a stage"),
    (lambda v: v["blocks"][3].update(residual=True), "blocks[3].residual: a sum needs stride 1"),
    (lambda v: v["blocks"][2].update(expand=False), "blocks[2].expansion: expected 24, as in_channels"),
    (lambda v: v.update(blocks=v["blocks"][:8]), "blocks: the last block is of stage 4"),
    (lambda v: v["last_conv"].update(in_channels=8), "last_conv: expected in_channels 96"),
    (lambda v: v["norm"].update(eps="small"), "norm: eps: expected a number of at least 0, got 'small'"),
    (lambda v: v.update(top="c6"), "top: unknown feature 'c6'"),
]


@pytest.mark.parametrize(("change", "sentence"), MISTAKES, ids=[sentence[:40] for _, sentence in MISTAKES])
def test_a_mistake_in_the_file_is_one_sentence(change, sentence, tmp_path, capsys):
    values = architecture_to_dict(BACKBONES["mobilenet_v3_small"]())
    values = json.loads(json.dumps(values))
    change(values)
    (tmp_path / "arch.yaml").write_text(yaml.safe_dump(values))
    assert main(["profile", "lraspp_v3_cityscapes", f"model.backbone.arch={tmp_path}/arch.yaml"]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert "model.backbone.arch" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("text", [None, "", "- 1\n", "a: [1\n"])
def test_what_is_no_table_is_told(text, tmp_path):
    file = tmp_path / "arch.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(file))):
        read_architecture(file)


def test_the_table_decides_and_a_contradiction_is_told(tmp_path):
    config = Config()
    config.model.backbone.arch, config.model.head.name = str(tmp_path / "arch.yaml"), "raspp"
    write_architecture(BACKBONES["mobilenet_v2"](width_mult=0.35, output_stride=16), tmp_path / "arch.yaml")
    assert build_model(config.model, 5)(torch.zeros(2, 3, 64, 64)).shape == (2, 5, 4, 4)
    config.model.backbone.output_stride = 8
    with pytest.raises(UserError, match="has output stride 16"):
        build_model(config.model, 5)
    config.model.backbone.arch = None
    with pytest.raises(UserError, match=r"give the name of a backbone, or .*model\.backbone\.arch"):
        build_model(config.model, 5)


def test_a_table_is_trained_and_its_checkpoint_stands_alone(tmp_path, capsys):
    data, run, file = tmp_path / "street", tmp_path / "run", tmp_path / "arch.yaml"
    write_cityscapes_tree(data, "train", ["aachen"], count=4)
    write_cityscapes_tree(data, "val", ["ulm"], count=2)
    architecture = BACKBONES["mobilenet_v3_small"](width_mult=0.35, output_stride=16)
    write_architecture(architecture, file)
    words = ["train", "lraspp_v3_cityscapes", f"model.backbone.arch={file}", f"data.root={data}", f"output_dir={run}"]
    words += ["data.crop_size=[32,64]", "data.batch_size=2", "data.num_workers=0", "wandb.mode=disabled"]
    assert main([*words, "trainer.max_steps=1"]) == 0
    assert main([*words, "trainer.max_steps=2"]) == 0  # goes on: the stored table is the file's
    file.unlink()
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert densevision.load(checkpoint).model.backbone.architecture == architecture
    assert main(["evaluate", str(checkpoint), f"data.root={data}", "data.num_workers=0"]) == 0
    assert main(["profile", str(run / "config.yaml"), "--image-size", "32", "64"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(checkpoint), "model.backbone.arch=other.yaml"]) == 1
    assert "model.backbone.arch: the checkpoint was trained with a table of its own" in capsys.readouterr().err
