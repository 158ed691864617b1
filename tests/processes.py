"""Several processes of one job, forked from the test's own so that none has to import torch anew.

What is forked must not have started threads of its own: hotcoco's, for one, would be waited for in vain.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import densevision.experiment  # noqa: F401 - once, for all that are forked

FORK = multiprocessing.get_context("fork")
LONGEST = 900  # seconds; a test that hangs is rare, a machine that is busy is not


def run_together(
    words: Sequence[str], world: int, before: Callable[[int], None] | None = None, said: Path | None = None
) -> list[int]:
    """Run a command in ``world`` processes as torchrun would start them, and return their exit codes.

    Args:
        before: called in each process with its rank, before the command.
        said: folder for what each prints, as RANK.txt.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [FORK.Process(target=_child, args=(words, rank, world, port, before, said)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LONGEST)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert None not in codes, f"the processes hang: {codes}"
    return codes


def _child(words, rank, world, port, before, said):
    from densevision.cli import main

    os.environ.update(
        {
            "TORCHELASTIC_RUN_ID": "test",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    )
    torch.set_num_threads(1)
    if said is not None:
        sys.stdout = sys.stderr = open(said / f"{rank}.txt", "w", buffering=1)  # noqa: SIM115 - while it lives
    if before is not None:
        before(rank)
    status = main(list(words))
    sys.stdout.flush()
    os._exit(status)
