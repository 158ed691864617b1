"""Runs side by side: figures by hand, what is told of broken runs, and a page that stands alone."""

import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import densevision.compare
from densevision.backbones import BACKBONES, architecture_to_dict
from densevision.cli import main
from densevision.compare.find import find_runs
from densevision.compare.groups import Spread, apart, compare, pareto
from densevision.compare.svg import scatter
from densevision.compare.tables import results
from tests.trees import write_cityscapes_tree, write_coco_tree
from tests.wandb_runs import written

NAMES = ["road", "car"]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def write_run(folder, scores, seed=0, finished=True, madds=1e9, latency=None, classes=None, monitor="miou", **changes):
    """A run directory as the training leaves it, evaluated after every 10 steps of 4 pictures."""
    folder.mkdir(parents=True)
    config = {"seed": seed, "output_dir": str(folder), "data": {"batch_size": 4}, "optim": {"lr": 0.1}}
    config["model"] = {"backbone": {"name": "v2"}}
    for key, value in changes.items():
        section, name = key.split("__")
        config[section] = {**config[section], name: value}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    origin = {"monitor": monitor, "classes": {"names": NAMES, "colors": [[128, 64, 128], [0, 0, 142]]}, "device": "CPU"}
    origin["model"] = {"parameters": 3_200_000, "paper_madds": madds, "image_size": [64, 64]}
    origin["data"] = {"train": {"fingerprint": "a"}, "val": {"fingerprint": "b"}}
    (folder / "origin.json").write_text(json.dumps(origin))
    lines = []
    for number, score in enumerate(scores, 1):
        place = {"step": 10 * number, "epoch": 0, "images_seen": 40 * number, "seconds": number}
        lines.append({**place, "train/loss": 1 / number, "train/images_per_second": 100 if number > 1 else 1})
        per_class = dict(zip(NAMES, classes or (score, score), strict=True))
        lines.append({**place, f"val/{monitor}": score, **{f"val/iou/{k}": v for k, v in per_class.items()}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        (folder / "summary.json").write_text(json.dumps({"steps": 10 * len(scores)}))
    if latency:
        row = {"name": "x.ckpt", "runtime": "onnx", "image_size": [64, 128], "ms": latency, "spread": 0.01}
        (folder / "latency.json").write_text(json.dumps({"threads": 1, "rows": [row]}))
    pictures = folder / "pictures" / "latest"
    pictures.mkdir(parents=True)
    panels = {kind: f"00_{kind}.jpg" for kind in ("picture", "truth", "prediction")}
    for file in panels.values():
        cv2.imwrite(str(pictures / file), np.full((20, 30, 3), 100 + len(file), np.uint8))
    listed = [{"name": "street_1", "panels": panels}]
    (pictures / "pictures.json").write_text(json.dumps({"step": 10, "pictures": listed}))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two groups of three seeds, one with another backbone."""
    for seed, score in enumerate((0.50, 0.52, 0.54)):
        write_run(tmp_path / "runs" / f"a_seed{seed}", [0.3, score, score - 0.01], seed)
        changes = {"model__backbone": {"name": "v3"}, "madds": 5e8, "classes": (0.7, score - 0.3)}
        write_run(tmp_path / "runs" / f"b_seed{seed}", [0.3, score - 0.1], seed, **changes)
    return tmp_path / "runs"


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


class Page(HTMLParser):
    """What a screen reader would ask of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.headings, self.references, self.text = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.tags.append((tag, known))
        self.ids += [known["id"]] if "id" in known else []
        self.references += known.get("aria-labelledby", "").split()
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(runs, tmp_path, capsys):
    write_run(runs / "c", [0.6], optim__lr=0.2)
    write_run(runs / "d", [0.4], data__batch_size='<script>alert("x")</script>')
    assert main(["compare", str(runs), "--html", str(tmp_path / "report.html"), "--title", "a < b & c"]) == 0
    return tmp_path / "report.html"


def test_the_page_stands_alone_and_can_be_read_without_eyes(page):
    text = page.read_text()
    parsed = Page(text)
    tags = [tag for tag, _ in parsed.tags]
    assert "a < b & c" in parsed.text
    assert not {"script", "link", "iframe"} & set(tags)
    assert not re.search(r"https?://|@import|url\(", text)
    images = [known for tag, known in parsed.tags if tag == "img"]
    assert len(images) == 2 + 4  # the picture and its truth once, a prediction of every group
    assert all(known["src"].startswith("data:image/jpeg;base64,") and known["alt"] for known in images)
    assert parsed.tags[0] == ("html", {"lang": "en"})
    assert parsed.headings[0] == 1
    assert all(later - earlier <= 1 for earlier, later in zip(parsed.headings, parsed.headings[1:], strict=False))
    assert len(parsed.ids) == len(set(parsed.ids))
    assert set(parsed.references) <= set(parsed.ids)
    assert tags.count("caption") == tags.count("table") >= 6
    assert all(known.get("scope") in ("row", "col") for tag, known in parsed.tags if tag == "th")
    charts = [known for tag, known in parsed.tags if tag == "svg" and known.get("class") == "chart"]
    assert len(charts) == 3
    assert all(known["role"] == "img" and known["aria-labelledby"] for known in charts)
    assert not any(known["aria-describedby"] in known["aria-labelledby"].split() for known in charts)
    scrolling = [known for _, known in parsed.tags if known.get("class") == "scroll"]
    assert all(known["tabindex"] == "0" and 0 < len(known["aria-label"]) < 60 for known in scrolling)
    targets = [known["href"].removeprefix("#") for tag, known in parsed.tags if tag == "a"]
    assert set(targets) <= set(parsed.ids)


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


def contrast(one, other):
    """WCAG 2.2's contrast ratio."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_that_wcag_asks(mode):
    style = (Path(densevision.compare.__file__).parent / "style.css").read_text()
    colors = dict(re.findall(r"--([\w-]+): (#\w{6})", style.split("@media (prefers-color-scheme: dark)")[mode]))
    for ink, paper in (("ink", "paper"), ("ink", "raised"), ("quiet", "raised"), ("quiet", "paper"), ("ink", "warn")):
        assert contrast(colors[ink], colors[paper]) >= 4.5, (ink, paper)
    assert contrast(colors["accent"], colors["paper"]) >= 4.5
    for number in range(8):
        assert contrast(colors[f"c{number}"], colors["raised"]) >= 3, number


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser (chromium) is installed")
@pytest.mark.parametrize("width", [500, 1280])
def test_a_browser_shows_the_page_without_scrolling_sideways(page, tmp_path, width):
    probe = "<script>document.body.dataset.measured=[innerWidth,document.documentElement.scrollWidth,"
    probe += "[...document.images].filter(i=>i.complete&&i.naturalWidth).length].join()</script></body>"
    copy = tmp_path / "probe.html"
    copy.write_text(page.read_text().replace("</body>", probe))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2000", "--hide-scrollbars"]
    shown = subprocess.run([*command, "--dump-dom", copy.as_uri()], capture_output=True, text=True, timeout=120)
    inner, scrolled, images = map(int, re.search(r'data-measured="([\d,]+)"', shown.stdout)[1].split(","))
    assert inner == width
    assert scrolled <= inner
    assert images == 6
    picture = tmp_path / "page.png"
    subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], capture_output=True, check=True, timeout=120)
    assert len(np.unique(cv2.imread(str(picture)).reshape(-1, 3), axis=0)) > 50
