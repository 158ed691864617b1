"""The average of the weights: what it is, that it is what is judged and loaded, and never the initial weights."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import densevision
from densevision.cli import main
from densevision.training.ema import EMA
from tests.checkpoints import SMALL
from tests.trees import write_cityscapes_tree

WORDS = [
    "train", "lraspp_v3_cityscapes", *SMALL, "data.crop_size=[32,64]", "data.batch_size=2", "data.num_workers=0",
    "optim.lr=0.1", "trainer.log_every=1", "wandb.mode=disabled", "optim.ema_decay=0.99",
]  # fmt: skip


def test_the_average_moves_as_said():
    model = nn.BatchNorm1d(2)
    ema = EMA(decay=0.2)
    for step in range(4):
        with torch.no_grad():
            model.weight.fill_(step + 1.0)
            model.running_mean.fill_(10.0 * step)
            model.num_batches_tracked += 1
        ema.update(model)
    expected = 1.0  # after the first step the weights themselves
    for n, value in ((1, 2.0), (2, 3.0), (3, 4.0)):
        decay = min(0.2, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(ema.average["weight"], torch.full((2,), expected))
    torch.testing.assert_close(ema.average["running_mean"], torch.full((2,), 10 * (expected - 1)))
    assert int(ema.average["num_batches_tracked"]) == 4
    assert ema.average["weight"].data_ptr() != model.weight.data_ptr()


@pytest.fixture
def street(tmp_path):
    write_cityscapes_tree(tmp_path / "cityscapes", "train", ["aachen"], count=6)
    write_cityscapes_tree(tmp_path / "cityscapes", "val", ["munster"], count=2)
    return tmp_path


def train(street, name, *words):
    assert main([*WORDS, f"data.root={street / 'cityscapes'}", f"output_dir={street / name}", *words]) == 0
    return torch.load(street / name / "checkpoints" / "last.ckpt", weights_only=True)


def own_weights(stored):
    return stored["callbacks"]["EMA"]["own"]


@pytest.mark.parametrize("recalibration", [0, 2])
def test_the_average_is_judged_saved_and_loaded(street, recalibration):
    stored = train(street, "run", "trainer.max_steps=4", f"trainer.bn_recalibration={recalibration}")
    best = street / "run" / "checkpoints" / "best.ckpt"
    assert stored["densevision"]["averaged"] is True
    assert any(not torch.equal(own_weights(stored)[n], stored["state_dict"][f"model.{n}"]) for n in own_weights(stored))
    loaded = densevision.load(best).model.state_dict()
    assert all(torch.equal(value, stored["state_dict"][f"model.{name}"]) for name, value in loaded.items())
    judged = json.loads((street / "run" / "summary.json").read_text())["evaluation"]["miou"]
    out = street / "out.json"
    assert main(["evaluate", str(best), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["miou"] == judged


def test_training_itself_is_the_same_with_and_without(street):
    plain = train(street, "plain", "trainer.max_steps=3", "trainer.val_every=1", "optim.ema_decay=null")
    averaged = train(street, "averaged", "trainer.max_steps=3", "trainer.val_every=1")
    for name, value in own_weights(averaged).items():
        assert torch.equal(value, plain["state_dict"][f"model.{name}"]), name
    assert plain["densevision"]["averaged"] is False


def test_one_step_leaves_the_trained_weights(street):
    stored = train(street, "run", "trainer.max_steps=1")
    for name, value in own_weights(stored).items():
        assert torch.equal(value, stored["state_dict"][f"model.{name}"]), name


def test_a_resumed_average_goes_on_where_it_was(street):
    constant = "optim.schedule=constant"
    whole = train(street, "whole", "trainer.max_steps=5", "trainer.val_every=2", constant)
    train(street, "patched", "trainer.max_steps=2", "trainer.val_every=2", constant)
    patched = train(street, "patched", "trainer.max_steps=5", "trainer.val_every=2", constant)
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, patched["state_dict"][name]), name
    assert patched["callbacks"]["EMA"]["updates"] == 5


def test_before_the_first_step_there_is_no_average():
    model = nn.Linear(2, 2)
    trainer, task = SimpleNamespace(state=SimpleNamespace(fn="fit")), SimpleNamespace(model=model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ema = EMA(0.99)
    ema.on_validation_start(trainer, task)
    ema.on_validation_end(trainer, task)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    checkpoint = {"state_dict": {}, "callbacks": {}}
    ema.on_save_checkpoint(trainer, task, checkpoint)
    assert checkpoint == {"state_dict": {}, "callbacks": {}}


def test_averaging_cannot_be_switched_within_a_run(street, capsys):
    train(street, "run", "trainer.max_steps=1", "optim.schedule=constant")
    words = [f"data.root={street / 'cityscapes'}", f"output_dir={street / 'run'}", "trainer.max_steps=2"]
    assert main([*WORDS, *words, "optim.schedule=constant", "optim.ema_decay=null"]) == 1
    assert "optim.ema_decay was 0.99, now None" in capsys.readouterr().err
