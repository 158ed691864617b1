"""The published rows beside ours, as tables for the terminal and as a page of documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from densevision.paper_classifiers import (
    CLASSIFIERS,
    ClassifierComparison,
    PublishedClassifier,
    compare_classifier,
    difference,
)
from densevision.paper_classifiers import TOLERANCE as CLASSIFIER_TOLERANCE
from densevision.paper_tables import TABLE_6, TABLE_7, TABLE_8, TOLERANCES, Comparison, Published, compare

COMMAND = "python tools/profile.py --paper --markdown docs/paper_tables.md"


@dataclass(frozen=True)
class ReportTable:
    """A table of text: one title, columns, rows of as many cells, and sentences below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """All tables, how many rows are out of tolerance, the closing sentence, and the figures for json."""

    tables: tuple[ReportTable, ...]
    wrong: int
    summary: str
    figures: dict[str, Any]


def paper_report() -> Report:
    """Count every published row."""
    published = {6: TABLE_6, 7: TABLE_7, 8: TABLE_8}
    tables = {number: [compare(row) for row in rows] for number, rows in published.items()}
    classifiers = [compare_classifier(row) for row in CLASSIFIERS]
    rows = [ours for table in tables.values() for ours in table]
    wrong = sum(bool(ours.problems) for ours in rows) + sum(bool(ours.problems) for ours in classifiers)
    total = len(rows) + len(classifiers)
    limits = "; ".join(f"Table {n}: parameters {p:.1%}, MAdds {m:.1%}" for n, (p, m) in TOLERANCES.items())
    return Report(
        tables=(*(_dense_table(number, table) for number, table in tables.items()), _classifier_table(classifiers)),
        wrong=wrong,
        summary=(
            f"{total - wrong} of {total} rows in tolerance, or as documented ({limits}; Table 6 by its convolutions "
            f'alone, Tables 7 and 8 counted the paper\'s way; classifiers {CLASSIFIER_TOLERANCE:.1%}, or "as printed": '
            "equal to the digits printed, rounded or cut off; convolutions and linear layers)"
        ),
        figures={
            "rows": [ours.to_dict() for ours in rows],
            "classifiers": [ours.to_dict() for ours in classifiers],
        },
    )


def _dense_table(number: int, comparisons: Sequence[Comparison]) -> ReportTable:
    rows = []
    for ours in comparisons:
        row = ours.published
        params = ("", "", "")
        if row.params is not None and ours.params_difference is not None:
            params = (f"{row.params:.2f}", f"{ours.counted.params / 1e6:.4f}", f"{ours.params_difference:+.1%}")
        paper = ("", "")
        if not row.conv_only:
            paper = (f"{ours.counted.paper_madds / 1e9:.3f}", f"{ours.madds_difference:+.2%}")
        madds = (f"{row.madds:.2f}", f"{ours.counted.conv_madds / 1e9:.3f}", f"{ours.conv_difference:+.2%}")
        rows.append((row.row, *params, *madds, *paper, _verdict(ours)))
    return ReportTable(
        title=f"MobileNetV3 paper, Table {number}: published and ours",
        columns=("row", "params M", "ours", "diff", "MAdds B", "conv only", "diff", "paper's way", "diff", ""),
        rows=tuple(rows),
        notes=tuple(f"row {' '.join(o.published.row.split())}: {o.published.note}" for o in comparisons if _note(o)),
    )


def _classifier_table(comparisons: Sequence[ClassifierComparison]) -> ReportTable:
    rows = []
    for ours in comparisons:
        row = ours.published
        cells = [row.model, str(row.resolution)]
        for printed, counted in ((row.params, ours.counted.params), (row.madds, ours.counted.conv_madds)):
            off = "" if printed is None else f"{difference(counted, printed):+.1%}"
            cells += [printed or "", f"{counted / 1e6:.3f}", off]
        rows.append((*cells, "" if row.top1 is None else f"{row.top1:.1f}", _verdict(ours)))
    return ReportTable(
        title="Classifiers, ImageNet: published and ours",
        columns=("model", "picture", "params M", "ours", "diff", "MAdds M", "ours", "diff", "published top-1", ""),
        rows=tuple(rows),
        notes=tuple(f"{ours.published.model}: {ours.published.note}" for ours in comparisons if _note(ours)),
    )


def _note(ours: Comparison | ClassifierComparison) -> str:
    published: Published | PublishedClassifier = ours.published
    return published.note


def _verdict(ours: Comparison | ClassifierComparison) -> str:
    if ours.problems:
        return "; ".join(ours.problems)
    if _note(ours):
        return "documented"
    return "ok, as printed" if isinstance(ours, ClassifierComparison) and ours.cut_off else "ok"


def markdown(report: Report) -> str:
    """A page of documentation."""
    lines = [
        "# Published and counted",
        "",
        f"Made by `{COMMAND}`; do not edit. Published figures beside those of the networks that the configurations in",
        "`configs/paper` build. The accuracies are the publications', none of them is measured here.",
    ]
    for table in report.tables:
        lines += ["", f"## {table.title}", "", _line(table.columns), "|" + "---|" * len(table.columns)]
        lines += [_line(row) for row in table.rows]
        if table.notes:
            lines += ["", *(f"- {note}." for note in table.notes)]
    return "\n".join([*lines, "", f"{report.summary}.", ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
