"""``train CONFIG [key=value ...]``."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from densevision.cli import parser

USAGE = """\
examples:
  train lraspp_v3_cityscapes data.root=/data/cityscapes
  train configs/lraspp_v3_cityscapes.yaml trainer.max_steps=200 model.backbone.width_mult=0.75
  train lraspp_v3_cityscapes --seeds 0,1,2            (runs/lraspp_v3_cityscapes_seed0, _seed1, _seed2)
  train lraspp_v3_cityscapes --seeds 0-4 --slurm      (an array of SLURM jobs)

Called again with the same words it goes on from the run's last checkpoint (trainer.resume=never begins anew).
"""


def main(argv: Sequence[str]) -> int:
    # SLURM's word that the time is nearly over ends a process by default; it waits until the run can take it
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    arguments = parser("train", USAGE)
    arguments.add_argument("config", help="a YAML file, or the name of one of the project's configs")
    arguments.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values to change")
    arguments.add_argument("--seeds", metavar="0,1,2", help="train once with each, into OUTPUT_DIR_seedN")
    arguments.add_argument("--slurm", action="store_true", help="with --seeds: submit them as an array of jobs")
    arguments.add_argument(
        "--dry-run",
        action="store_true",
        help="try configuration, data, model and a step on this CPU; estimate memory",
    )
    options = arguments.parse_intermixed_args(argv)
    if options.slurm and not options.seeds:
        arguments.error(
            "--slurm submits the trainings of --seeds; one training: sbatch tools/slurm/train.sbatch CONFIG"
        )

    from rich.console import Console

    from densevision.config import load_config

    loaded = load_config(options.config, options.overrides)
    if options.seeds:
        from densevision.cli import seeds as several

        seeds = several.parse_seeds(options.seeds)
        if any(word.startswith("seed=") for word in options.overrides):
            arguments.error("seed= and --seeds exclude each other")
        own = several.array_seed(seeds)
        if own is None:
            start = several.submit if options.slurm else several.run_one_after_another
            return start(options.config, options.overrides, seeds, loaded, Console())
        if several.is_finished(loaded, own):
            print(f"seed {own} is finished")
            return 0
        loaded = load_config(options.config, [*options.overrides, *several.words_of_seed(loaded, own)])
    from densevision.experiment import train
    from densevision.launch import is_first_process

    console = Console(quiet=not is_first_process())
    if options.dry_run:
        from densevision.dry_run import dry_run

        dry_run(loaded, console)
        return 0
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
