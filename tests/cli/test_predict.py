"""densevision predict, called as the command is."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from datamodules.cityscapes import CITYSCAPES
from densevision.cli import run
from densevision.cli.predict import output_names
from densevision.inference import load
from densevision.io import read_image, read_label, write_png
from tests.checkpoints import write_checkpoint
from tests.trees import write_cityscapes_tree


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.ckpt")


def picture(path, seed=0):
    write_png(path, np.random.default_rng(seed).integers(0, 256, (40, 50, 3)).astype(np.uint8))
    return path


def predict(*arguments):
    return run("predict", [*map(str, arguments), "--device", "cpu"])


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_becomes_overlays_and_label_ids(checkpoint, tmp_path, capsys):
    files = [picture(tmp_path / "in" / f"{stem}.png", seed) for seed, stem in enumerate(("a", "b"))]
    assert predict(checkpoint, tmp_path / "in", "--output", tmp_path / "out" / "new") == 0
    assert names_in(tmp_path / "out" / "new") == ["a.png", "a_labelIds.png", "b.png", "b_labelIds.png"]
    for file in files:
        result = load(checkpoint).predict(file)
        ids = read_label(tmp_path / "out" / "new" / f"{file.stem}_labelIds.png")
        np.testing.assert_array_equal(ids, np.array(CITYSCAPES.ids)[result.class_map])
        np.testing.assert_array_equal(read_image(tmp_path / "out" / "new" / file.name), result.overlay())
    said = capsys.readouterr().out
    assert "2 of 2 pictures predicted" in said
    assert f"{files[1]}: {result.summary}" in said


def test_a_bad_file_is_reported_and_the_rest_goes_on(checkpoint, tmp_path, capsys):
    picture(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "a [bold]bad one.jpg").write_text("<html>not found</html>")
    assert predict(checkpoint, tmp_path / "in", "--output", tmp_path / "out") == 1
    assert names_in(tmp_path / "out") == ["good.png", "good_labelIds.png"]
    said = capsys.readouterr()
    assert "a [bold]bad one.jpg is not an image" in said.err
    assert "Traceback" not in said.err
    assert "1 of 2 pictures predicted" in said.out


def test_equal_stems_do_not_overwrite_each_other(checkpoint, tmp_path, capsys):
    first, second = picture(tmp_path / "one" / "x.png", 1), picture(tmp_path / "two" / "x.png", 2)
    assert predict(checkpoint, first, second, first, "--output", tmp_path / "out") == 0
    assert names_in(tmp_path / "out") == ["x.png", "x_2.png", "x_2_labelIds.png", "x_labelIds.png"]
    said = capsys.readouterr()
    assert f"{second} is in x_2.png" in said.err
    assert "2 of 2" in said.out, "the same file named twice is one picture"


def test_output_names_never_write_the_same_file(tmp_path):
    stems = ["x", "X", "x", "x_2", "x_labelIds", "y_labelIds", "y", "ä b"]
    names = output_names([tmp_path / f"{stem}.jpg" for stem in stems])
    written = [file.casefold() for name in names for file in (name, f"{name}_labelIds")]
    assert len(set(written)) == len(written)
    assert names[0] == "x"
    assert names[-1] == "ä b"


def test_inputs_are_not_overwritten(checkpoint, tmp_path, capsys):
    file = picture(tmp_path / "a.png")
    before = file.read_bytes()
    assert predict(checkpoint, tmp_path, "--output", tmp_path) == 1
    assert "would be overwritten" in capsys.readouterr().err
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere.png"], "nowhere.png does not exist"),
        (["empty"], "holds no pictures"),
        (["a.png", "--output", "a.png"], "cannot be made"),
    ],
    ids=["no file", "no pictures", "output is a file"],
)
def test_mistakes_are_sentences(checkpoint, tmp_path, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "a.png")
    output = [] if "--output" in arguments else ["--output", "out"]
    assert predict(checkpoint, *arguments, *output) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert sentence in said
    assert len(said.splitlines()) == 1


def test_every_nasty_picture_is_predicted_or_reported(checkpoint, tmp_path, capsys, test_data):
    cases = {c["path"]: c["expect"] for c in json.loads((test_data / "nasty" / "cases.json").read_text())}
    expected = {name.removeprefix("images/"): expect for name, expect in cases.items() if name.startswith("images/")}
    shutil.copytree(test_data / "nasty" / "images", tmp_path / "in")
    assert predict(checkpoint, tmp_path / "in", "--output", tmp_path / "out") == 1
    said = capsys.readouterr()
    for file in (tmp_path / "in").iterdir():
        ids = tmp_path / "out" / f"{file.stem}_labelIds.png"
        assert ids.exists() == (expected[file.name] == "ok"), file.name
        assert (tmp_path / "out" / f"{file.stem}.png").exists() == ids.exists()
        if ids.exists():
            assert read_label(ids).shape == read_image(file).shape[:2]
        assert (str(file) in said.err) != ids.exists(), "what failed is named, and nothing else is"
    assert "Traceback" not in said.err
    assert "1 of them carry an EXIF orientation" in said.out


def test_label_ids_are_those_that_evaluate_saves(checkpoint, tmp_path):
    pictures = write_cityscapes_tree(tmp_path / "data", "val", size=(40, 72))
    saved = tmp_path / "evaluated"
    options = [f"data.root={tmp_path / 'data'}", "data.num_workers=0", "trainer.accelerator=cpu"]
    assert run("evaluate", [str(checkpoint), *options, "--save-predictions", str(saved)]) == 0
    assert predict(checkpoint, *pictures, "--output", tmp_path / "out") == 0
    evaluated = sorted(saved.rglob("*.png"))
    predicted = sorted((tmp_path / "out").glob("*_labelIds.png"))
    assert len(evaluated) == len(predicted) == len(pictures)
    for one, other in zip(evaluated, predicted, strict=True):
        np.testing.assert_array_equal(read_label(one), read_label(other))


def test_help_is_quick():
    """It answers without the libraries whose import takes seconds."""
    script = (
        "import sys\n"
        "from densevision.cli import run\n"
        "try: run('predict', ['--help'])\n"
        "except SystemExit: assert not {'torch', 'numpy', 'rich'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "IMAGE|FOLDER" in done.stdout
