"""All published figures of Tables 6, 7 and 8 of the MobileNetV3 paper, and the command that prints them."""

import dataclasses
import json

import pytest

from densevision.cli import run
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


def test_paper_command(tmp_path, capsys, monkeypatch):
    file = tmp_path / "paper.json"
    assert run("profile", ["--paper", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "30 of 30 rows in tolerance" in printed
    rows = json.loads(file.read_text())["rows"]
    assert len(rows) == 30
    assert rows[18]["published_madds_b"] == 9.74
    assert rows[18]["params"] == 1507198
    monkeypatch.setattr("densevision.paper_tables.TABLE_7", (dataclasses.replace(TABLE_7[7], madds=9.9),))
    for other in ("TABLE_6", "TABLE_8"):
        monkeypatch.setattr(f"densevision.paper_tables.{other}", ())
    assert run("profile", ["--paper"]) == 1
    assert "MAdds -1.6%, tolerated 1.0%" in capsys.readouterr().out


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


def test_profile_mistakes(capsys, tmp_path):
    assert run("profile", ["lraspp_v3_cityscapes", "model.head.name=aspp"]) == 1
    assert "did you mean 'raspp'" in capsys.readouterr().err
    assert run("profile", ["lraspp_v3_cityscapes", "--json", str(tmp_path / "no" / "x.json")]) == 1
    for wrong in ([], ["--paper", "lraspp_v3_cityscapes"], ["lraspp_v3_cityscapes", "--image-size", "0", "5"]):
        with pytest.raises(SystemExit, match="2"):
            run("profile", wrong)
