"""All published figures of MobileNetV3's Tables 6, 7 and 8 and of the classifiers, and the command that prints them."""

import contextlib
import dataclasses
import io
import json
from pathlib import Path

import pytest
import torch
import torchvision

from densevision.cli import run
from densevision.cli.paper_report import COMMAND
from densevision.paper_classifiers import CLASSIFIERS, compare_classifier
from densevision.paper_tables import TABLE_6, TABLE_7, TABLE_8, compare

# our own counts to the unit, so that no change of a table or head goes unseen
EXACT_PARAMS = [2113043, 1159123, 1030950, 987174, 3600963, 1762435, 1632894, 1507198, 282598, 168502, 468830]


@pytest.mark.parametrize(("published", "params"), zip(TABLE_7, EXACT_PARAMS, strict=True), ids=lambda p: str(p)[:40])
def test_table_7(published, params):
    ours = compare(published)
    assert not ours.problems
    assert ours.counted.params == params


# SSDLite, with the class slots of each row: parameters and MAdds of the convolutions
EXACT_TABLE_6 = [
    (5100661, 1309162944),
    (4337013, 788830144),
    (4912181, 837819232),
    (5006735, 613143104),
    (3248255, 506563904),
    (947709, 166713786),
    (1562111, 272348896),
    (1032335, 177387738),
    (1690173, 290408224),
    (2518271, 210417856),
    (1785743, 162303424),
]


@pytest.mark.parametrize(("published", "exact"), zip(TABLE_6, EXACT_TABLE_6, strict=True), ids=lambda p: str(p)[:40])
def test_table_6(published, exact):
    ours = compare(published)
    assert not ours.problems
    assert (ours.counted.params, ours.counted.conv_madds) == exact


@pytest.mark.parametrize(
    ("row", "num_classes", "exact"),
    [(0, 90, (5246911, 1322426304)), (1, 90, (4500543, 804397504)), (4, 80, (3129845, 494644544))],
)
def test_table_6_with_the_other_count_of_classes(row, num_classes, exact):
    counted = compare(dataclasses.replace(TABLE_6[row], num_classes=num_classes)).counted
    assert (counted.params, counted.conv_madds) == exact


@pytest.mark.parametrize("published", TABLE_8, ids=lambda row: row.row)
def test_table_8(published):
    assert not compare(published).problems


def test_a_row_out_of_tolerance_is_seen():
    row = TABLE_7[7]
    for wrong in ({"params": 1.48}, {"madds": 9.9}, {"exact_params": 1507199}, {"exact_madds": 1}):
        assert len(compare(dataclasses.replace(row, **wrong)).problems) == 1


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """One run of the command: what it prints, its figures and its page."""
    folder = tmp_path_factory.mktemp("paper")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = run("profile", ["--paper", "--json", str(folder / "x.json"), "--markdown", str(folder / "x.md")])
    assert status == 0
    return printed.getvalue(), json.loads((folder / "x.json").read_text()), (folder / "x.md").read_text()


def test_paper_command(paper, capsys, monkeypatch):
    printed, figures, _ = paper
    assert "71 of 71 rows in tolerance" in printed
    rows = figures["rows"]
    assert len(rows) == 30
    assert rows[18]["published_madds_b"] == 9.74
    assert rows[18]["params"] == 1507198
    monkeypatch.setattr("densevision.cli.paper_report.TABLE_7", (dataclasses.replace(TABLE_7[7], madds=9.9),))
    for other in ("TABLE_6", "TABLE_8", "CLASSIFIERS"):
        monkeypatch.setattr(f"densevision.cli.paper_report.{other}", ())
    assert run("profile", ["--paper"]) == 1
    assert "MAdds -1.6%, tolerated 1.0%" in capsys.readouterr().out


def test_the_page_is_what_the_command_writes(paper):
    page = Path(__file__).parent.parent / "docs" / "paper_tables.md"
    assert page.read_text() == paper[2], f"run {COMMAND}"


# (backbone, width, picture) -> parameters, and MAdds of convolutions and linear layers in millions
EXACT_CLASSIFIERS = {
    ("mobilenext", 1.4, 224): (6126168, 588.32),
    ("mobilenext", 1.0, 224): (3535416, 311.34),
    ("mobilenext", 0.75, 224): (2766168, 207.93),
    ("mobilenext", 0.5, 224): (2152304, 103.26),
    ("mobilenext", 0.35, 224): (1913976, 75.14),
    ("proxylessnas_mobile", 1.0, 224): (4080512, 320.43),
    ("fbnetv2_f0", 1.0, 224): (2822360, 66.28),
    ("fbnetv2_f1", 1.0, 128): (6024736, 56.23),
    ("fbnetv2_f2", 1.0, 160): (6024736, 85.16),
    ("fbnetv2_f3", 1.0, 192): (6924832, 121.42),
    ("fbnetv2_f4", 1.0, 224): (7022864, 237.61),
    ("fbnetv2_l1", 1.0, 224): (8538776, 325.03),
    ("fbnetv2_l2", 1.0, 256): (8538776, 422.61),
    ("mobilenet_v1", 1.0, 224): (4231976, 568.74),
    ("mobilenet_v1", 0.75, 224): (2585560, 325.40),
    ("mnasnet_a1", 1.0, 224): (3887038, 311.58),
    ("mobilenet_v3_large", 0.75, 224): (3993528, 154.56),
}


def test_classifiers_to_the_unit(paper):
    """Counts of the official codes, where no twin can be installed."""
    counted = {
        tuple(override.partition("=")[2] for override in row["overrides"]): (row["params"], row["conv_madds"])
        for row in paper[1]["classifiers"]
    }
    for (backbone, width, picture), (params, madds) in EXACT_CLASSIFIERS.items():
        ours = counted[backbone, str(width), str(picture)]
        assert (ours[0], round(ours[1] / 1e6, 2)) == (params, madds), backbone


def test_a_count_to_the_unit_and_a_remembered_figure_are_what_the_rows_say(paper):
    """Every family without an installable twin is held to the unit; figures nobody checked say so."""
    rows = {(row.backbone, row.width, row.resolution): row for row in CLASSIFIERS}
    for case, (params, madds) in EXACT_CLASSIFIERS.items():
        if case[0].startswith(("mobilenext", "proxyless", "fbnet")):
            assert (rows[case].exact[0], round(rows[case].exact[1] / 1e6, 2)) == (params, madds)
    assert [row.model for row in CLASSIFIERS if "from memory" in row.note] == [
        "V3-Large 0.35",
        "V3-Small 0.35",
        *(f"MnasNet-A1 {width}" for width in (1.4, 0.75, 0.5, 0.35)),
    ]
    assert all(row.exact for row in CLASSIFIERS if row.note)
    assert "| V3-Large 1.0 | 224 | 5.4 | 5.483 | +1.5% | 217 | 216.590 | -0.2% | 75.2 | ok, as printed |" in paper[2]


def test_a_classifier_out_of_tolerance_is_seen():
    row = next(row for row in CLASSIFIERS if row.model == "V3-Large 1.0")
    assert not compare_classifier(row).problems  # 5.483 M are printed as 5.4
    for wrong in ({"params": "5.3"}, {"madds": "220"}, {"exact": (5483032, 1)}, {"exact": (1, 216589760)}):
        assert len(compare_classifier(dataclasses.replace(row, **wrong)).problems) == 1


@pytest.mark.parametrize(
    ("backbone", "row"),
    [
        ("mobilenext", "sandglass 3x3"),
        ("mobilenet_v1", "bneck 3x3"),
        ("proxylessnas_mobile", "bneck 7x7"),
        ("fbnetv2_f1", "conv2d 1x1"),
    ],
)
def test_profile_of_other_blocks(backbone, row, capsys):
    assert run("profile", ["paper/classification", f"model.backbone.name={backbone}"]) == 0
    printed = capsys.readouterr().out
    for text in (row, "head.fc", "picture 224x224", "1000 classes"):
        assert text in printed


def test_profile_command(tmp_path, capsys):
    file = tmp_path / "profile.json"
    arguments = ["lraspp_v3_cityscapes", "--json", str(file), "model.backbone.output_stride=32"]
    assert run("profile", arguments) == 0
    printed = capsys.readouterr().out
    for text in ("backbone.blocks.14", "bneck 5x5", "c3_depthwise", "1,507,198", "picture 1025x2049"):
        assert text in printed
    figures = json.loads(file.read_text())
    assert figures["paper_madds"] == pytest.approx(7.74e9, rel=0.01)
    assert figures["layers"][0]["input"] == [1025, 2049, 3]


def test_the_table_names_every_activation_and_what_a_sandglass_expands_to(tmp_path, capsys):
    file = tmp_path / "profile.json"
    assert run("profile", ["paper/classification", "model.backbone.name=mobilenet_v3_large", "--json", str(file)]) == 0
    acts = {row["name"]: row["act"] for row in json.loads(file.read_text())["layers"]}
    assert (acts["head.pre_logits"], acts["head.fc"]) == ("hswish", "")
    assert "sandglass" not in capsys.readouterr().out
    assert run("profile", ["paper/classification", "model.backbone.name=mobilenext"]) == 0
    assert "exp of a sandglass is its bottleneck" in capsys.readouterr().out


def test_profile_says_which_weights_do_not_fit(tmp_path, capsys):
    torch.save(torchvision.models.mobilenet_v3_small().state_dict(), tmp_path / "small.pth")
    words = [f"model.backbone.pretrained={tmp_path / 'small.pth'}", "model.backbone.reduced_tail=false"]
    assert run("profile", ["lraspp_v3_voc", *words]) == 1
    assert "small.pth does not fit the network (blocks." in capsys.readouterr().err
    assert run("profile", ["lraspp_v3_voc", *words, "model.backbone.name=mobilenet_v3_small"]) == 0
    assert "picture" in capsys.readouterr().out


def test_classes_may_be_said(capsys):
    assert run("profile", ["mobilenext_cifar10"]) == 1
    assert "depend on its files" in capsys.readouterr().err
    assert run("profile", ["mobilenext_cifar10", "--num-classes", "10"]) == 0
    assert "10 classes, picture 32x32" in capsys.readouterr().out


def test_profile_mistakes(capsys, tmp_path):
    assert run("profile", ["lraspp_v3_cityscapes", "model.head.name=aspp"]) == 1
    assert "did you mean 'raspp'" in capsys.readouterr().err
    (tmp_path / "file").write_text("in the way")
    assert run("profile", ["lraspp_v3_cityscapes", "--json", str(tmp_path / "file" / "x.json")]) == 1
    for wrong in (
        [],
        ["--paper", "lraspp_v3_cityscapes"],
        ["lraspp_v3_cityscapes", "--markdown", "x.md"],
        ["lraspp_v3_cityscapes", "--image-size", "0", "5"],
    ):
        with pytest.raises(SystemExit, match="2"):
            run("profile", wrong)
