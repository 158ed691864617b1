"""``compare RUN RUN ...``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from densevision.cli import parser
from densevision.errors import UserError

USAGE = """\
examples:
  compare runs/a runs/b runs/c_seed*
  compare runs --group-by model.backbone.name --html report.html
  compare runs/a/wandb/offline-run-20260101_120000-abcd1234 runs/b --markdown
  compare team/project --html report.html             (a W&B project, where there is a login)

Runs that differ in their seed alone are a group. What `benchmark RUN/checkpoints/best.ckpt --json RUN/latency.json`
has measured is shown, and drawn instead of multiply-adds where every group has it.
"""


def main(argv: Sequence[str]) -> int:
    arguments = parser("compare", USAGE)
    arguments.add_argument("runs", nargs="+", metavar="RUN", help="run directory, folder of them, W&B run or project")
    arguments.add_argument(
        "--group-by", action="append", default=[], metavar="KEY", help="put runs with its value together"
    )
    arguments.add_argument("--html", type=Path, metavar="FILE", help="write a page that needs no network")
    arguments.add_argument("--title", default="Comparison of runs", help="of the page")
    arguments.add_argument("--markdown", action="store_true", help="print Markdown, for a pull request")
    options = arguments.parse_args(argv)

    from rich.console import Console
    from rich.table import Table

    from densevision.compare import tables
    from densevision.compare.find import find_runs
    from densevision.compare.groups import compare
    from densevision.io import atomic_write, make_folder

    errors = Console(stderr=True)
    if options.html:
        make_folder(options.html.parent)  # a wrong path is told before the work
        if options.html.is_dir():
            raise UserError(f"{options.html} is a folder: --html wants the name of a file, {options.html}/report.html")
    runs, complaints = find_runs(options.runs)
    for sentence in [*complaints, *(note for run in runs for note in run.notes)]:
        errors.print(f"warning: {sentence}", highlight=False, soft_wrap=True, markup=False)
    comparison = compare(runs, options.group_by)
    if options.markdown:
        print(tables.markdown(comparison), end="")
    else:
        console = Console(width=None if Console().is_terminal else 200)
        for shown in (tables.results(comparison), tables.differences(comparison)):
            if shown.rows:
                table = Table(*shown.columns, caption=shown.caption, caption_justify="left")
                for row in shown.rows:
                    table.add_row(*row)
                console.print(table, highlight=False, markup=False)
        for remark in comparison.remarks:
            console.print(f"- {remark}", highlight=False, soft_wrap=True, markup=False)
    if options.html:
        from densevision.compare.page import html_page

        with atomic_write(options.html) as partial:
            partial.write_text(html_page(comparison, options.title), encoding="utf-8")
        errors.print(f"page in {options.html}", highlight=False, soft_wrap=True)
    return 0
