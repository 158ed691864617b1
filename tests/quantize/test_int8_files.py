"""int8 and half precision as files, and training for int8: by the commands, on small networks."""

import json

import numpy as np
import pytest
import torch

import densevision
from densevision.cli import main
from densevision.complexity import measure
from densevision.errors import UserError
from densevision.export import FORMATS, Tolerance, export_model, open_file, optimised
from densevision.quantize import int8
from tests.checkpoints import SMALL, write_checkpoint
from tests.exports import LABELS, SIZE, picture, small_network
from tests.trees import write_cityscapes_tree

TRAINING = (
    "data.num_workers=0", "data.crop_size=[32,64]", "data.batch_size=2", "optim.name=adamw", "optim.lr=0.003",
    "optim.schedule=constant", "model.backbone.norm.momentum=0.1", "model.head.norm.momentum=0.1",
    "trainer.log_every=1", "trainer.val_every=2", "wandb.mode=disabled",
)  # fmt: skip


def tensor(seed):
    return torch.from_numpy(picture(*SIZE, seed=seed).transpose(2, 0, 1)[None].copy())


@pytest.mark.parametrize(
    ("format_name", "backbone", "head"),
    [
        ("onnx", "mobilenet_v3_small", "lraspp"),
        ("onnx", "mobilenet_v2", "ssdlite"),
        pytest.param("executorch", "mobilenet_v3_small", "lraspp", marks=pytest.mark.slow),
        ("executorch", "mobilenet_v1", "ssdlite"),
    ],
)
def test_a_runtime_computes_in_int8_what_pytorch_rounds(tmp_path, format_name, backbone, head):
    plain, config = small_network(backbone, head)
    network = int8(plain, [tensor(seed) for seed in range(2)])
    file = tmp_path / f"model{FORMATS[format_name].suffix}"
    # an untrained network makes much of a tie that falls the other way; the mean is held below
    loose = Tolerance(difference=1.0, share=0.0)
    exported = export_model(
        network, config, LABELS, file, format_name, [picture()], SIZE, precision="int8", tolerance=loose
    )
    madds = measure(optimised(plain), SIZE).conv_madds
    assert 0.95 <= FORMATS[format_name].int8_madds(file) / madds <= 1
    assert open_file(file).metadata.precision == "int8"
    weights = sum(parameter.numel() for parameter in optimised(plain).parameters())
    assert exported.size < 2.5 * weights + 200_000, "a byte a weight, and the graph"
    with torch.no_grad():
        expected = network(tensor(3))
    expected = expected if isinstance(expected, dict) else {"logits": expected}
    for name, found in open_file(file)(tensor(3).numpy()).items():
        value = expected[name].numpy()
        assert np.abs(found - value).mean() < 0.05 * (value.max() - value.min())
    assert densevision.load(file).predict(picture()).label_map == LABELS


@pytest.mark.parametrize("format_name", ["onnx", "openvino"])
def test_half_precision_is_half_the_size_and_nearly_the_same(tmp_path, format_name):
    model, config = small_network("mobilenet_v3_small", "lraspp")
    sizes = []
    for precision in (None, "fp16"):
        file = tmp_path / f"{precision}{FORMATS[format_name].suffix}"
        exported = export_model(model, config, LABELS, file, format_name, [picture()], SIZE, precision=precision)
        sizes.append(exported.size)
        assert open_file(file).metadata.precision == precision
    weights = sum(parameter.numel() for parameter in optimised(model).parameters())
    assert sizes[0] - sizes[1] > 1.4 * weights
    assert exported.agreement.difference < 5e-3


@pytest.mark.parametrize(
    ("format_name", "precision", "sentence"),
    [
        ("openvino", "int8", "openvino files in int8 are not supported; onnx and executorch files are"),
        ("litert", "int8", "onnx and executorch files are"),
        ("torch_export", "fp16", "onnx and openvino files are"),
    ],
)
def test_a_format_without_a_precision_says_which_have_it(tmp_path, format_name, precision, sentence):
    model, config = small_network("mobilenet_v1", "classifier")
    file = tmp_path / f"x{FORMATS[format_name].suffix}"
    with pytest.raises(UserError, match=sentence):
        export_model(model, config, LABELS, file, format_name, [picture()], SIZE, precision=precision)


@pytest.fixture
def street(tmp_path):
    for split, city in (("train", "aachen"), ("val", "munster")):
        write_cityscapes_tree(tmp_path / "cityscapes", split, [city], count=4)
    return tmp_path / "cityscapes"


def train(street, run, *words):
    return main(
        ["train", "lraspp_v3_cityscapes", *SMALL, *TRAINING, f"data.root={street}", f"output_dir={run}", *words]
    )


def weights(run, name="last"):
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def test_training_for_int8_learns_and_its_file_is_what_was_trained(tmp_path, street, capsys):
    assert train(street, tmp_path / "float", "trainer.max_steps=30", "trainer.bn_recalibration=2") == 0
    words = [f"model.pretrained={tmp_path / 'float' / 'checkpoints' / 'last.ckpt'}", "quantize.mode=qat"]
    words += ["trainer.max_steps=8", "optim.ema_decay=0.9"]
    assert train(street, tmp_path / "qat", *words) == 0
    lines = [json.loads(line) for line in (tmp_path / "qat" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    begun = weights(tmp_path / "float")["model.backbone.stem.norm.running_mean"]
    assert torch.equal(weights(tmp_path / "qat")["model.backbone.stem.norm.running_mean"], begun)
    scales = [name for name in weights(tmp_path / "qat") if name.endswith("log_scale")]
    assert len(scales) > 50

    command = ["export", str(tmp_path / "qat" / "checkpoints" / "last.ckpt"), "--format", "onnx"]
    figures = tmp_path / "figures.json"
    capsys.readouterr()
    assert main([*command, "--output", str(tmp_path / "x.onnx"), "--json", str(figures), "--postprocess"]) == 0
    assert "int8, trained for it: mIoU" in capsys.readouterr().out
    report = json.loads(figures.read_text())["precision"]
    assert report["int8_share"] >= 0.95
    assert report["after"] == pytest.approx(report["before"], abs=0.03)
    card = (tmp_path / "x.onnx.md").read_text()
    assert "## Precision" in card
    assert "of the multiply-adds are computed in int8" in card
    assert f"| miou | {100 * report['before']:.2f} |" in card, "judged anyway, so said, by class too"
    assert "| sidewalk |" in card
    assert "compared with its rounded network in PyTorch" in card

    assert main([*command[:2], "--format", "litert", "--output", str(tmp_path / "x.tflite")]) == 1
    assert "litert files in int8 are not supported" in capsys.readouterr().err


def test_training_for_int8_goes_on_where_it_was(tmp_path, street):
    checkpoint = write_checkpoint(tmp_path / "float.ckpt", ["model.preprocess=half"])
    words = [f"model.pretrained={checkpoint}", "quantize.mode=qat"]
    assert train(street, tmp_path / "whole", *words, "trainer.max_steps=4") == 0
    for steps in (2, 4):
        assert train(street, tmp_path / "parts", *words, f"trainer.max_steps={steps}") == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_before_and_after_see_the_pictures_alike(tmp_path, street, capsys):
    """The checkpoint too is judged at the file's size, once and whole: what is lost is then lost by rounding."""
    seen = [f"data.root={street}", "data.num_workers=0", "evaluation.flip=true", "evaluation.scales=[0.5,1.0]"]
    checkpoint = write_checkpoint(tmp_path / "x.ckpt", seen)
    figures = tmp_path / "figures.json"
    command = ["export", str(checkpoint), "--format", "onnx", "--quantize", "fp16", "--image-size", "32", "64"]
    assert main([*command, "--output", str(tmp_path / "x.onnx"), "--json", str(figures)]) == 0
    report = json.loads(figures.read_text())["precision"]
    plain = ["evaluation.flip=false", "evaluation.scales=[1.0]"]
    judged = {}
    for name, words in (("as file", [*plain, "data.image_size=[32,64]"]), ("as it was", [])):
        assert main(["evaluate", str(checkpoint), *words, "--json", str(tmp_path / "out.json")]) == 0
        judged[name] = json.loads((tmp_path / "out.json").read_text())["miou"]
    assert report["before"] == judged["as file"] != judged["as it was"]
    assert report["after"] == pytest.approx(report["before"], abs=2e-3)


def test_a_card_has_what_the_run_said_of_these_very_weights(tmp_path, street, capsys):
    checkpoints = tmp_path / "run" / "checkpoints"
    assert train(street, tmp_path / "run", "trainer.max_steps=4", "trainer.checkpoint_every=1") == 0
    assert main(["evaluate", str(checkpoints / "last.ckpt"), "--json", str(tmp_path / "out.json")]) == 0
    judged = json.loads((tmp_path / "out.json").read_text())
    cards = {}
    for name in ("last", "previous"):  # of steps 4 and 3; evaluated at 2 and 4
        file = tmp_path / f"{name}.pt2"
        assert (
            main(["export", str(checkpoints / f"{name}.ckpt"), "--format", "torch_export", "--output", str(file)]) == 0
        )
        cards[name] = (tmp_path / f"{name}.pt2.md").read_text()
    assert "On the split `val` (4 pictures)" in cards["last"]
    assert f"| miou | {100 * judged['miou']:.2f} |" in cards["last"]
    assert "| sidewalk |" in cards["last"]
    assert "Not measured; `densevision evaluate" in cards["previous"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["quantize.mode=qat"], "model.pretrained"),
        (["quantize.mode=qat", "model.pretrained=x.ckpt", "trainer.bn_recalibration=4"], "trainer.bn_recalibration=0"),
        (["quantize.mode=qta"], "did you mean 'qat'"),
    ],
)
def test_what_training_for_int8_needs_is_said(tmp_path, street, capsys, words, sentence):
    assert train(street, tmp_path / "run", *words, "trainer.max_steps=1") == 1
    assert sentence in capsys.readouterr().err


def test_a_file_is_judged_like_its_checkpoint(tmp_path, street, capsys):
    checkpoint = write_checkpoint(
        tmp_path / "x.ckpt", [f"data.root={street}", "data.num_workers=0", "data.image_size=[32,64]"]
    )
    file = tmp_path / "x.pt2"
    command = ["export", str(checkpoint), "--format", "torch_export", "--output"]
    assert main([*command, str(file)]) == 0
    figures = []
    for path in (checkpoint, file):
        assert main(["evaluate", str(path), "--json", str(tmp_path / "out.json")]) == 0
        figures.append(json.loads((tmp_path / "out.json").read_text()))
    assert figures[0]["miou"] == pytest.approx(figures[1]["miou"], abs=1e-3)
    finished = tmp_path / "finished.pt2"
    assert (
        main(["export", str(checkpoint), "--format", "torch_export", "--output", str(finished), "--postprocess"]) == 0
    )
    assert main(["evaluate", str(finished)]) == 1
    assert "finished results" in capsys.readouterr().err
