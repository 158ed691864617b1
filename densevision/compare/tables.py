"""The tables of a comparison as text, for the terminal, the page and Markdown alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

from densevision.compare.groups import Comparison, Group, Spread, apart
from densevision.compare.svg import short

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """name: a few words. caption: a sentence. columns: names; the first is of the row's name. rows: a cell a column.
    best: (row, column) of cells to stress."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: tuple[tuple[int, int], ...] = ()


def results(comparison: Comparison) -> Table:
    """A row a group: its scores, its model's size and cost, its speed."""
    spreads = [
        [group.spread(lambda run: run.best) for group in comparison.groups],
        [group.spread(lambda run: run.last) for group in comparison.groups],
    ]
    rows = []
    for index, group in enumerate(comparison.groups):
        milliseconds, madds = group.latency(comparison.measured), group.madds
        parameters = group.common(lambda run: run.model_figure("parameters"))
        speed = group.spread(lambda run: run.images_per_second)
        rows.append(
            (
                group.label,
                str(len(group.judged)) + ("" if len(group.judged) == len(group.runs) else f" of {len(group.runs)}"),
                *(percent(of_kind[index]) for of_kind in spreads),
                NOTHING if parameters is None else f"{parameters / 1e6:.2f} M",
                NOTHING if madds is None else short(madds),
                NOTHING if milliseconds is None else f"{milliseconds:.1f} ms",
                NOTHING if math.isnan(speed.mean) else f"{speed.mean:.1f}",
            )
        )
    best = []
    for column, of_kind in enumerate(spreads, 2):
        means = [spread.mean for spread in of_kind]
        if len(means) > 1 and not all(map(math.isnan, means)):
            shown = [-math.inf if math.isnan(mean) else round(100 * mean, 2) for mean in means]
            firsts = [row for row, value in enumerate(shown) if value == max(shown)]
            best += [(row, column) for row in firsts if len(firsts) < len(means)]  # where all tie none is the best
    caption = (
        f"{comparison.monitor} in percent: mean ± standard deviation over the runs. The best evaluation of a run is "
        "chosen on the pictures it is judged by, so it flatters a little; the last one does not. images/s is what "
        "training reached on its machine, whatever else that had to do."
    )
    if comparison.measured:
        caption += f" Latency is of one picture in {comparison.measured}."
    columns = ("group", "runs", f"best {comparison.monitor}", f"last {comparison.monitor}")
    return Table(
        "Results", caption, (*columns, "parameters", "multiply-adds", "latency", "images/s"), tuple(rows), tuple(best)
    )


def differences(comparison: Comparison) -> Table:
    """A row a configuration key that differs; the groups are the columns."""
    rows = tuple((key, *values) for key, values in comparison.differing.items())
    return Table(
        "What differs",
        "Configuration keys whose values differ; seeds, places and W&B's keys left out.",
        ("key", *(group.label for group in comparison.groups)),
        rows,
    )


def classes(comparison: Comparison) -> Table | None:
    """A row a class: the first group's score, and by how much the others differ from it; None without classes."""
    judged = {name for group in comparison.groups for run in group.judged for name in run.per_class}
    order = comparison.groups[0].runs[0].section("classes").get("names") or []
    names = [*(name for name in order if name in judged), *sorted(judged - set(order))]
    if not names:
        return None
    rows = []
    for name in names:
        spreads = [_of_class(group, name) for group in comparison.groups]
        cells = [percent(spreads[0])]
        for spread in spreads[1:]:
            difference = 100 * (spread.mean - spreads[0].mean)
            sign = " *" if apart(spread, spreads[0]) else ""
            cells.append(NOTHING if math.isnan(difference) else f"{difference:+.1f}{sign}".replace("-", "−"))
        rows.append((name, *cells))
    labels = [group.label for group in comparison.groups]
    caption = f"Score of each class in percent for {labels[0]}, in the best evaluation"
    if len(labels) > 1:
        caption += (
            ", and how many points the others have more. * no run of the one group reaches any of the other: with few "
            "seeds a hint, no proof"
        )
    return Table("Classes", f"{caption}.", ("class", *labels), tuple(rows))


def _of_class(group: Group, name: str) -> Spread:
    return group.spread(lambda run: run.per_class.get(name))


def each_run(comparison: Comparison) -> Table:
    """A row a run."""
    rows = []
    for group in comparison.groups:
        for run in group.runs:
            line = run.best_line
            rows.append(
                (
                    run.name,
                    group.label,
                    str(run.config.get("seed", NOTHING)),
                    NOTHING if run.best is None else f"{100 * run.best:.2f}",
                    NOTHING if line is None else str(line["step"]),
                    NOTHING if run.last is None else f"{100 * run.last:.2f}",
                    short(run.images_seen),
                    "finished" if run.finished else "not finished",
                )
            )
    score = comparison.monitor
    columns = ("run", "group", "seed", f"best {score}", "at step", f"last {score}", "images seen", "state")
    return Table("Runs", "Every run by itself; scores in percent.", columns, tuple(rows))


def percent(spread: Spread) -> str:
    """``57.31 ± 0.42`` of fractions; without a spread the mean alone."""
    if math.isnan(spread.mean):
        return NOTHING
    mean = f"{100 * spread.mean:.2f}"
    return mean if math.isnan(spread.deviation) else f"{mean} ± {100 * spread.deviation:.2f}"


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown, for a pull request: results, differences, classes (folded away), remarks."""
    parts = [_markdown_table(results(comparison))]
    if comparison.differing:
        parts.append(_markdown_table(differences(comparison)))
    folded = {"Classes": classes(comparison), "Runs": each_run(comparison)}
    for name, table in folded.items():
        if table is not None:
            parts.append(f"<details><summary>{name}</summary>\n\n{_markdown_table(table)}\n\n</details>")
    if comparison.remarks:
        parts.append("\n".join(f"- {remark}" for remark in comparison.remarks))
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    stressed = [
        tuple(f"**{cell}**" if (r, c) in table.best else cell for c, cell in enumerate(row))
        for r, row in enumerate(table.rows)
    ]
    rule = "|---|" + "---:|" * (len(table.columns) - 1)
    return "\n".join([table.caption, "", line(table.columns), rule, *map(line, stressed)])
