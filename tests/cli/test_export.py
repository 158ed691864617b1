"""densevision export and benchmark, called as the commands are, and the model card's own words."""

import json
import re

import pytest

from densevision.cli import run
from densevision.io import write_png
from tests.exports import SIZE, picture, write_small_checkpoint


@pytest.fixture
def pictures(tmp_path):
    for seed in range(2):
        write_png(tmp_path / "pictures" / f"{seed}.png", picture(seed=seed))
    return tmp_path / "pictures"


def export(tmp_path, *words, head="lraspp", format_name="torch_export", output="model.pt2"):
    checkpoint = write_small_checkpoint(tmp_path / "best.ckpt", "mobilenet_v1", head)
    return run("export", [str(checkpoint), "--format", format_name, "--output", str(tmp_path / output), *words])


@pytest.mark.parametrize("head", ["lraspp", "ssdlite", "classifier"])
def test_the_card_beside_a_file_says_what_it_is_and_its_code_runs(tmp_path, pictures, monkeypatch, capsys, head):
    judged = {"split": "val", "pictures": 2, "miou": 0.5, "iou": {"road": 0.75, "sky": 0.25, "tree": None}}
    (tmp_path / "out.json").write_text(json.dumps(judged))
    words = ["--pictures", str(pictures), "--metrics", str(tmp_path / "out.json")]
    assert export(tmp_path, *words, head=head) == 0
    said = capsys.readouterr().out
    assert "compared on real pictures (2)" in said
    card = (tmp_path / "model.pt2.md").read_text()
    for words in (
        "| road | 75.00 |",
        "| tree | does not occur |",
        "road, sky, tree",
        "| PyTorch |",
        f"{head} on mobile",
    ):
        assert words in card
    assert re.search(r"\| parameters \| \d", card)
    assert re.search(r"\| multiply-adds at 64x96 \| \d", card)
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 4
    monkeypatch.chdir(tmp_path)
    write_png(tmp_path / "picture.png", picture())
    exec(code.replace("picture.jpg", "picture.png"), {})
    files = {path.name for path in tmp_path.iterdir()}
    assert files & {"picture_classes.png", "picture_boxes.png"} or head == "classifier"


def test_a_card_says_at_which_size_a_dynamic_file_sees_pictures(tmp_path, pictures):
    for words, sentence in (
        (["data.image_size=[64,96]"], "Any picture will do; it is resized to 64x96 pixels."),
        (["data.image_size=null"], "Pictures are taken at their own size, if that is among those that the file takes"),
    ):
        assert export(tmp_path, *words, "--pictures", str(pictures), "--dynamic") == 0
        assert sentence in (tmp_path / "model.pt2.md").read_text()


def test_pictures_of_the_checkpoints_data_are_asked_for_where_there_are_none(tmp_path, capsys):
    assert export(tmp_path) == 1
    assert "name some with --pictures" in capsys.readouterr().err
    assert not (tmp_path / "model.pt2").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--format", "onnx", "--quantize", "int8", "--output", "x.pte"], "x.pte: a file of onnx ends in .onnx"),
        (["--format", "litert", "--dynamic", "--output", "x.tflite"], "litert files take pictures of one size"),
        (["--format", "onnx", "--output", "x.onnx", "model.backbone.width_mult=0.5"], "was trained with 0.35"),
        (["--format", "onnx", "--output", "x.onnx", "quantize.mode=qat"], "only training changes that"),
    ],
)
def test_what_cannot_be_is_said_before_any_picture_is_read(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    checkpoint = write_small_checkpoint(tmp_path / "best.ckpt", "mobilenet_v1", "lraspp")
    assert run("export", [str(checkpoint), *words]) == 1
    assert sentence in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


def test_metrics_of_another_kind_are_refused(tmp_path, pictures, capsys):
    (tmp_path / "out.json").write_text("[1]")
    assert export(tmp_path, "--pictures", str(pictures), "--metrics", str(tmp_path / "out.json")) == 1
    assert "not what evaluate --json writes" in capsys.readouterr().err


def test_benchmark_of_a_checkpoint_a_configuration_and_a_file(tmp_path, pictures, capsys):
    assert export(tmp_path, "--pictures", str(pictures), "--image-size", "64", "64") == 0
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "task: classification\nmodel: {backbone: {name: mobilenet_v1, width_mult: 0.25}, head: {name: classifier}}\n"
        "data: {name: folders, image_size: [64, 64]}\n"
    )
    words = [str(config), str(tmp_path / "best.ckpt"), str(tmp_path / "model.pt2"), "--num-classes", "3"]
    runtimes = ["--runtime", "pytorch", "pytorch_optimized", "torch_export"]
    json_file = tmp_path / "new" / "figures.json"
    options = ["--calls", "2", "--no-memory", "--image-size", "64", "64", "--json", str(json_file)]
    capsys.readouterr()
    assert run("benchmark", [*words, *runtimes, *options]) == 0
    assert "pictures/s" in capsys.readouterr().out
    written = json.loads(json_file.read_text())
    assert written["threads"] == 1
    rows = written["rows"]
    assert [row["runtime"] for row in rows] == [*runtimes[1:], *runtimes[1:], "torch_export"]
    assert all(row["ms"] > 0 and row["spread"] >= 0 and row["passes"] == 3 for row in rows)
    assert rows[2]["difference"] < 1e-4
    assert rows[-1]["file_size"] == (tmp_path / "model.pt2").stat().st_size


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere.onnx"], "nowhere.onnx does not exist"),
        (["lraspp_v3_cityscapes", "--runtime", "onyx"], "did you mean 'onnx'"),
        (["lraspp_v3_cityscape"], "did you mean 'lraspp_v3_cityscapes'"),
    ],
)
def test_what_cannot_be_measured_is_explained(words, sentence, capsys):
    assert run("benchmark", words) == 1
    assert sentence in capsys.readouterr().err


def test_a_file_of_another_size_is_explained(tmp_path, pictures, capsys):
    assert export(tmp_path, "--pictures", str(pictures)) == 0
    assert run("benchmark", [str(tmp_path / "model.pt2"), "--image-size", "64", "64"]) == 1
    assert "does not take pictures of 64x64" in capsys.readouterr().err
    assert SIZE != (64, 64)
