"""The parts of a step, and the compiler that may make it cheaper."""

import json

import pytest
import torch
from torch import nn

from densevision.cli import main
from densevision.training.compiled import compile_training
from tests.tasks.test_many_processes import draw

PARTS = {"data", "forward", "backward", "optimizer", "logging"}


def lines(run, key):
    return [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if key in line]


def test_every_fiftieth_step_says_where_its_time_goes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("densevision.training.step_times.EVERY", 3)
    words = [*draw("segmentation", tmp_path / "data", 6, 1), "data.batch_size=2", "trainer.accumulate=2"]
    run = tmp_path / "run"
    assert main(["train", *words, "trainer.max_steps=7", "trainer.val_every=7", f"output_dir={run}"]) == 0
    measured = lines(run, "step/forward")
    assert [line["step"] for line in measured] == [3, 6]
    for line in measured:
        parts = {key.removeprefix("step/"): value for key, value in line.items() if key.startswith("step/")}
        assert parts.pop("peak_memory_mib") > 100
        assert set(parts) == PARTS
        assert all(0 <= value < 60_000 for value in parts.values())
        assert min(parts["forward"], parts["backward"], parts["optimizer"]) > 0
    said = capsys.readouterr().out
    assert "step 3/7  ms: data" in said
    assert max(map(len, said.splitlines())) > 100, "a line of a log is not broken"


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x).relu()


def test_where_compiling_fails_the_model_runs_as_it_is(monkeypatch, caplog):
    import torch._inductor.config as inductor

    model, x = Small(), torch.randn(4, 3)
    expected = model(x)
    compile_training(model)
    with inductor.patch({"cpp.cxx": ("/nowhere/g++",), "fx_graph_cache": False}):
        assert torch.equal(model(x), expected)
    assert torch.equal(model(x), expected)
    ours = [record.getMessage() for record in caplog.records if record.name == "densevision"]
    assert len(ours) == 1
    assert "torch.compile does not work here" in ours[0]
    assert list(model.state_dict()) == ["layer.weight", "layer.bias"]


@pytest.mark.slow
def test_compiled_training_learns_the_same(tmp_path, caplog):
    words = [*draw("segmentation", tmp_path / "data", 6, 1), "data.batch_size=2", "trainer.max_steps=2"]
    for name in ("false", "true"):
        assert main(["train", *words, f"trainer.compile={name}", f"output_dir={tmp_path / name}"]) == 0
    losses = [[line["train/loss"] for line in lines(tmp_path / name, "train/loss")] for name in ("false", "true")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert "does not work" not in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("more", [[], ["trainer.channels_last=true", "trainer.compile=true"]], ids=["plain", "fast"])
def test_every_precision_trains_on_a_gpu(tmp_path, precision, more):
    words = [word for word in draw("segmentation", tmp_path / "data", 6, 1) if word != "trainer.accelerator=cpu"]
    words += ["trainer.accelerator=gpu", "trainer.devices=1", "data.batch_size=2", "trainer.max_steps=4"]
    run = tmp_path / "run"
    assert main(["train", *words, *more, f"trainer.precision={precision}", f"output_dir={run}"]) == 0
    assert all(line["train/loss"] > 0 for line in lines(run, "train/loss"))
