"""NetAdapt on a landscape that is known."""

import json

import pytest

from densevision.errors import UserError
from densevision.search.costs import absolute_target
from densevision.search.history import History, draw_pareto, pareto_front, read_history
from densevision.search.netadapt import netadapt, proposals
from densevision.search.widths import width_groups


def run(seed, cost, store, folder, **options):
    history = History(folder / "history.jsonl")
    settings = {"delta": 0.05, "steps": 3, "seed_steps": 5, **options}
    return netadapt(seed, cost, 0.7 * cost(seed), store, history, **settings), history


def test_every_proposal_shrinks_one_width_just_enough(seed, cost):
    limit = 0.95 * cost(seed)
    found = proposals(seed, cost, limit)
    assert len(found) >= 5
    assert any(p.change.startswith("trunk") for p in found)
    assert any(p.change.startswith("inner") for p in found)
    assert any(p.change.startswith("last_conv") for p in found)
    for proposal in found:
        pairs = zip(width_groups(seed), width_groups(proposal.architecture), strict=True)
        ((before, after),) = [(a, b) for a, b in pairs if a.width != b.width]
        assert after.width % 8 == 0
        assert proposal.cost <= limit
        assert proposal.change == f"{before.name}: {before.width} -> {after.width}"


def test_the_target_is_reached_by_the_best_ratio_of_each_round(seed, cost, landscape, make_store, tmp_path):
    (found, key), history = run(seed, cost, make_store(landscape), tmp_path)
    assert cost(found) <= 0.7 * cost(seed)
    score, before = history.entries[0].score, history.entries[0].cost
    for number in range(1, history.entries[-1].round + 1):
        entries = [e for e in history.entries if e.round == number]
        gains = [(e.score - score) / (before - e.cost) for e in entries]
        (chosen,) = [e for e in entries if e.chosen]
        assert gains[entries.index(chosen)] == max(gains)
        assert before - chosen.cost >= min(0.05 * cost(seed), before - 0.7 * cost(seed))
        score, before = chosen.score, chosen.cost
    assert history.entries[-1].round >= 3
    assert make_store(landscape).inherited(key).architecture == found
    kept = {file.stem for file in (tmp_path / "trials").glob("*.pt")}
    assert kept == {e.trial for e in history.entries if e.chosen}


def test_a_killed_search_goes_on_to_the_same_history(seed, cost, landscape, make_store, tmp_path):
    (found, key), _ = run(seed, cost, make_store(landscape), tmp_path)
    whole, calls = (tmp_path / "history.jsonl").read_bytes(), landscape.calls

    class KilledError(Exception):
        pass

    def mortal(*job):
        if landscape.calls == calls + 17:
            raise KilledError
        return landscape(*job)

    other = tmp_path / "other"
    store = make_store.func
    with pytest.raises(KilledError):
        run(seed, cost, store(other, mortal), other)
    assert read_history(other / "history.jsonl")  # what was known then
    (again, same_key), _ = run(seed, cost, store(other, landscape), other)
    assert (again, same_key) == (found, key)
    assert (other / "history.jsonl").read_bytes() == whole
    assert landscape.calls == 2 * calls  # nothing was made twice


def test_another_setting_makes_other_trials(seed, make_store, landscape, tmp_path):
    from densevision.search.trials import Job

    store = make_store(landscape)
    jobs = [Job(seed, 1, 0), Job(seed, 2, 0), Job(seed, 1, 1), Job(seed, 1, 0, keep=True), Job(seed, 1, 0, "abc")]
    assert len({store.key(job) for job in jobs}) == len(jobs)
    store.setting = {"setting": "other"}
    assert store.key(jobs[0]) not in {make_store(landscape).key(job) for job in jobs}


def test_a_target_out_of_reach_is_told(seed, cost, landscape, make_store, tmp_path):
    store, history = make_store(landscape), History(tmp_path / "history.jsonl")
    with pytest.raises(UserError, match=r"costs .* already"):
        netadapt(seed, cost, 2 * cost(seed), store, history)
    with pytest.raises(UserError, match="no width can save another 60 %"):
        netadapt(seed, cost, 0.001, store, history, delta=0.6, steps=1, seed_steps=1)
    for wrong in ("0.7y", "-1", "0x", None):
        with pytest.raises(UserError, match=r"expected a share .* 0\.7x"):
            absolute_target(wrong, 10.0)
    assert absolute_target("0.7x", 10.0) == pytest.approx(7)
    assert absolute_target(6.5, 10.0) == 6.5


def test_the_front_and_its_picture(seed, cost, landscape, make_store, tmp_path):
    _, history = run(seed, cost, make_store(landscape), tmp_path)
    front = pareto_front(history.entries)
    for entry in history.entries:
        assert any(f.cost <= entry.cost and f.score >= entry.score for f in front)
    assert [f.score for f in front] == sorted({f.score for f in front})
    draw_pareto(history.entries, 0.7 * cost(seed), cost.unit, "score", "test", tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").stat().st_size > 10_000
    assert [json.loads(line)["number"] for line in (tmp_path / "history.jsonl").read_text().splitlines()] == [
        e.number for e in history.entries
    ]
