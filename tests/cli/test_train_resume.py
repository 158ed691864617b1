"""Runs that go on, begin anew or are interrupted, as a user calls them."""

import json
import signal

import pytest

from tests.street_runs import assert_equal_weights, lines, train, weights
from tests.trees import write_cityscapes_tree


def test_the_same_command_goes_on_and_then_says_it_is_done(street, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=2", "optim.schedule=constant") == 0
    assert train(street, run, "trainer.max_steps=5", "optim.schedule=constant") == 0
    assert "going on from" in capsys.readouterr().out
    assert [entry["step"] for entry in lines(run)] == [1, 2, 3, 4, 5]
    assert train(street, run, "trainer.max_steps=5", "optim.schedule=constant") == 1
    assert "finished run of 5 steps" in capsys.readouterr().err


@pytest.mark.parametrize("checkpoint_every", [1, 500], ids=["from the one before", "anew"])
def test_a_run_killed_after_its_last_step_still_gets_its_summary(street, tmp_path, checkpoint_every):
    run = tmp_path / "run"
    words = ["trainer.max_steps=3", "trainer.val_every=10", f"trainer.checkpoint_every={checkpoint_every}"]
    assert train(street, run, *words) == 0
    summary = json.loads((run / "summary.json").read_text())
    logged, trained = (run / "metrics.jsonl").read_text(), weights(run / "checkpoints" / "last.ckpt")
    (run / "summary.json").unlink()
    assert train(street, run, *words) == 0
    again = json.loads((run / "summary.json").read_text())
    assert {key: again[key] for key in ("steps", "evaluation", "best")} == {
        key: summary[key] for key in ("steps", "evaluation", "best")
    }
    assert len((run / "metrics.jsonl").read_text().splitlines()) == len(logged.splitlines())
    assert_equal_weights(weights(run / "checkpoints" / "last.ckpt"), trained)


def test_epochs_end_a_run_as_steps_do(street, tmp_path, capsys):
    """Six pictures in batches of two, of which a step takes two: an epoch has two steps."""
    run = tmp_path / "run"
    words = [
        "trainer.max_steps=null",
        "trainer.val_every=null",
        "trainer.max_epochs=2",
        "trainer.accumulate=2",
        "trainer.checkpoint_every=1",
    ]
    assert train(street, run, *words) == 0
    summary, logged = json.loads((run / "summary.json").read_text()), (run / "metrics.jsonl").read_text()
    assert summary["steps"] == 4
    assert train(street, run, *words) == 1
    assert "finished run of 4 steps: raise trainer.max_epochs to go on" in capsys.readouterr().err
    assert json.loads((run / "summary.json").read_text()) == summary
    (run / "summary.json").unlink()
    assert train(street, run, *words) == 0
    again = json.loads((run / "summary.json").read_text())
    assert {key: again[key] for key in ("steps", "evaluation", "best")} == {
        key: summary[key] for key in ("steps", "evaluation", "best")
    }
    assert len((run / "metrics.jsonl").read_text().splitlines()) == len(logged.splitlines())
    assert train(street, run, *words, "trainer.max_epochs=3") == 0
    assert json.loads((run / "summary.json").read_text())["steps"] == 6


def test_another_experiment_in_the_same_place_is_refused(street, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=1") == 0
    assert train(street, run, "trainer.max_steps=2", "optim.lr=0.5") == 1
    said = capsys.readouterr().err
    assert "optim.lr was 0.01, now 0.5" in said
    assert "trainer.resume=never" in said


def test_never_begins_anew_and_keeps_the_earlier_run(street, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=2") == 0
    assert train(street, run, "trainer.max_steps=1", "trainer.resume=never") == 0
    assert [entry["step"] for entry in lines(run)] == [1]
    assert [entry["step"] for entry in lines(tmp_path / "run.1")] == [1, 2]
    assert "run.1" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(street, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["trainer.val_every=1", "optim.schedule=constant"]
    assert train(street, run, "trainer.max_steps=2", *words) == 0
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    assert train(street, run, "trainer.max_steps=3", *words) == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert "last.ckpt is not a whole checkpoint" in said
    assert "previous.ckpt, step 1" in said
    assert [entry["step"] for entry in lines(run)] == [1, 2, 3]


def test_resume_from_a_path(street, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    constant = "optim.schedule=constant"
    assert train(street, first, "trainer.max_steps=2", constant) == 0
    checkpoint = first / "checkpoints" / "last.ckpt"
    assert train(street, second, "trainer.max_steps=3", constant, f"trainer.resume={checkpoint}") == 0
    assert [entry["step"] for entry in lines(second)] == [3]


def test_a_new_start_clears_what_a_killed_writer_left(street, tmp_path):
    run = tmp_path / "run"
    assert train(street, run, "trainer.max_steps=1", "optim.schedule=constant") == 0
    left = run / "checkpoints" / ".last.1a2b3c4d.partial.ckpt"
    left.write_bytes(b"half")
    assert train(street, run, "trainer.max_steps=2", "optim.schedule=constant") == 0
    assert not left.exists()


@pytest.mark.parametrize("place", ["step", "evaluation"])
def test_an_interrupt_saves_the_step_and_the_same_command_goes_on(street, tmp_path, capsys, monkeypatch, place):
    """Ctrl-C in a step, and in the evaluation that follows one: the run ends as the uninterrupted one."""
    from densevision.tasks.segmentation import SegmentationTask

    words = ["trainer.max_steps=4", "trainer.val_every=3"]
    assert train(street, tmp_path / "whole", *words) == 0
    name = "on_before_optimizer_step" if place == "step" else "validation_step"
    original = getattr(SegmentationTask, name)
    calls = iter(range(100))

    def interrupting(self, *arguments):
        if next(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)

    run = tmp_path / "run"
    # a shell that runs the tests in its background has them ignore interrupts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, name, interrupting)
        assert train(street, run, *words) == 130
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert "goes on from the last checkpoint" in capsys.readouterr().out
    assert lines(run)[-1]["step"] == (2 if place == "step" else 3)
    assert train(street, run, *words) == 0
    assert_equal_weights(weights(run / "checkpoints/last.ckpt"), weights(tmp_path / "whole/checkpoints/last.ckpt"))


def test_an_interrupt_in_the_last_evaluation_lets_the_run_end(street, tmp_path, monkeypatch):
    from densevision.tasks.segmentation import SegmentationTask

    original = SegmentationTask.validation_step

    def interrupting(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(SegmentationTask, "validation_step", interrupting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    write_cityscapes_tree(street, "one", ["munster"], count=1)
    assert train(street, tmp_path / "run", "trainer.max_steps=1", "data.val_split=one") == 0
    signal.signal(signal.SIGINT, before)
    assert (tmp_path / "run" / "summary.json").is_file()
