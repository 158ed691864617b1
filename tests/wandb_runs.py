"""What W&B wrote of an offline run, once it has written all: its own process may take a moment after the run's end."""

import time

from densevision.compare.wandb_file import read_wandb_file


def written(folder, seconds=60):
    """The content of the run's file in ``folder``."""
    (file,) = folder.glob("run-*.wandb")
    end = time.monotonic() + seconds
    while read_wandb_file(file)["exit_code"] is None and time.monotonic() < end:
        time.sleep(0.2)
    return read_wandb_file(file)
