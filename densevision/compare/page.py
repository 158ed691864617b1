"""The comparison as one HTML file that needs nothing else: styles, charts and pictures are in it."""

from __future__ import annotations

import base64
import datetime
import math
from html import escape
from pathlib import Path

from densevision.compare import tables
from densevision.compare.groups import Comparison, Group, pareto
from densevision.compare.runs import Run
from densevision.compare.svg import Series, line_chart, scatter, short, swatch
from densevision.compare.tables import Table

_MOST_CLASSES = 40  # in the legend of the pictures


def html_page(comparison: Comparison, title: str = "Comparison of runs") -> str:
    """The whole page."""
    sections = {
        "results": ("Results", _table(tables.results(comparison), comparison)),
        "cost": ("Score against cost", _cost(comparison)),
        "curves": ("Learning curves", _curves(comparison)),
        "differences": ("What differs", _differences(comparison)),
        "classes": ("Classes", _classes(comparison)),
        "pictures": ("Pictures", _pictures(comparison)),
        "runs": ("Runs", _table(tables.each_run(comparison), words=True)),
    }
    shown = {name: section for name, section in sections.items() if section[1]}
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, (heading, _) in shown.items())
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{heading}</h2>{content}</section>'
        for name, (heading, content) in shown.items()
    )
    runs, groups = sum(len(group.runs) for group in comparison.groups), len(comparison.groups)
    counted = f"{_number(runs, 'run')} in {_number(groups, 'group')}"
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{style}</style></head><body>
<a class="skip" href="#main">Skip to the results</a>
<header><h1>{escape(title)}</h1>
<p class="quiet">{counted}, judged by {escape(comparison.monitor)};
made on {datetime.date.today():%d %B %Y} with densevision.</p>
<nav aria-label="Sections"><ul>{links}</ul></nav></header>
<main id="main">{_remarks(comparison)}{body}</main>
</body></html>
"""


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _remarks(comparison: Comparison) -> str:
    if not comparison.remarks:
        return ""
    items = "".join(f"<li>{escape(remark)}</li>" for remark in comparison.remarks)
    heading = '<h2 id="remarks-h">Before you believe it</h2>'
    return f'<section class="remarks" aria-labelledby="remarks-h">{heading}<ul>{items}</ul></section>'


def _table(table: Table, comparison: Comparison | None = None, words: bool = False) -> str:
    """A table that scrolls by itself where the page is narrow; with a comparison its rows bear the groups' marks."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    kind = ' class="words"' if words else ""
    rows = []
    for r, row in enumerate(table.rows):
        mark = swatch(r) if comparison else ""
        cells = "".join(
            f'<td class="best">{escape(cell)}</td>' if (r, c) in table.best else f"<td>{escape(cell)}</td>"
            for c, cell in enumerate(row[1:], 1)
        )
        rows.append(f'<tr><th scope="row">{mark}{escape(row[0])}</th>{cells}</tr>')
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(table.name)}, table">'
        f"<table{kind}><caption><span>{escape(table.caption)}</span></caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _chart(svg: str, numbers: Table) -> str:
    """A chart, and its numbers as a table that can be unfolded."""
    label = escape(f"{numbers.name}, chart")
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">{svg}</div>'
        f"<details><summary>The numbers as a table</summary>{_table(numbers)}</details>"
    )


def _legend(groups: tuple[Group, ...]) -> str:
    items = "".join(f"<li>{swatch(number)}{escape(group.label)}</li>" for number, group in enumerate(groups))
    return f'<ul class="legend" aria-label="Groups">{items}</ul>'


def _cost(comparison: Comparison) -> str:
    """Score against latency where every group has one, else against multiply-adds; the front among them."""
    groups = comparison.groups
    how = comparison.measured
    measured = all(group.latency(how) is not None for group in groups)
    unit = f"latency in milliseconds ({how})" if measured else "multiply-adds of one picture"
    points, left_out = [], []
    for number, group in enumerate(groups):
        cost = group.latency(how) if measured else group.madds
        spread = group.spread(lambda run: run.best)
        if cost is None or math.isnan(spread.mean):
            left_out.append(group.label)
        else:
            points.append((group.label, number, float(cost), 100 * spread.mean, 100 * spread.deviation))
    if not points:
        return "<p>No run says what its model costs.</p>"
    front = pareto([(x, y) for _, _, x, y, _ in points])
    names = ", ".join(points[index][0] for index in front)
    text = f"Nothing else is both cheaper and better than: {names}."
    rows = tuple(
        (label, short(x), f"{y:.2f}", "yes" if index in front else "no")
        for index, (label, _, x, y, _) in enumerate(points)
    )
    numbers = Table(
        "Score against cost",
        f"Best {comparison.monitor} against {unit}.",
        ("group", unit, f"best {comparison.monitor}", "on the front"),
        rows,
    )
    title = f"Best {comparison.monitor} in percent against {unit}"
    svg = scatter("cost", title, text, points, front, unit, f"best {comparison.monitor}, %")
    missing = f"<p>Without a known cost or score, and left out: {escape(', '.join(left_out))}.</p>" if left_out else ""
    reading = "The dashed line is this Pareto front; bars are a standard deviation each way."
    return f"<p>{escape(text)} {reading}</p>{_chart(svg, numbers)}{missing}"


def _curves(comparison: Comparison) -> str:
    parts = []
    for name, key, scale, label in (
        ("score", f"val/{comparison.monitor}", 100.0, f"{comparison.monitor}, %"),
        ("loss", "train/loss", 1.0, "training loss"),
    ):
        series = [
            Series(group.label, number, tuple(_line(run, key, scale) for run in group.runs if run.curve(key)))
            for number, group in enumerate(comparison.groups)
        ]
        if not any(one.lines for one in series):
            parts.append(f"<p>No run has written {escape(key)} yet.</p>")
            continue
        counted = all(
            "images_seen" in line for group in comparison.groups for run in group.runs for line in run.history
        )
        across = "training pictures seen" if counted else "steps, or pictures seen where they were counted"
        rows = tuple(
            (run.name, group.label, short(run.curve(key)[-1][0]), f"{scale * run.curve(key)[-1][1]:.4g}")
            for group in comparison.groups
            for run in group.runs
            if run.curve(key)
        )
        numbers = Table(
            f"Curves of {label}", f"Where the curves of {label} end.", ("run", "group", across, label), rows
        )
        svg = line_chart(name, f"{label} against {across}", f"A line a run, {len(rows)} in all.", series, across, label)
        parts.append(f"<div><h3>{escape(label)}</h3>{_chart(svg, numbers)}</div>")
    return f'{_legend(comparison.groups)}<div class="charts">{"".join(parts)}</div>'


def _line(run: Run, key: str, scale: float) -> tuple[tuple[float, float], ...]:
    return tuple((x, scale * y) for x, y in run.curve(key))


def _differences(comparison: Comparison) -> str:
    if not comparison.differing:
        return "<p>The configurations differ in nothing but seeds, places and W&amp;B's keys.</p>"
    return _table(tables.differences(comparison), words=True)


def _classes(comparison: Comparison) -> str:
    table = tables.classes(comparison)
    return "" if table is None else _table(table)


def _pictures(comparison: Comparison) -> str:
    """The pictures that the groups' first runs share, each once with its truth and with every prediction."""
    chosen = [(group.label, next((run for run in group.judged if run.pictures), None)) for group in comparison.groups]
    shown = [(label, run) for label, run in chosen if run is not None]
    if not shown:
        return ""
    parts = [f"<p>Of each group the run {escape(', '.join(run.name for _, run in shown))}.</p>{_colours(shown[0][1])}"]
    for picture in shown[0][1].pictures:
        figures = [
            _figure(picture.panels[kind], f"{kind} of {picture.name}", kind)
            for kind in ("picture", "truth")
            if kind in picture.panels
        ]
        for label, run in shown:
            same = next((one for one in run.pictures if one.name == picture.name), None)
            if same is not None and "prediction" in same.panels:
                figures.append(_figure(same.panels["prediction"], f"prediction of {label} for {picture.name}", label))
        parts.append(f'<h3>{escape(picture.name)}</h3><div class="pictures">{"".join(figures)}</div>')
    return "".join(parts)


def _figure(data: bytes, text: str, caption: str) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    image = f'<img src="{source}" alt="{escape(text)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _colours(run: Run) -> str:
    known = run.section("classes")
    pairs = list(zip(known.get("names") or [], known.get("colors") or [], strict=False))[:_MOST_CLASSES]
    items = ""
    for name, (red, green, blue) in pairs:
        patch = f'<span class="patch" style="background:rgb({int(red)},{int(green)},{int(blue)})"></span>'
        items += f"<li>{patch}{escape(str(name))}</li>"
    return f'<ul class="legend" aria-label="Colours of the classes">{items}</ul>' if items else ""
