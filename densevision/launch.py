"""Who started this process, and which of several it is: what torchrun and SLURM say in the environment."""

from __future__ import annotations

import os
import socket

from densevision.errors import UserError

_SHELLS = ("bash", "interactive")  # names of SLURM jobs that Lightning takes for somebody's shell


def started_processes() -> tuple[int, int] | None:
    """(processes a node, nodes) as torchrun or srun started them; None where nobody has, and Lightning will.

    Raises:
        UserError: SLURM has several tasks for this job, and this process is none of them: srun was left out.
    """
    here = os.environ
    if "TORCHELASTIC_RUN_ID" in here:
        local = int(here["LOCAL_WORLD_SIZE"])
        return local, int(here["WORLD_SIZE"]) // local
    if here.get("SLURM_JOB_NAME") in _SHELLS and int(here.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        here["SLURM_JOB_NAME"] = "densevision"  # srun within salloc: several processes are no shell
    if "SLURM_NTASKS" not in here or here.get("SLURM_JOB_NAME") in _SHELLS:
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


def meet_anew() -> None:
    """Where torchrun has restarted the processes, let them meet at a port of their own.

    torchrun's store outlives them, and whoever came first would find there the addresses of those that are gone.
    Waits for the first process; must be called by all before they connect.
    """
    here = os.environ
    if int(here.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0 or here.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    from torch.distributed import TCPStore

    store = TCPStore(here["MASTER_ADDR"], int(here["MASTER_PORT"]), is_master=False)
    key = f"densevision/port/{here['TORCHELASTIC_RESTART_COUNT']}"
    if is_first_process():
        with socket.socket() as free:
            free.bind(("", 0))
            store.set(key, str(free.getsockname()[1]))
    # without the agent's store the first process opens one there
    here.update(MASTER_PORT=store.get(key).decode(), TORCHELASTIC_USE_AGENT_STORE="False")
