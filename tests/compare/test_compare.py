"""Runs side by side: figures by hand, and what is told of broken runs."""

import itertools
import json
import re

import cv2
import numpy as np
import pytest

from densevision.backbones import BACKBONES, architecture_to_dict
from densevision.cli import main
from densevision.compare.find import find_runs
from densevision.compare.groups import Spread, apart, compare, pareto
from densevision.compare.svg import scatter
from densevision.compare.tables import results
from tests.compare.conftest import write_run
from tests.trees import write_cityscapes_tree, write_coco_tree
from tests.wandb_runs import written


def compared(*words, group_by=()):
    return compare(find_runs([str(word) for word in words])[0], group_by)


def test_seeds_are_a_group_and_the_figures_are_those_by_hand(runs):
    comparison = compared(runs)
    assert [group.label for group in comparison.groups] == ["v2", "v3"]
    assert comparison.differing == {"model.backbone.name": ("v2", "v3")}
    first, second = comparison.groups
    assert first.spread(lambda run: run.best).mean == pytest.approx(0.52)
    assert first.spread(lambda run: run.best).deviation == pytest.approx(0.02)
    assert first.spread(lambda run: run.last).mean == pytest.approx(0.51)
    assert second.spread(lambda run: run.per_class["car"]).mean == pytest.approx(0.22)
    assert (comparison.measured, first.madds) == (None, 1e9)
    assert first.runs[0].images_per_second == 100  # not the first line, which holds what is done once
    assert first.runs[0].curve("val/miou") == [(40, 0.3), (80, 0.5), (120, 0.49)]
    assert comparison.remarks == ()


def test_a_key_to_group_by_may_mix_others_which_is_said(runs):
    write_run(runs / "c", [0.6], seed=3, optim__lr=0.2)
    comparison = compared(runs, group_by=["model.backbone.name"])
    assert [len(group.runs) for group in comparison.groups] == [4, 3]
    assert any("v2 mixes values of optim.lr" in remark for remark in comparison.remarks)
    assert comparison.differing["optim.lr"] == ("several (0.1, 0.2)", "0.1")


def test_a_key_that_older_code_did_not_have_is_no_difference(runs):
    write_run(runs / "a_seed3", [0.6], seed=3, optim__new=None)
    assert [len(group.runs) for group in compared(runs).groups] == [4, 3]


def test_a_networks_own_table_is_told_apart_in_a_few_words(tmp_path):
    for name, width in (("a", 8), ("b", 16)):
        table = architecture_to_dict(BACKBONES["mobilenet_v2"](width_mult=width / 32))
        write_run(tmp_path / name, [0.5], model__backbone={"name": "v2", "arch": table})
    found = [run.config for run in find_runs([str(tmp_path)])[0]]
    said = [config["model.backbone.arch"] for config in found]
    assert said[0] != said[1]
    assert all(re.fullmatch(r"mobilenet_v2, 17 blocks, table [0-9a-f]{8}", text) for text in said)
    assert not [key for key in found[0] if key.startswith("model.backbone.arch.")]


def test_what_limits_a_comparison_is_said(runs):
    origin = json.loads((runs / "b_seed0" / "origin.json").read_text())
    origin["data"]["val"]["fingerprint"] = "other"
    (runs / "b_seed0" / "origin.json").write_text(json.dumps(origin))
    (runs / "b_seed1" / "summary.json").unlink()
    for seed, score in enumerate((0.51, 0.6)):
        write_run(runs / f"c_seed{seed}", [score], seed, optim__lr=0.2)
    remarks = " ".join(compared(runs).remarks)
    assert "The validation pictures differ" in remarks
    assert "Not finished: b_seed1" in remarks
    assert "v2, lr 0.2 has the best mean, but runs of v2, lr 0.1 reach into its" in remarks
    assert [len(group.judged) for group in compared(runs).groups] == [3, 2, 2]


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1, 1), (2, 2), (3, 3)], [0, 1, 2]),
        ([(1, 3), (2, 2), (3, 4)], [0, 2]),
        ([(1, 1), (1, 2), (2, 2)], [1]),
        ([], []),
    ],
)
def test_pareto_front(points, front):
    assert pareto(points) == front


def test_a_difference_is_marked_where_no_run_of_one_reaches_the_other():
    assert apart(Spread((1.0, 2.0)), Spread((3.0, 4.0)))
    assert not apart(Spread((1.0, 3.5)), Spread((3.0, 4.0)))
    assert not apart(Spread((1.0,)), Spread((3.0, 4.0)))  # one value knows nothing of its spread


def test_broken_runs_are_told_and_the_others_compared(runs, tmp_path, capsys):
    (runs / "a_seed0" / "config.yaml").write_text("a: [")
    (runs / "a_seed1" / "origin.json").write_text("{")
    with (runs / "a_seed2" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 40, "val/mi')
    (runs / "b_seed0" / "metrics.jsonl").unlink()
    (runs / "b_seed1" / "pictures" / "latest" / "00_truth.jpg").unlink()
    for number, spoilt in enumerate(('{"steps": null}', '"x"')):
        (runs / f"b_seed{number}" / "summary.json").write_text(spoilt)
    (runs / "b_seed2" / "origin.json").write_text('{"model": null, "data": [], "classes": {"names": null}}')
    (runs / "b_seed2" / "latency.json").write_text('{"milliseconds": 3}')
    row = {"name": "x.ckpt", "runtime": "onnx", "image_size": [64, 128], "ms": 3, "spread": 0.9}
    (runs / "b_seed1" / "latency.json").write_text(json.dumps({"threads": 1, "rows": [row]}))
    assert (
        main(["compare", str(runs), str(tmp_path / "nowhere" / "at" / "all"), "--html", str(tmp_path / "r.html")]) == 0
    )
    said = capsys.readouterr().err
    for sentence in (
        "config.yaml is damaged",
        "origin.json is damaged",
        "1 of 7 lines are damaged",
        "summary.json is damaged: its steps are None",
        "summary.json is damaged: it holds no keys and values",
        "latency.json is not what benchmark --json writes",
        "b_seed1/latency.json: its passes were 90% apart",
        "metrics.jsonl cannot be read",
        "nowhere/at/all",
    ):
        assert sentence in said, said
    assert "Traceback" not in said
    assert (tmp_path / "r.html").is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{runs}/nothing/x/y"], "there is no run directory"),
        (["{runs}/a_seed0/pictures"], "is no run"),
        (["{runs}/../search"], "is a search that has trained no network"),
        (["{runs}", "--group-by", "model.backbone.nmae"], "did you mean 'model.backbone.name'"),
        (["{runs}", "{runs}/../other"], "judged by different scores"),
        (["{runs}", "--html", "{runs}"], "is a folder: --html wants the name of a file"),
    ],
)
def test_mistakes_are_sentences(runs, words, sentence, capsys):
    write_run(runs.parent / "other", [0.1], monitor="map")
    (runs.parent / "search").mkdir()
    (runs.parent / "search" / "search.yaml").write_text("search: {retrain: none}\n")
    assert main(["compare", *(word.format(runs=runs) for word in words)]) == 1
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_latencies_are_read_as_the_benchmark_writes_them(runs, tmp_path, capsys, monkeypatch):
    """Of a file for several networks a run takes its own row; a group's is the mean of its runs'."""
    rows = [
        {"name": f"runs/{run}/checkpoints/best.ckpt", "runtime": runtime, "image_size": [64, 128], "ms": ms}
        for run, ms in {"a_seed0": 2.0, "a_seed1": 4.0, "b_seed0": 1.0}.items()
        for runtime in ("pytorch", "onnx")
    ]
    for run in ("a_seed0", "a_seed1", "b_seed0", "b_seed1"):
        (runs / run / "latency.json").write_text(json.dumps({"threads": 2, "rows": rows}))
    monkeypatch.chdir(tmp_path)
    comparison = compared(runs)
    assert comparison.measured == "pytorch, 64x128, 2 threads"
    assert [group.latency(comparison.measured) for group in comparison.groups] == [3.0, 1.0]
    assert main(["compare", str(runs), "--html", str(tmp_path / "r.html")]) == 0
    assert "b_seed1/latency.json has no latency of this run's network" in capsys.readouterr().err.replace("\n", "")
    assert "latency in milliseconds (pytorch, 64x128, 2 threads)" in (tmp_path / "r.html").read_text()
    write_run(runs / "c", [0.6], latency=5.0, optim__lr=0.2)  # in another way
    assert any("The latency of v2, lr 0.2 was not measured as the others'" in said for said in compared(runs).remarks)


def test_benchmark_writes_what_compare_reads(runs, capsys):
    words = ["lraspp_v3_cityscapes", "--runtime", "pytorch", "--image-size", "32", "32", "--calls", "1", "--no-memory"]
    assert main(["benchmark", *words, "--json", str(runs / "a_seed0" / "latency.json")]) == 0
    (run, *_) = find_runs([str(runs / "a_seed0")])[0]
    assert list(run.latencies) == ["pytorch, 32x32, 1 thread"]
    assert [note for note in run.notes if "its passes were" not in note] == []  # this machine may be busy


@pytest.mark.parametrize("scores", [(0.5, 0.5, 0.4), (0.5, 0.5)])
def test_all_that_tie_are_the_best_but_not_where_there_are_no_others(tmp_path, scores):
    for number, score in enumerate(scores):
        write_run(tmp_path / "runs" / str(number), [score], optim__lr=number)
    best = {row for row, column in results(compared(tmp_path / "runs")).best if column == 2}
    assert best == (set() if len(set(scores)) == 1 else {0, 1})


def test_names_of_points_do_not_print_over_each_other():
    points = [(f"a long name of group {number}", number, 1e9, 50.0, float("nan")) for number in range(6)]
    points += [("a near one", 6, 0.98e9, 50.1, 0.2), ("far", 7, 1e8, 20.0, float("nan"))]
    svg = scatter("cost", "title", "text", points, [], "x", "y")
    boxes = []
    for x, y, anchor, text in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]*)<', svg):
        if text in {point[0] for point in points}:
            width = 7 * len(text) * (1 if anchor == "start" else -1)
            left, right = sorted((float(x), float(x) + width))
            boxes.append((left, float(y) - 10, right, float(y) + 3))
    assert len(boxes) == 8
    assert all(top > 0 and bottom < 380 for _, top, _, bottom in boxes)
    for one, other in itertools.combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1], (one, other)


def test_markdown_for_a_pull_request(runs, capsys):
    write_run(runs / "c|d", [0.6], optim__lr=0.2)
    assert main(["compare", str(runs), "--markdown"]) == 0
    text = capsys.readouterr().out
    assert "**60.00**" in text
    assert "52.00 ± 2.00" in text
    assert "c\\|d" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {9, 5}


def test_a_run_directory_and_its_wandb_file_say_the_same(tmp_path):
    for split in ("train", "val"):
        write_cityscapes_tree(tmp_path / "cityscapes", split, count=4)
    words = [f"data.root={tmp_path / 'cityscapes'}", f"output_dir={tmp_path / 'run'}", "data.crop_size=[32,64]"]
    words += ["model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35", "data.batch_size=2"]
    words += ["data.num_workers=0", "trainer.log_every=1", "trainer.val_every=1", "optim.schedule=constant"]
    for steps in (1, 3):  # the second goes on where the first ended, in a second file of W&B's
        steps = f"trainer.max_steps={steps}"
        assert main(["train", "lraspp_v3_cityscapes", *words, "wandb.mode=offline", steps]) == 0
    for folder in (tmp_path / "run" / "wandb").glob("offline-run-*"):
        written(folder)
    (own,), (theirs,) = find_runs([str(tmp_path / "run")])[0], find_runs([str(tmp_path / "run" / "wandb")])[0]
    assert own.name == theirs.name == "run"
    assert own.finished
    assert theirs.finished
    assert own.origin == theirs.origin
    for key in ("train/loss", "val/miou", "val/iou/road"):
        assert [x for x, _ in own.curve(key)] == [x for x, _ in theirs.curve(key)]
        np.testing.assert_allclose([y for _, y in own.curve(key)], [y for _, y in theirs.curve(key)], rtol=1e-12)
    assert own.per_class == pytest.approx(theirs.per_class)
    assert [picture.name for picture in own.pictures] == [picture.name for picture in theirs.pictures]
    assert set(theirs.pictures[0].panels) == {"picture", "truth", "prediction"}
    comparison = compare([own, theirs])
    assert len(comparison.groups) == 1, comparison.differing


def test_an_offline_run_of_detection_shows_its_boxes(tmp_path):
    for split in ("train2017", "val2017"):
        write_coco_tree(tmp_path / "coco", split)
    words = [f"data.root={tmp_path / 'coco'}", f"output_dir={tmp_path / 'run'}", "data.image_size=64"]
    words += ["model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35", "data.batch_size=2"]
    words += ["data.num_workers=0", "trainer.max_steps=1", "wandb.mode=offline", "optim.warmup_steps=0"]
    assert main(["train", "ssdlite_v3_coco", *words]) == 0
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    written(folder)
    (own,), (theirs,) = find_runs([str(tmp_path / "run")])[0], find_runs([str(folder)])[0]
    assert theirs.notes == []
    for ours, picture in zip(own.pictures, theirs.pictures, strict=True):
        assert set(picture.panels) >= {"picture", "truth"}
        drawn, expected = (
            cv2.imdecode(np.frombuffer(one.panels["truth"], np.uint8), cv2.IMREAD_COLOR) for one in (picture, ours)
        )
        assert np.abs(drawn.astype(int) - expected).mean() < 3
