"""torchrun and SLURM as their users call them, with real processes."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments import SLURMEnvironment

from densevision.launch import started_processes
from tests.processes import run_together
from tests.tasks.test_many_processes import draw
from tests.training.test_processes import assert_same_runs
from tests.training.test_survival import what_is_left

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
LONGEST = 900  # seconds


@pytest.fixture
def words(tmp_path):
    words = draw("segmentation", tmp_path / "data", 19, 3)
    return [*words, "data.batch_size=2", "optim.schedule=constant", "trainer.log_every=1", "trainer.val_every=50"]


def environment():
    known = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "RANK", "WORLD_SIZE"))}
    return {**known, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | slurm_conf()


def slurm_conf():
    return {"SLURM_CONF": os.environ["SLURM_CONF"]} if "SLURM_CONF" in os.environ else {}


def torchrun(*options):
    return [sys.executable, "-m", "torch.distributed.run", *options, str(ROOT / "tools" / "train.py")]


def wait_for(condition, what):
    end = time.monotonic() + LONGEST
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.5)
    return found


def workers_of(pid):
    """The processes that train below a torchrun, in the order of their ranks."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ranks = {}
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().decode().split("\0")
        ranks[next((v for v in variables if v.startswith("RANK=")), "")] = int(child)
    return [ranks[key] for key in sorted(ranks) if key]


def test_a_signal_to_a_whole_process_group_saves_though_loader_workers_get_it_too(words, tmp_path):
    """As by scancel and preemption: the training process needs its workers until it has saved."""
    run, log = tmp_path / "run", tmp_path / "log.txt"
    words = [*words, f"output_dir={run}", "data.num_workers=2", "trainer.max_steps=100000", "trainer.val_every=100000"]
    command = [sys.executable, str(ROOT / "tools" / "train.py"), *words]
    with log.open("w") as stream:
        job = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        metrics = run / "metrics.jsonl"
        wait_for(lambda: metrics.exists() and metrics.stat().st_size, "the first steps")
        os.killpg(job.pid, signal.SIGTERM)
        assert job.wait(LONGEST) == 128 + signal.SIGTERM
    said = log.read_text()
    assert "stopped by SIGTERM" in said
    assert "Traceback" not in said
    stored, lines = what_is_left(run)
    assert stored["global_step"] == lines[-1]["step"] > 0
    with pytest.raises(ProcessLookupError):
        wait_for(lambda: os.killpg(job.pid, 0), "the workers' end")


@pytest.mark.slow
def test_torchrun_starts_a_killed_process_again_and_the_run_goes_on(words, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log.txt"
    words = [*words, f"output_dir={run}", "trainer.max_steps=60", "trainer.checkpoint_every=5", "trainer.resume=never"]
    words += ["data.num_workers=1"]  # which torchrun's signal reaches too
    with log.open("w") as stream:
        command = [*torchrun("--nproc_per_node=2", "--max-restarts=1"), *words]
        job = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=stream, stderr=subprocess.STDOUT)
        wait_for((run / "checkpoints" / "previous.ckpt").exists, "the second checkpoint")
        os.kill(workers_of(job.pid)[1], signal.SIGKILL)
        assert job.wait(LONGEST) == 0
    said = log.read_text()
    assert "lost contact with another process" in said
    assert "going on from" in said
    assert "\r" not in said
    stored, _ = what_is_left(run)
    assert stored["global_step"] == 60
    assert run_together(["train", *words, f"output_dir={tmp_path / 'whole'}"], 2) == [0, 0]
    assert_same_runs(tmp_path / "whole", run)


MEETING = """
import os, time
import torch.distributed as dist
from densevision.launch import meet_anew
rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
time.sleep((rank + attempt) % 2)
meet_anew()
dist.init_process_group("gloo")
dist.barrier()
os._exit(rank if attempt < 2 else 0)
"""


def test_processes_that_torchrun_starts_again_meet_whoever_comes_first(tmp_path):
    """Its store still has the addresses of those before, which the first to come must not take for the others'."""
    script = tmp_path / "meeting.py"
    script.write_text(MEETING)
    command = [*torchrun("--nproc_per_node=2", "--max-restarts=2")[:-1], str(script)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 0, done.stderr


def test_srun_within_salloc_is_a_job_and_the_shell_is_none(monkeypatch):
    for name, value in {"JOB_NAME": "interactive", "NTASKS": "2", "NNODES": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert started_processes() is None
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert started_processes() == (1, 2)
    assert SLURMEnvironment.detect()  # the trainer starts no processes of its own


@pytest.mark.slow
def test_a_killed_process_ends_the_job_within_a_minute(words, tmp_path):
    run = tmp_path / "run"
    command = [*torchrun("--nproc_per_node=2"), *words, f"output_dir={run}", "trainer.max_steps=100000"]
    job = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    wait_for((run / "metrics.jsonl").exists, "the first step")
    os.kill(workers_of(job.pid)[0], signal.SIGKILL)
    began = time.monotonic()
    _, said = job.communicate(timeout=LONGEST)
    assert job.returncode != 0
    assert time.monotonic() - began < 60
    assert "error in process 1: lost contact with another process" in said


@pytest.mark.slow
def test_two_nodes_of_torchrun(words, tmp_path):
    run = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*words, f"output_dir={run}", "trainer.max_steps=3"]
    jobs = []
    for node in range(2):
        there = ["--nnodes=2", f"--node_rank={node}", "--master_addr=127.0.0.1", f"--master_port={port}"]
        command = [*torchrun(*there, "--nproc_per_node=1"), *words]
        jobs.append(subprocess.Popen(command, cwd=tmp_path, env=environment()))
    assert [job.wait(LONGEST) for job in jobs] == [0, 0]
    stored, lines = what_is_left(run)
    assert stored["densevision"]["processes"] == 2
    assert [line["images_seen"] for line in lines if "train/loss" in line] == [4, 8, 12]
    assert run_together(["train", *words, f"output_dir={tmp_path / 'whole'}"], 2) == [0, 0]
    assert_same_runs(tmp_path / "whole", run)


def idle_slurm_nodes():
    if shutil.which("sinfo") is None:
        return 0
    done = subprocess.run(["sinfo", "-h", "-t", "idle", "-o", "%D"], capture_output=True, text=True)
    return sum(map(int, done.stdout.split()))


@pytest.mark.slow
def test_a_slurm_job_whose_time_is_over_puts_itself_back_and_ends_as_if_it_had_had_enough(words, tmp_path):
    """The signal comes by the job's time limit; the configuration is a file, that the second part may be short."""
    if idle_slurm_nodes() < 2:
        pytest.skip("no SLURM answers that has two idle nodes")
    run, config = tmp_path / "run", tmp_path / "job.yaml"

    source = ROOT / "configs" / f"{words[0]}.yaml"

    def steps(number):
        config.write_text(f"extends: [{source}]\ntrainer: {{max_steps: {number}}}\n")

    steps(1_000_000)
    options = ["--nodes=2", "--ntasks-per-node=1", "--time=3", "--signal=USR1@100", f"--output={tmp_path}/log.txt"]
    words = [*words[1:], f"output_dir={run}", "trainer.val_every=1000000"]
    script = str(ROOT / "tools" / "slurm" / "train.sbatch")
    command = ["sbatch", "--parsable", *options, script, str(config), *words]
    known = {**environment(), "PYTHON": sys.executable}
    job = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True, check=True).stdout.strip()

    def state():
        done = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True)
        return re.search(r"JobState=(\w+)", done.stdout)[1], int(re.search(r"Restarts=(\d+)", done.stdout)[1])

    try:
        wait_for(lambda: state()[1] >= 1, "the job to be put back")
        stopped = what_is_left(run)[0]["global_step"]
        steps(stopped + 3)
        wait_for(lambda: state()[0] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), "the job's end")
    finally:
        subprocess.run(["scancel", job], check=False)
    said = (tmp_path / "log.txt").read_text()
    assert state()[0] == "COMPLETED", said  # a slow machine may have put it back more than once
    assert f"interrupted at step {stopped}" in said
    assert f"job {job} is back in the queue" in said
    assert f"last.ckpt, step {stopped}" in said
    stored, lines = what_is_left(run)
    assert stored["densevision"]["processes"] == 2
    assert [line["step"] for line in lines if "train/loss" in line] == list(range(1, stopped + 4))
    whole = [str(config), *words, f"output_dir={tmp_path / 'whole'}"]
    assert run_together(["train", *whole], 2) == [0, 0]
    assert_same_runs(tmp_path / "whole", run)
