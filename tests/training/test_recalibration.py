"""Batch-norm statistics that are estimated anew: plain means over training batches, and nothing else changes."""

import json

import pytest
import torch
import torch.multiprocessing
from torch import nn

from densevision.cli import main
from densevision.training.recalibration import note_lag, recalibrate
from tests.checkpoints import SMALL
from tests.trees import write_cityscapes_tree

WORDS = [
    "train", "lraspp_v3_cityscapes", *SMALL, "data.crop_size=[32,64]", "data.batch_size=2", "data.num_workers=0",
    "trainer.max_steps=4", "trainer.val_every=2", "trainer.log_every=1", "wandb.mode=disabled",
]  # fmt: skip


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.01), nn.Dropout(0.5), nn.BatchNorm2d(4))


def test_statistics_are_the_plain_means_over_the_batches(network):
    batches = [3 + 2 * torch.randn(4, 3, 8, 9) for _ in range(5)]
    recalibrate(network, lambda batch: network(batch), batches)
    with torch.no_grad():
        outputs = [network[0](batch) for batch in batches]
    mean = torch.stack([x.mean((0, 2, 3)) for x in outputs]).mean(0)
    variance = torch.stack([x.transpose(0, 1).flatten(1).var(1, unbiased=True) for x in outputs]).mean(0)
    torch.testing.assert_close(network[1].running_mean, mean)
    torch.testing.assert_close(network[1].running_var, variance)


def test_modes_momentum_and_counters_stay_and_no_chance_is_drawn(network):
    network[3].eval()
    network[1].num_batches_tracked += 7
    before = torch.get_rng_state()
    recalibrate(network, lambda batch: network(batch), [torch.ones(2, 3, 5, 5)])
    assert torch.equal(torch.get_rng_state(), before), "dropout must be off"
    assert [module.training for module in network] == [True, True, True, False]
    assert network[1].momentum == 0.01
    assert int(network[1].num_batches_tracked) == 7


def test_what_a_run_is_too_short_for_is_told_unless_weights_brought_it(network):
    assert "with a momentum of 0.01, 37% of" in note_lag(network, 100)
    assert note_lag(network, 300) is None
    with torch.no_grad():
        network[1].running_mean += 1
    assert note_lag(network, 100) is None
    assert note_lag(nn.Conv2d(3, 4, 3), 1) is None


def test_without_a_batch_nothing_changes(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    recalibrate(network, lambda batch: network(batch), [])
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def estimate_share(rank, world, folder):
    """One of ``world`` processes: its half of the batches."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    norm = nn.BatchNorm2d(3)
    recalibrate(norm, lambda batch: norm(batch), BATCHES[rank::world])
    torch.save(norm.state_dict(), folder / f"{rank}.pth")
    torch.distributed.destroy_process_group()


BATCHES = [torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(n)) * n for n in range(1, 5)]


def test_two_processes_estimate_what_one_estimates_from_all_batches(tmp_path):
    torch.multiprocessing.spawn(estimate_share, (2, tmp_path), nprocs=2)
    whole = nn.BatchNorm2d(3)
    recalibrate(whole, lambda batch: whole(batch), BATCHES)
    for rank in range(2):
        stored = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        torch.testing.assert_close(stored, whole.state_dict())


def run(tmp_path, name, *words):
    root = tmp_path / "cityscapes"
    if not root.exists():
        write_cityscapes_tree(root, "train", ["aachen"], count=6)
        write_cityscapes_tree(root, "val", ["munster"], count=2)
    assert main([*WORDS, f"data.root={root}", f"output_dir={tmp_path / name}", *words]) == 0
    lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    stored = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
    return stored, lines


def is_statistic(name):
    return "running_" in name


def test_what_is_learnt_stays_the_same_and_what_is_judged_is_saved(tmp_path, capsys):
    plain, plain_lines = run(tmp_path, "plain")
    assert "warning: with a momentum of 0.0003, 100% of" in capsys.readouterr().out
    anew, lines = run(tmp_path, "anew", "trainer.bn_recalibration=3")
    assert "warning" not in capsys.readouterr().out
    for name, value in plain["state_dict"].items():
        assert torch.equal(value, anew["state_dict"][name]) != is_statistic(name), name
    losses = [[line["train/loss"] for line in some if "train/loss" in line] for some in (plain_lines, lines)]
    assert losses[0] == losses[1]
    judged = next(line["val/miou"] for line in reversed(lines) if "val/miou" in line)
    out = tmp_path / "out.json"
    assert main(["evaluate", str(tmp_path / "anew" / "checkpoints" / "last.ckpt"), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["miou"] == judged


def test_more_batches_than_the_split_holds_are_one_pass(tmp_path):
    few, _ = run(tmp_path, "few", "trainer.bn_recalibration=3")
    many, _ = run(tmp_path, "many", "trainer.bn_recalibration=1000")
    for name, value in few["state_dict"].items():
        assert torch.equal(value, many["state_dict"][name]), name


def test_on_real_streets_statistics_do_not_lie(test_data, tmp_path):
    """The published momenta in a short run: the same training, judged by old statistics and by new ones."""
    small = ["model.backbone.name=mobilenet_v3_small", "data.image_size=[88,120]", "data.crop_size=[88,120]"]
    published = ["model.backbone.norm.momentum=0.003", "model.head.norm.momentum=0.0003"]
    short = [
        "trainer.max_steps=60",
        "trainer.val_every=60",
        "trainer.checkpoint_every=59",
        "trainer.bn_recalibration=0",
    ]
    words = [*small, *published, *short, "data.num_workers=0", "data.photometric=0", "wandb.mode=disabled"]
    words = ["train", "finetune/lraspp_v3_camvid", f"data.root={test_data / 'camvid_cityscapes'}", *words]

    def judged(name, *more):
        assert main([*words, f"output_dir={tmp_path / name}", *more]) == 0
        return json.loads((tmp_path / name / "summary.json").read_text())["evaluation"]["miou"]

    old = judged("old")
    before = tmp_path / "old" / "checkpoints" / "previous.ckpt"  # of step 59
    new = judged("new", f"trainer.resume={before}", "trainer.bn_recalibration=15")
    assert old < 0.05
    assert new > 0.12
