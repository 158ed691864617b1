"""What trials leave, and files of them that are damaged."""

import pytest
import torch

from densevision.errors import UserError
from densevision.search.history import Entry, History, read_history
from densevision.search.trials import Job


@pytest.fixture
def store(make_store, landscape):
    return make_store(landscape)


@pytest.mark.parametrize("content", ["", '{"score": 0.5', "[]", "{}", '{"score": null}', '{"score": NaN}'])
def test_a_damaged_outcome_is_named_and_made_again_once_it_is_deleted(content, store, seed, landscape):
    job = Job(seed, 1, 0)
    scores, result = store.run([job]), store.folder / f"{store.key(job)}.result.json"
    result.write_text(content)
    with pytest.raises(UserError, match=rf"{result} is no outcome of a trial.*delete it, and the trial is made again"):
        store.run([job])
    assert landscape.calls == 1
    result.unlink()
    assert store.run([job]) == scores
    assert landscape.calls == 2


@pytest.mark.parametrize(("content", "why"), [(None, "are not there"), (b"PK", "cannot be read"), (b"", "cannot be")])
def test_lost_weights_are_named(content, why, store, seed):
    job = Job(seed, 1, 0, keep=True)
    store.run([job])
    assert store.inherited(store.key(job)).weights == {"step": torch.tensor(1.0)}
    file = store.folder / f"{store.key(job)}.pt"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=rf"{file} {why}.*delete .*{store.key(job)}\.result\.json"):
        store.inherited(store.key(job))


def test_a_description_that_was_deleted_is_written_anew(store, seed, landscape):
    job = Job(seed, 1, 0)
    store.run([job])
    file = store.folder / f"{store.key(job)}.json"
    file.write_text("{")
    with pytest.raises(UserError, match=rf"{file} describes no trial .*delete it"):
        store.architecture(store.key(job))
    file.unlink()
    store.run([job])
    assert store.architecture(store.key(job)) == seed
    assert landscape.calls == 1


@pytest.mark.parametrize("line", ['{"number": 0, "rou', "[]", '{"number": 0}'])
def test_a_damaged_line_of_a_history_is_named(line, tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.add([Entry(0, 0, "seed", 0.5, 1.0, True, "key")])
    assert read_history(history.file) == history.entries
    with history.file.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"history\.jsonl: line 2 is no entry"):
        read_history(history.file)
