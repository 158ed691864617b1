"""``train --dry-run``: what is wrong shows at once and nothing is written."""

import re

import pytest

from densevision.cli import main
from tests.tasks.test_many_processes import draw


@pytest.mark.parametrize("task", ["segmentation", "detection", "classification"])
def test_it_tries_everything_on_a_machine_without_the_devices(tmp_path, capsys, task):
    words = [*draw(task, tmp_path / "data", 40, 3), "trainer.max_steps=10"]
    run = tmp_path / "run"
    devices = ["trainer.accelerator=gpu", "trainer.devices=8", "trainer.num_nodes=2", "trainer.accumulate=3"]
    words = [*words, *devices, "data.batch_size=2", "data.cache=raw", f"output_dir={run}"]
    enough = task != "classification"  # 16 processes of 2 pictures want 32
    assert main(["train", *words, "--dry-run"]) == (0 if enough else 1)
    said = capsys.readouterr()
    if enough:
        assert "96 pictures: 2 x 16 processes x 3 batches" in said.out
        assert "MiB for each of 2 pictures" in said.out
        assert re.search(r"on a CPU the process itself has [\d.]+ [MG]iB more", said.out)
    else:
        assert "in each of 16 processes" in said.err
    assert not run.exists()
    assert {file.name for file in tmp_path.iterdir()} == {"data"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("data.root=/nowhere", "/nowhere"),
        ("output_dir=/proc/version/run", "no folder that can be written to"),
        ("trainer.resume=nowhere.ckpt", "nowhere.ckpt"),
        ("trainer.precision=fp8", "bf16-mixed"),
        ("trainer.max_steps=null", "so that the training ends"),
    ],
)
def test_mistakes_are_told(tmp_path, capsys, word, expected):
    words = [*draw("segmentation", tmp_path / "data", 2, 1), "data.batch_size=2"]
    assert main(["train", *words, word, "--dry-run"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert expected in said


def test_the_estimate_follows_the_precision_and_the_size(tmp_path, capsys):
    words = [*draw("segmentation", tmp_path / "data", 2, 1), "data.batch_size=2"]

    def each(precision, side):
        more = [f"trainer.precision={precision}", f"data.crop_size=[{side},{side}]"]
        assert main(["train", *words, *more, "--dry-run"]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if "for each of" in line)
        return float(line.split(" and ")[-1].split(" MiB")[0])

    plain = each("32-true", 256)
    assert 0.5 * plain < each("16-mixed", 256) == each("bf16-mixed", 256) < plain  # the loss stays in float32
    assert each("64-true", 256) == pytest.approx(2 * plain, rel=0.1)
    assert each("32-true", 512) == pytest.approx(4 * plain, rel=0.1)


def test_a_run_that_is_there_is_gone_on_with_or_finished(tmp_path, capsys):
    words = [*draw("segmentation", tmp_path / "data", 2, 1), "data.batch_size=2", f"output_dir={tmp_path / 'run'}"]
    words += ["optim.schedule=constant", "model.head.pool_window=null"]
    assert main(["train", *words, "trainer.max_steps=1"]) == 0
    capsys.readouterr()
    assert main(["train", *words, "trainer.max_steps=2", "--dry-run"]) == 0
    assert "going on from step 1" in capsys.readouterr().out
    assert main(["train", *words, "trainer.max_steps=1", "--dry-run"]) == 1
    assert "holds a finished run of 1 steps" in capsys.readouterr().err
