"""The benchmark on CIFAR-10 at a smaller size: it trains both networks, keeps what it did, and compares."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densevision.io import read_image
from tests.trees import write_class_tree

sys.path.append(str(Path(__file__).parents[2] / "tools" / "benchmarks"))
import cifar_mobilenext as benchmark

TINY = (
    "model.backbone.width_mult=0.35", "model.backbone.output_stride=32", "data.batch_size=6", "data.num_workers=0",
    "trainer.max_epochs=null", "trainer.max_steps=1", "trainer.accelerator=cpu",
)  # fmt: skip


def test_runs_are_made_once_and_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(benchmark.SETTINGS, "small", TINY)
    write_class_tree(tmp_path / "data", ("dark", "light"))
    words = ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "out"), "--seeds", "1"]
    assert benchmark.main(words) == 0
    said = capsys.readouterr().out
    assert "MobileNetV2, seed 0:" in said
    assert "top-1 on the validation pictures, small setting" in said
    files = sorted((tmp_path / "out").glob("*.json"))
    assert [file.stem for file in files] == ["small-MobileNeXt-0", "small-MobileNetV2-0"]
    states = [file.stat().st_mtime_ns for file in files]
    assert benchmark.main(words) == 0
    assert [file.stat().st_mtime_ns for file in files] == states
    assert capsys.readouterr().out == said


def test_pictures_become_class_folders(tmp_path):
    arrays = [np.full((4, 4, 3), value, np.uint8) for value in (10, 20, 30)]
    pairs = zip(map(Image.fromarray, arrays), (1, 0, 1), strict=True)
    benchmark.write_class_folders(pairs, ["cat", "dog"], tmp_path / "train")
    assert [str(file.relative_to(tmp_path)) for file in sorted(tmp_path.rglob("*.png"))] == [
        "train/cat/00001.png",
        "train/dog/00000.png",
        "train/dog/00002.png",
    ]
    assert (read_image(tmp_path / "train" / "dog" / "00002.png") == 30).all()


def test_full_setting_needs_data(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--full"])
    assert "give --data" in capsys.readouterr().err
