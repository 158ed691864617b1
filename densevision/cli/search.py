"""``search CONFIG [key=value ...]`` and ``search --trial FILE``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from densevision.cli import parser
from densevision.errors import Stopped

USAGE = """\
examples:
  search configs/search/netadapt_lraspp_v3_small.yaml data.root=/data/cityscapes search.target=0.7x
  search search/platform_nas_lraspp search.method=evolution search.workers=4
  search search/platform_nas_lraspp search.launcher=slurm search.workers=32 search.slurm=[--gpus=1,--time=2:00:00]
  search --trial runs/x/trials/0123456789abcdef.json      (what a search starts for every network)

Called again with the same words it goes on where it was. It ends with runs/x/arch.yaml, a table like any backbone's:
  train CONFIG model.backbone.arch=runs/x/arch.yaml
"""


def main(argv: Sequence[str]) -> int:
    arguments = parser("search", USAGE)
    arguments.add_argument("config", nargs="?", help="a YAML file, or the name of one of the project's configs")
    arguments.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values to change")
    arguments.add_argument("--trial", type=Path, metavar="FILE", help="make the one trial that FILE describes")
    options = arguments.parse_intermixed_args(argv)
    if bool(options.config) == bool(options.trial):
        arguments.error("give a configuration, or --trial FILE")

    from rich.console import Console

    console = Console()
    if options.trial:
        from densevision.search.trials import run_trial
        from densevision.search_trial import TaskTrial

        outcome = run_trial(options.trial, TaskTrial)
        console.print(f"score {outcome.score:.4f}", highlight=False)
        return 0

    from densevision.config import load_config
    from densevision.config.search_schema import SearchRun

    loaded = load_config(options.config, options.overrides, SearchRun)
    from densevision.search_run import search

    try:
        result = search(loaded, console)
    except (KeyboardInterrupt, Stopped):
        console.print(
            f"\nstopped: the same command goes on where it was, with what {loaded.run_dir} holds", highlight=False
        )
        raise
    console.rule("done")
    console.print(
        f"score {result['seed_score']:.4f} -> {result['score']:.4f}, {result['unit']} {result['seed_cost']:.4g} -> "
        f"{result['cost']:.4g} (target {result['target']:.4g}), {result['trials']} trials made",
        highlight=False,
        soft_wrap=True,
    )
    for name in ("arch.yaml", "history.jsonl", "pareto.png"):
        console.print(f"{name:14} {Path(result['run_dir']) / name}", highlight=False, soft_wrap=True)
    return 0
