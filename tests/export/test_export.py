"""Exported files compute what the checkpoint does, say what they are, and are not there if they do not."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import densevision
from densevision.cli import run
from densevision.detection.anchors import AnchorCache
from densevision.detection.postprocess import Detections
from densevision.errors import UserError
from densevision.export import FORMATS, Deployed, Tolerance, export_model, open_file, optimised
from densevision.export.agreement import _missed
from densevision.export.runtimes import Onnx
from densevision.inference import ExportedPredictor
from densevision.io import write_png
from tests.exports import LABELS, SIZE, picture, small_network, write_small_checkpoint

# a network of every task, and of both kinds of outputs
NETWORKS = {
    "segmenter": ("mobilenet_v3_small", "lraspp", True),
    "detector": ("mobilenet_v1", "ssdlite", False),
    "classifier": ("mobilenet_v2", "classifier", False),
}
# those that convert in seconds
QUICK = ("torch_export", "onnx", "openvino")


def export(folder, format_name, backbone, head, name="model", size=SIZE, **options):
    model, config = small_network(backbone, head)
    pictures = [picture(seed=seed) for seed in range(2)]
    output = folder / f"{name}{FORMATS[format_name].suffix}"
    return export_model(model, config, LABELS, output, format_name, pictures, size, **options)


def assert_same_result(found, expected):
    assert type(found) is type(expected)
    if hasattr(expected, "class_map"):
        assert (found.class_map == expected.class_map).mean() > 0.999
    elif hasattr(expected, "boxes"):
        assert len(expected.boxes) > 3, "the network should find enough to be a test"
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.05)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    else:
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
    assert found.label_map == expected.label_map


def assert_damage_is_told(exported):
    """Cut short, none is opened; a runtime that died over it would end the tests."""
    short = exported.path.with_name(f"short{exported.path.suffix}")
    short.write_bytes(exported.path.read_bytes()[: exported.path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"short.* is (no whole|damaged)"):
        densevision.load(short)
    short.unlink()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("format_name", FORMATS)
def test_a_file_predicts_what_its_checkpoint_does(tmp_path, format_name, network):
    backbone, head, finished = NETWORKS[network]
    exported = export(tmp_path, format_name, backbone, head, finished=finished)
    assert exported.agreement.pictures == 2
    assert exported.agreement.share >= 0.999
    assert (exported.agreement.difference is None) is finished
    assert sorted(exported.files) == sorted(tmp_path.iterdir())
    predictor = densevision.load(exported.path)
    assert isinstance(predictor, ExportedPredictor)
    assert predictor.runtime.metadata.to_json() == exported.metadata.to_json()
    assert predictor.label_map.names == ("road", "sky", "tree")
    assert exported.metadata.image_size == SIZE
    assert_damage_is_told(exported)
    checkpoint = densevision.load(write_small_checkpoint(tmp_path / "best.ckpt", backbone, head))
    if finished:  # the checkpoint resizes its logits to the picture, the file its classes: compare where these agree
        assert_same_result(predictor.predict(picture(*SIZE)), checkpoint.predict(picture(*SIZE)))
    else:
        assert_same_result(predictor.predict(picture()), checkpoint.predict(picture()))


@pytest.mark.parametrize("format_name", ["executorch", "litert"])
def test_a_process_of_its_own_writes_raspp(tmp_path, format_name):
    """Nothing that another test has imported helps, and the pooled branch is laid out as the format can hold it."""
    checkpoint = write_small_checkpoint(tmp_path / "best.ckpt", "mobilenet_v3_small", "raspp")
    write_png(tmp_path / "photo.png", picture())
    output = tmp_path / f"model{FORMATS[format_name].suffix}"
    words = ["--format", format_name, "--pictures", str(tmp_path / "photo.png"), "--output", str(output)]
    command = [sys.executable, "-m", "densevision", "export", str(checkpoint), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert output.exists()


@pytest.mark.parametrize("head", ["ssdlite", "classifier"])
def test_detections_and_probabilities_in_the_file(tmp_path, head):
    exported = export(tmp_path, "onnx", "mobilenet_v1", head, finished=True)
    checkpoint = densevision.load(write_small_checkpoint(tmp_path / "best.ckpt", "mobilenet_v1", head))
    assert_same_result(densevision.load(exported.path).predict(picture()), checkpoint.predict(picture()))


def test_a_finished_detector_says_what_it_misses(tmp_path):
    few = export(tmp_path, "torch_export", "mobilenet_v1", "ssdlite", finished=True, candidates=8).agreement
    assert (few.share, few.detections) == (1.0, 40), "the file computes what it should, which is not all"
    assert 24 <= len(few.missed) < 40
    assert 0.011 < few.missed[0] < 1
    assert f"{len(few.missed)} of the 40 detections" in few.lost()
    every = export(tmp_path, "torch_export", "mobilenet_v1", "ssdlite", finished=True, candidates=5000)
    assert (every.agreement.missed, every.agreement.lost()) == ((), None)


def test_of_two_boxes_with_one_score_either_is_no_miss():
    """int8 has many equal scores, and two runtimes keep another of two that tie."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]])
    every = Detections(boxes[[0, 2]], torch.tensor([0.5, 0.25]), torch.zeros(2, dtype=torch.long))
    meant = {"boxes": boxes[None, 1:2], "scores": torch.tensor([[0.5]]), "labels": torch.zeros(1, 1, dtype=torch.long)}
    assert _missed(every, {**meant, "count": torch.tensor([1])}, Tolerance()) == [0.25]


def test_views_of_segmentation_are_refused_for_others(tmp_path):
    checkpoint = write_small_checkpoint(tmp_path / "x.ckpt", "mobilenet_v1", "ssdlite")
    with pytest.raises(UserError, match=r"x.ckpt \(detection\) sees a picture once and whole; evaluation.flip=true"):
        densevision.load(checkpoint, overrides=["evaluation.flip=true"])


@pytest.mark.parametrize("format_name", QUICK)
def test_a_dynamic_file_takes_the_sizes_it_names_and_no_others(tmp_path, format_name):
    exported = export(tmp_path, format_name, "mobilenet_v3_small", "lraspp", dynamic=True)
    (low, high), _ = exported.metadata.sizes
    assert low <= 64
    assert 200 <= high < 1000, "the pooling window is 769 pixels: larger pictures are pooled otherwise"
    runtime = open_file(exported.path)
    model, _ = small_network("mobilenet_v3_small", "lraspp")
    for size in ((64, 96), (130, 201)):
        images = picture(*size).transpose(2, 0, 1)[None]
        with torch.no_grad():
            expected = model(torch.from_numpy(images.copy()))
        np.testing.assert_allclose(runtime(np.ascontiguousarray(images))["logits"], expected, rtol=1e-4, atol=1e-4)
    predictor = densevision.load(exported.path)
    predictor.config.data.image_size = None
    assert predictor.predict(picture(130, 201)).class_map.shape == (130, 201)
    with pytest.raises(UserError, match=r"takes pictures of .* pixels, not 2000x100"):
        predictor.predict(np.zeros((2000, 100, 3), np.uint8))


def test_a_file_that_disagrees_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"model.pt2 was not written: its outputs differ by .*, at most 0e\+00"):
        export(tmp_path, "torch_export", "mobilenet_v1", "classifier", tolerance=Tolerance(difference=0))
    with pytest.raises(UserError, match=r"100\.000% of its results agree"):
        export(tmp_path, "torch_export", "mobilenet_v1", "classifier", tolerance=Tolerance(share=1.1))
    assert list(tmp_path.iterdir()) == []


def test_an_export_does_not_touch_the_earlier_file_if_it_fails(tmp_path):
    exported = export(tmp_path, "torch_export", "mobilenet_v1", "classifier")
    before = exported.path.read_bytes()
    with pytest.raises(UserError, match="was not written"):
        export(tmp_path, "torch_export", "mobilenet_v1", "classifier", tolerance=Tolerance(difference=0))
    assert exported.path.read_bytes() == before


def test_what_describes_a_file_comes_with_it_or_neither_does(tmp_path):
    def describe(draft):
        assert not (tmp_path / "model.pt2").exists()
        densevision.load(draft.path)
        draft.path.with_name("model.pt2.md").write_text("a card")

    def interrupted(draft):
        describe(draft)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tmp_path, "torch_export", "mobilenet_v1", "classifier", complete=interrupted)
    assert list(tmp_path.iterdir()) == []
    exported = export(tmp_path, "torch_export", "mobilenet_v1", "classifier", complete=describe)
    assert exported.files == (tmp_path / "model.pt2",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt2", "model.pt2.md"]


REFUSED = {
    "an unknown format": (dict(format_name="onyx"), "unknown format 'onyx'; did you mean 'onnx'"),
    "another suffix": (dict(format_name="onnx", output="x.xml"), "a file of onnx ends in .onnx"),
    "sizes that a format has not": (dict(format_name="litert", dynamic=True), "litert files take pictures of one size"),
    "anchors of any size": (
        dict(format_name="onnx", head="ssdlite", dynamic=True, finished=True),
        "anchors, which are for pictures of one size",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_at_once(tmp_path, case):
    options, sentence = REFUSED[case]
    options = {"output": f"x{FORMATS.get(options['format_name'], Onnx).suffix}", "head": "lraspp", **options}
    model, config = small_network("mobilenet_v1", options.pop("head"))
    output = tmp_path / options.pop("output")
    with pytest.raises(UserError, match=sentence):
        export_model(model, config, LABELS, output, pictures=[], image_size=SIZE, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "torch_export"])
def test_a_missing_package_is_named_with_the_extra_that_installs_it(tmp_path, monkeypatch, name):
    real = importlib.util.find_spec
    missing = FORMATS[name].packages[0]
    monkeypatch.setattr(
        "densevision.export.formats.find_spec", lambda package: None if package == missing else real(package)
    )
    with pytest.raises(UserError, match=rf"{name} needs .*{missing}.*pip install 'densevision\[{name}\]'"):
        export(tmp_path, name, "mobilenet_v1", "classifier")


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_explained(tmp_path, name):
    file = tmp_path / f"x{FORMATS[name].suffix}"
    file.write_bytes(os.urandom(200))
    with pytest.raises(UserError, match=rf"x\{file.suffix} is (no whole {name} file|damaged)"):
        densevision.load(file)
    with pytest.raises(UserError, match="does not exist"):
        densevision.load(tmp_path / f"gone{file.suffix}")


def test_a_foreign_file_is_explained(tmp_path):
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "foreign.pt2")
    with pytest.raises(UserError, match=r"foreign\.pt2 is damaged, or was not exported by densevision"):
        densevision.load(tmp_path / "foreign.pt2")


def test_an_exported_file_runs_on_the_cpu_alone(tmp_path):
    with pytest.raises(UserError, match="exported file, which runs on the CPU"):
        densevision.load(tmp_path / "x.onnx", "meta")


@pytest.mark.parametrize("head", ["lraspp", "raspp", "ssdlite", "classifier"])
def test_an_optimised_network_gives_the_same_without_normalisation(head):
    model, _ = small_network("mobilenet_v3_small", head)
    quick = optimised(model)
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()), "the model itself stays"
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    images = torch.from_numpy(picture(*SIZE).transpose(2, 0, 1)[None].copy())
    with torch.no_grad():
        expected, found = model(images), quick(images)
    for name in expected if isinstance(expected, dict) else [slice(None)]:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", ["lraspp", "ssdlite", "classifier"])
def test_load_optimised_predicts_the_same(tmp_path, head):
    file = write_small_checkpoint(tmp_path / "best.ckpt", "mobilenet_v3_small", head)
    quick = densevision.load(file, optimize=True)
    assert next(quick.model.backbone.stem.parameters()).is_contiguous(memory_format=torch.channels_last)
    assert_same_result(quick.predict(picture()), densevision.load(file).predict(picture()))


def test_a_deployed_detector_knows_its_anchors():
    model, _ = small_network("mobilenet_v1", "ssdlite")
    deployed = Deployed(model, SIZE, None, finished=False)
    assert torch.equal(deployed.anchors, model.anchors(SIZE))
    assert isinstance(model.anchor_cache, AnchorCache)


def test_predict_takes_an_exported_file(tmp_path, capsys):
    exported = export(tmp_path, "torch_export", "mobilenet_v1", "classifier")
    write_png(tmp_path / "in" / "a.png", picture())
    assert run("predict", [str(exported.path), str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "a.json").is_file()
