"""Trials in processes and in a job array: each made once, and a failed one told."""

import os
import signal
import stat
import threading
import time
from contextlib import contextmanager

import pytest

from densevision.errors import Stopped, UserError
from densevision.search.executors import in_processes, in_slurm

# what sbatch --wait does with --array and --wrap, on this machine: the tasks one after another
SBATCH = """#!/bin/sh
for word in "$@"; do
  case "$word" in
    --array=*) range="${word#--array=}"; last="${range#*-}"; last="${last%\\%*}" ;;
    --wrap=*) wrapped="${word#--wrap=}" ;;
  esac
done
echo "$@" > "$ARGUMENTS"
echo "4711;west"
if [ -n "$SLEEPS" ]; then sleep 60; fi
failed=0
for SLURM_ARRAY_TASK_ID in $(seq 1 "$last"); do
  export SLURM_ARRAY_TASK_ID
  sh -c "$wrapped" || failed=1
done
exit $failed
"""
# notes that it was called with a file; fails for bad.json
COMMAND = ["sh", "-c", 'echo made >> "$1.made"; echo "no such thing" >&2; case "$1" in *bad.json) exit 3;; esac', "sh"]


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "a run's trials"
    folder.mkdir()
    files = [folder / f"{name}.json" for name in ("a", "b", "c")]
    for file in files:
        file.write_text("{}")
    return files


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(SBATCH)
    sbatch.chmod(sbatch.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ARGUMENTS", str(tmp_path / "arguments"))
    return tmp_path / "arguments"


def made(files):
    return [file.with_name(f"{file.name}.made").read_text() for file in files]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_processes_make_every_trial_once(workers, files):
    in_processes(files, COMMAND, workers)
    assert made(files) == ["made\n"] * 3


def test_a_job_array_makes_every_trial_once(files, cluster):
    in_slurm(files, COMMAND, 2, ["--time=1:00:00"])
    assert made(files) == ["made\n"] * 3
    said = cluster.read_text()
    assert "--array=1-3%2" in said
    assert "--wait" in said
    assert "--time=1:00:00" in said


def test_a_failed_trial_is_told(files, cluster):
    bad = files[0].with_name("bad.json")
    with pytest.raises(UserError, match=r"bad\.json failed: no such thing"):
        in_processes([*files, bad], COMMAND, 2)
    with pytest.raises(UserError, match=r"the array of 2 trials failed"):
        in_slurm([files[0], bad], COMMAND, 1, [])


def test_arrays_have_lists_of_their_own(files, cluster):
    """Two searches in one folder: the list that one waits for is not the other's."""
    in_slurm(files[:2], COMMAND, 1, [])
    first = {file: file.read_text() for file in files[0].parent.glob("array-*.txt")}
    in_slurm(files[2:], COMMAND, 1, [])
    lists = {file: file.read_text() for file in files[0].parent.glob("array-*.txt")}
    assert len(lists) == 2
    assert first.items() < lists.items()
    assert sorted("".join(lists.values()).splitlines()) == [str(file) for file in files]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_the_array(number, files, cluster, monkeypatch):
    scancel = cluster.parent / "bin" / "scancel"
    scancel.write_text('#!/bin/sh\necho "$@" > "$ARGUMENTS.cancelled"\n')
    scancel.chmod(0o755)
    monkeypatch.setenv("SLEEPS", "1")
    with interrupted(number, lambda: cluster.exists()):
        in_slurm(files, COMMAND, 2, [])
    assert cluster.with_name("arguments.cancelled").read_text() == "-M west 4711\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_processes(number, files):
    command = ["sh", "-c", 'echo $$ > "$1.made"; exec sleep 60', "sh"]
    began = time.monotonic()
    with interrupted(number, lambda: files[0].with_name("a.json.made").exists()):
        in_processes(files, command, 1)
    assert time.monotonic() - began < 30
    assert not files[1].with_name("b.json.made").exists()


@contextmanager
def interrupted(number, ready):
    """What is done here gets a signal as soon as it is ready, and passes it on."""

    def send():
        while not ready():
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(os.getpid(), number)

    if number == signal.SIGINT:  # a shell that runs the tests in its background has them ignore interrupts
        signal.signal(number, signal.default_int_handler)
    before = signal.getsignal(number)
    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Stopped):
        yield
    thread.join()
    assert signal.getsignal(number) == before
