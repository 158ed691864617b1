"""Who started this process, and which of several it is: what torchrun and SLURM say in the environment."""

from __future__ import annotations

import os

from densevision.errors import UserError


def started_processes() -> tuple[int, int] | None:
    """(processes a node, nodes) as torchrun or srun started them; None where nobody has, and Lightning will.

    Raises:
        UserError: SLURM has several tasks for this job, and this process is none of them: srun was left out.
    """
    here = os.environ
    if "TORCHELASTIC_RUN_ID" in here:
        local = int(here["LOCAL_WORLD_SIZE"])
        return local, int(here["WORLD_SIZE"]) // local
    # as in Lightning, a session called bash or interactive is somebody's shell
    if "SLURM_NTASKS" not in here or here.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    tasks = int(here["SLURM_NTASKS"])
    if tasks > 1 and "SLURM_STEP_ID" not in here:
        raise UserError(f"SLURM is to run {tasks} processes and this is none of them: write srun before the command")
    nodes = int(here.get("SLURM_NNODES", "1"))
    return tasks // nodes, nodes


def process_number() -> int:
    """This process' rank, 0 for the one that speaks for all; known before the processes know each other."""
    here = os.environ
    if "RANK" in here:  # torchrun
        return int(here["RANK"])
    if "LOCAL_RANK" in here:  # a process that Lightning started; it counts within the node only
        return int(here["LOCAL_RANK"]) + int(here.get("NODE_RANK", "0"))
    return int(here.get("SLURM_PROCID", "0"))


def is_first_process() -> bool:
    """Whether this process speaks for the job."""
    return process_number() == 0


def is_restart() -> bool:
    """Whether torchrun or SLURM started this job before, by the same command."""
    return any(int(os.environ.get(name, "0")) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
