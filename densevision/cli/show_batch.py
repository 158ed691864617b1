"""``show_batch CONFIG [key=value ...] --output FILE``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

from densevision.cli import parser

USAGE = """\
examples:
  show_batch lraspp_v3_cityscapes data.root=/data/cityscapes --output batch.png
  show_batch lraspp_v3_cityscapes data.photometric=1 --output batch.png --count 16

Draws the first training pictures as the model will see them: each as it is, and with its labels on it.
"""
_PAIRS_A_ROW = 2


def main(argv: Sequence[str]) -> int:
    arguments = parser("show_batch", USAGE)
    arguments.add_argument("config", help="a YAML file, or the name of one of the project's configs")
    arguments.add_argument("overrides", nargs="*", metavar="key=value", help="configuration values to change")
    arguments.add_argument("--output", type=Path, required=True, metavar="FILE", help="the PNG to write")
    arguments.add_argument("--count", type=int, metavar="N", help="how many pictures (data.batch_size)")
    options = arguments.parse_intermixed_args(argv)
    if options.count is not None and options.count < 1:
        arguments.error("--count: expected at least 1")

    from densevision.config import load_config

    loaded = load_config(options.config, options.overrides)
    from densevision.experiment import build_datamodule
    from densevision.io import write_png
    from densevision.visualize import draw_mask, grid, legend

    # the samples are the same with any number of workers, and starting them takes longer than reading a few pictures
    loaded.config.data.num_workers = 0
    count = options.count or loaded.config.data.batch_size
    with loaded.blaming_origin():
        datamodule = build_datamodule(loaded.config)
        batches = datamodule.train_dataloader()
        samples = ((image, label) for b in batches for image, label in zip(b["images"], b["labels"], strict=True))
        pairs, present = [], set()
        for image, label in islice(samples, count):
            picture = image.permute(1, 2, 0).contiguous().numpy()
            pairs.append((picture, draw_mask(picture, label.numpy(), datamodule.label_map)))
            present.update(label.unique().tolist())
    rows = [pairs[first : first + _PAIRS_A_ROW] for first in range(0, len(pairs), _PAIRS_A_ROW)]
    drawn = grid([list(chain.from_iterable(row)) for row in rows])
    write_png(options.output, grid([[drawn], [legend(datamodule.label_map, drawn.shape[1], present)]]))
    print(f"{len(pairs)} training pictures in {options.output}")
    return 0
