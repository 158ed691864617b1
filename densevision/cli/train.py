"""``train CONFIG [key=value ...]``."""

from __future__ import annotations

from collections.abc import Sequence

from densevision.cli import parser

USAGE = """\
examples:
  train lraspp_v3_cityscapes data.root=/data/cityscapes
  train configs/lraspp_v3_cityscapes.yaml trainer.max_steps=200 model.backbone.width_mult=0.75

Called again with the same words it goes on from the run's last checkpoint (trainer.resume=never begins anew).
"""


def main(argv: Sequence[str]) -> int:
    arguments = parser("train", USAGE)
    arguments.add_argument("config", help="a YAML file, or the name of one of the project's configs")
    arguments.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values to change")
    options = arguments.parse_intermixed_args(argv)

    from rich.console import Console

    from densevision.config import load_config

    loaded = load_config(options.config, options.overrides)
    from densevision.experiment import train
    from densevision.launch import is_first_process

    console = Console(quiet=not is_first_process())
    summary = train(loaded, console)
    best = dict(summary["best"])
    best_step = best.pop("step")
    lines = [f"best {name} {value:.4f} at step {best_step} of {summary['steps']}" for name, value in best.items()]
    lines.append(f"{summary['seconds']:.0f} s, peak memory {summary['peak_memory_mib']} MiB")
    lines.append(f"{'run directory':14} {summary['run_dir']}")
    lines += [f"{name:14} {path}" for name, path in summary["files"].items() if path]
    console.rule("done")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    return 0
