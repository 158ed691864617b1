"""One configuration with several seeds: named, resumed, told when one fails, and handed to SLURM."""

import json
import os
import subprocess
import sys

import pytest

from densevision.cli import main
from densevision.cli.seeds import SCRIPT, parse_seeds
from tests.trees import write_cityscapes_tree

SMALL = ["data.crop_size=[32,64]", "data.batch_size=2", "data.num_workers=0", "trainer.max_steps=1"]
SMALL += ["wandb.mode=disabled", "model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35"]


@pytest.fixture
def words(tmp_path):
    for split in ("train", "val"):
        write_cityscapes_tree(tmp_path / "cityscapes", split, count=2)
    return ["lraspp_v3_cityscapes", f"data.root={tmp_path / 'cityscapes'}", f"output_dir={tmp_path / 'run'}", *SMALL]


@pytest.mark.parametrize(("text", "seeds"), [("0,1,2", [0, 1, 2]), ("7", [7]), ("0-2,9", [0, 1, 2, 9])])
def test_seeds_as_they_are_written(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "0,0", "3-1", "0-"])
def test_other_seeds_are_a_sentence(words, text, capsys):
    assert main(["train", *words, f"--seeds={text or ','}"]) == 1
    assert "expected" in capsys.readouterr().err


@pytest.mark.slow
def test_one_fails_and_the_others_go_on_and_are_not_done_again(words, tmp_path, capfd):
    (tmp_path / "run_seed1").write_text("a file where the run's folder should be")
    assert main(["train", *words, "--seeds", "0,1,2"]) == 1
    said = capfd.readouterr().out
    assert "seed 1 ended with status 1; the others go on" in said
    assert "mean" in said
    seeds = [json.loads((tmp_path / f"run_seed{seed}" / "summary.json").read_text()) for seed in (0, 2)]
    assert all(summary["steps"] == 1 for summary in seeds)
    written = (tmp_path / "run_seed0" / "metrics.jsonl").stat().st_mtime_ns

    (tmp_path / "run_seed1").unlink()
    assert main(["train", *words, "--seeds", "0,1,2"]) == 0
    assert capfd.readouterr().out.count("is finished") == 2
    assert (tmp_path / "run_seed0" / "metrics.jsonl").stat().st_mtime_ns == written
    assert main(["compare", *(str(tmp_path / f"run_seed{seed}") for seed in range(3))]) == 0
    assert "±" in capfd.readouterr().out


def test_a_job_of_an_array_trains_with_its_own_seed_and_once(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "5")
    assert main(["train", *words, "--seeds", "3,5"]) == 0
    assert "seed: 5" in (tmp_path / "run_seed5" / "config.yaml").read_text()
    assert not (tmp_path / "run_seed3").exists()
    assert main(["train", *words, "--seeds", "3,5"]) == 0
    assert "seed 5 is finished" in capsys.readouterr().out
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    assert main(["train", *words, "--seeds", "3,5"]) == 1
    assert "--seeds has no 4" in capsys.readouterr().err


def test_slurm_gets_an_array_of_the_same_words(words, tmp_path, monkeypatch, capsys):
    """A stand-in for sbatch that says what it was called with."""
    script = tmp_path / "train.sbatch"
    script.write_text("#!/bin/bash\n")
    monkeypatch.setattr("densevision.cli.seeds.SCRIPT", script)
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(
        '#!/bin/sh\n[ -n "$REFUSE" ] && echo "no such partition" >&2 && exit 1\nprintf "<%s>" "$PYTHON" "$@"\n'
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert main(["train", *words, "--seeds", "0-2", "--slurm"]) == 0
    said = capsys.readouterr().out.replace("\n", "")
    expected = [sys.executable, "--array=0,1,2", "--job-name=run", str(script), *words, "--seeds", "0,1,2"]
    assert "".join(f"<{word}>" for word in expected) in said
    monkeypatch.setenv("REFUSE", "1")
    assert main(["train", *words, "--seeds", "0-2", "--slurm"]) == 1
    assert "sbatch refused: no such partition" in capsys.readouterr().err


def test_the_script_of_a_job_finds_the_command_from_any_folder(tmp_path):
    """A stand-in for srun that starts one process."""
    (tmp_path / "srun").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    paths = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHON": sys.executable, "PYTHONPATH": str(SCRIPT.parents[2])}
    done = subprocess.run(
        ["bash", str(SCRIPT), "--help"], cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True
    )
    assert done.stdout.startswith("usage: densevision train"), done.stderr


def test_several_seeds_and_several_processes_exclude_each_other(words, monkeypatch, capsys):
    for name, value in {"TORCHELASTIC_RUN_ID": "a", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert main(["train", *words, "--seeds", "0,1"]) == 1
    assert "--slurm" in capsys.readouterr().err
