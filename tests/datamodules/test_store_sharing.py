"""Several processes at one store: killed builders, simultaneous starts, file systems without locks or room."""

import multiprocessing
import os
import signal

import pytest

from densevision.errors import UserError
from tests.stores import pictures, store, stored_files, with_size

FORK = multiprocessing.get_context("fork")


def build_in(tmp_path, log, killed_at=None):
    def read(path):
        with open(log, "a") as file:
            file.write(f"{path.name}\n")
        if killed_at is not None and len(log.read_text().split()) >= killed_at:
            (tmp_path / "store" / "00").mkdir(exist_ok=True)
            (tmp_path / "store" / "00" / "left.partial").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return with_size(path)

    store(tmp_path).build([str(path) for path in sorted((tmp_path / "data").iterdir())], "picture", read)


def forked(*arguments):
    process = FORK.Process(target=build_in, args=arguments)
    process.start()
    return process


def test_a_killed_builder_is_taken_over_from(tmp_path):
    pictures(tmp_path, count=40)
    log = tmp_path / "log"
    killed = forked(tmp_path, log, 20)
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    there = len(stored_files(tmp_path / "store"))
    assert 0 < there < 40
    log.write_text("")
    after = forked(tmp_path, log)
    after.join(60)
    assert after.exitcode == 0
    assert len(log.read_text().split()) == 40 - there
    assert len(stored_files(tmp_path / "store")) == 40
    assert not list((tmp_path / "store").rglob("*.partial"))


def test_processes_that_start_at_once_share_one_building(tmp_path):
    pictures(tmp_path, count=40)
    processes = [forked(tmp_path, tmp_path / "log") for _ in range(4)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert len((tmp_path / "log").read_text().split()) == 40


def test_a_file_system_without_locks_will_do(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("datamodules.store.fcntl.flock", refuse)
    shelf = store(tmp_path).build(pictures(tmp_path), "picture", with_size)
    assert len(stored_files(shelf.store.folder)) == 12


def test_too_little_room_is_said_before_it_is_used_up(tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr("datamodules.store.shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(UserError, match=r"needs about 0\.0 GB .*: set data\.cache_dir") as error:
        store(tmp_path).build(pictures(tmp_path, count=40), "picture", with_size)
    assert error.value.key == "data.cache_dir"
    assert len(stored_files(tmp_path / "store")) == 8


def test_loader_processes_compare_the_rows_of_a_raw_picture_once_between_them(tmp_path):
    shelf = store(tmp_path).build(pictures(tmp_path, count=1), "picture", with_size)
    reader = FORK.Process(target=lambda: shelf[0][0][0:40, 0:9])
    reader.start()
    reader.join(60)
    (file,) = stored_files(tmp_path / "store")
    data = bytearray(file.read_bytes())
    for row in (10, 50):
        data[len(data) - (70 - row) * 40 * 3] ^= 1
    file.write_bytes(data)
    picture, spoilt = shelf[0][0], file.read_bytes()
    picture[10:11, 0:1]  # compared by the other process
    assert file.read_bytes() == spoilt
    picture[50:51, 0:1]
    assert file.read_bytes() != spoilt
