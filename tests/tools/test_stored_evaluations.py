"""Evaluations that are kept with the project: made once, kept at once, made again on demand, never filled in."""

import sys
from pathlib import Path

import pytest

from densevision.backbones import BACKBONES
from densevision.search.trials import Job, Outcome

sys.path.append(str(Path(__file__).parents[2] / "tools" / "benchmarks"))
from stored_evaluations import Evaluations, IncompleteError, StoredTrials, load_search, recheck

JOBS = [Job(BACKBONES["mobilenet_v2"](width_mult=width), 3, seed) for width in (0.35, 0.5) for seed in (0, 1)]


class Quick(StoredTrials):
    """Scores by width and seed; counts."""

    made = 0

    def make(self, key):
        Quick.made += 1
        if Quick.made == 3:
            raise KeyboardInterrupt
        stem, seed = next((j.architecture.stem.out_channels, j.seed) for j in JOBS if self.key(j) == key)
        return Outcome((stem + seed) / 100)


@pytest.fixture
def store(tmp_path):
    Quick.made = 10

    def make(build=False, *words):
        loaded = load_search("search/netadapt_lraspp_v3_small", words)
        return Quick(loaded, "held out", "test", tmp_path / "runs", Evaluations(tmp_path / "kept.jsonl"), build)

    return make


def test_what_is_not_kept_is_told_and_not_filled_in(store):
    with pytest.raises(IncompleteError, match="0 evaluations are stored; 4 of the next 4 are not"):
        store().run(JOBS)
    store(True).run(JOBS[:3])
    with pytest.raises(IncompleteError, match="1 of the next 4 are not"):
        store().run(JOBS)


def test_each_is_made_once_and_kept_at_once(store):
    Quick.made = 0
    with pytest.raises(KeyboardInterrupt):
        store(True).run(JOBS)
    assert len(store().run(JOBS[:2])) == 2
    scores = store(True).run(JOBS)
    assert Quick.made == 5  # the third was begun twice
    assert store().run(JOBS) == scores
    assert Quick.made == 5


def test_another_recipe_has_other_evaluations(store):
    store(True).run(JOBS)
    with pytest.raises(IncompleteError):
        store(False, "optim.lr=0.5").run(JOBS)
    assert store(False, "data.root=/elsewhere").run(JOBS)


@pytest.mark.parametrize(("change", "wrong"), [(0.0, 0), (1e-6, 1)])
def test_a_recheck_fails_where_an_outcome_differs(change, wrong, store, capsys):
    first = store(True)
    first.run(JOBS)
    for key, values in first.evaluations.known.items():
        first.evaluations.add(key, {**values, "score": values["score"] + change})
    again = store()
    again.run(JOBS)
    assert recheck(3, [again]) == wrong
    assert capsys.readouterr().out.count("DIFFERS") == 3 * wrong


def test_a_line_that_is_none_is_told(tmp_path):
    (tmp_path / "kept.jsonl").write_text('{"key": "a", "score": 1}\n{"key": "b", "sc')
    with pytest.raises(SystemExit, match=r"kept\.jsonl, line 2 is no evaluation"):
        Evaluations(tmp_path / "kept.jsonl")
