"""A search as a user calls it, on drawn data."""

import json
import math
import re

import pytest
import yaml

from densevision.backbones import read_architecture
from densevision.cli import main
from densevision.search.history import pareto_front, read_history
from densevision.search.trials import read_trial
from tests.trees import write_cityscapes_tree, write_class_tree, write_coco_tree

SMALL = [
    "model.backbone.width_mult=0.35", "model.head.channels=16", "data.image_size=[32,64]", "data.crop_size=[32,64]",
    "data.batch_size=2", "data.num_workers=0", "search.steps=1", "search.seed_steps=2", "trainer.max_steps=2",
    "trainer.val_every=2", "trainer.bn_recalibration=1", "wandb.mode=disabled",
]  # fmt: skip


# a space of one network; the widths are the same once they are rounded
ONE = [f"search.space.{word}" for word in ("operators=[mbconv3]", "kernels=[3]", "squeeze=[0]", "skip=[true]",
                                           "widths=[1.0,1.001]", "layers=[0]")]  # fmt: skip


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    root = tmp_path_factory.mktemp("search") / "street"
    write_cityscapes_tree(root, "train", ["aachen"], count=6)
    write_cityscapes_tree(root, "val", ["ulm"], count=2)
    return root


def open_session(file):
    from onnxruntime import InferenceSession

    return InferenceSession(str(file), providers=["CPUExecutionProvider"])


def search(config, street, run, *words):
    return main(["search", f"search/{config}", f"data.root={street}", f"output_dir={run}", *SMALL, *words])


def test_netadapt_leaves_a_table_its_history_and_a_trained_network(street, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["search.target=0.9x", "search.delta=0.1", "search.retrain=inherit"]
    assert search("netadapt_lraspp_v3_small", street, run, *words) == 0
    said = capsys.readouterr().out
    assert "round 1: " in said
    for name in ("arch.yaml", "history.jsonl", "pareto.png", "search.yaml", "checkpoints/best.ckpt", "summary.json"):
        assert (run / name).is_file(), name
    entries = read_history(run / "history.jsonl")
    assert any(e.chosen and e.cost <= 0.95 * entries[0].cost for e in entries)
    before = (run / "history.jsonl").read_bytes()
    assert search("netadapt_lraspp_v3_small", street, run, *words) == 0  # nothing is left to be done
    assert "0 trials made" in capsys.readouterr().out
    assert (run / "history.jsonl").read_bytes() == before
    # what was judged are training pictures, held out from the trials alone
    setting = json.loads(next((run / "trials").glob("*.json")).read_text())
    if "setting" in setting:
        assert setting["setting"]["config"]["data"]["val_fraction"] == 0.2
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["val_fraction"] is None
    words = [f"model.backbone.arch={run}/arch.yaml", f"data.root={street}", f"output_dir={tmp_path}/again", *SMALL[1:6]]
    assert main(["train", "lraspp_v3_cityscapes", *words, "trainer.max_steps=1", "wandb.mode=disabled"]) == 0


def test_a_latency_is_measured_once_and_goes_with_the_search(street, tmp_path, capsys):
    run, table = tmp_path / "run", tmp_path / "table.json"
    words = ["search.cost=latency", f"search.table={table}", "search.samples=2", "search.retrain=none"]
    words += ["search.space.widths=[1.0]", "search.space.layers=[0]"]
    assert search("platform_nas_lraspp", street, run, *words, "search.write_parts=true") == 0
    assert ", ms " in capsys.readouterr().out
    own = json.loads((run / "latency_table.json").read_text())
    assert own == json.loads(table.read_text())
    assert read_history(run / "history.jsonl")[0].cost < sum(own["milliseconds"].values())
    parts = json.loads((run / "parts" / "parts.json").read_text())
    assert set(parts.values()) == set(own["milliseconds"])
    assert all(open_session(run / "parts" / name).get_inputs() for name in parts)
    # as if it came from a phone: only read, and complete for this search
    phone = tmp_path / "phone.json"
    phone.write_text(json.dumps({"machine": {"processor": "phone"}, "milliseconds": own["milliseconds"]}))
    words[1], before = f"search.table={phone}", (run / "history.jsonl").read_bytes()
    assert search("platform_nas_lraspp", street, run, *words) == 0
    assert (run / "history.jsonl").read_bytes() == before
    assert search("platform_nas_lraspp", street, run, *words, "data.image_size=[64,64]") == 1
    assert "was measured on another machine (phone)" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["controller", "evolution", "random"])
def test_a_space_is_searched_by_every_sampler(method, street, tmp_path, capsys):
    run, words = tmp_path / "run", [f"search.method={method}", "search.samples=3", "search.batch=2"]
    assert search("platform_nas_lraspp", street, run, *words, "search.retrain=none", "search.population=2") == 0
    entries = read_history(run / "history.jsonl")
    assert len(entries) == 4
    assert all(e.reward is not None for e in entries)
    assert len(read_architecture(run / "arch.yaml").blocks) > 3
    assert len(list((run / "pareto").glob("*.yaml"))) >= 1
    assert not (run / "summary.json").exists()


@pytest.mark.parametrize(
    ("config", "tree", "words"),
    [
        ("ssdlite_v3_coco", "coco", ["search.method=random", "search.samples=1"]),
        ("ssdlite_v3_coco", "coco", ["search.method=random", "search.samples=1", "search.objective=loss"]),
        ("mobilenet_v3_imagenet", "classes", ["search.target=0.9x", "search.delta=0.1"]),
    ],
)
def test_every_task_is_searched_by_its_own_figure(config, tree, words, tmp_path):
    """With any training's configuration; the seed is the configuration's backbone."""
    if tree == "coco":
        write_coco_tree(tmp_path / "data", "train2017", count=10)
        write_coco_tree(tmp_path / "data", "val2017")
    else:
        write_class_tree(tmp_path / "data", ("dark", "light"), count=5)
        words = [*words, "data.name=class_folders"]
    small = [word for word in SMALL if not word.startswith(("model.head", "data.image", "data.crop"))]
    small += ["model.backbone.name=mobilenet_v3_small", "data.image_size=64", "search.retrain=none"]
    run, data = tmp_path / "run", f"data.root={tmp_path}/data"
    assert main(["search", config, data, f"output_dir={run}", *small, *words]) == 0
    entries = read_history(run / "history.jsonl")
    scores = [entry.score for entry in entries]
    assert len(scores) >= 2
    if "search.objective=loss" in words:  # what a reward multiplies: positive, and greater where the loss is less
        losses = [json.loads((run / "trials" / f"{e.trial}.result.json").read_text())["loss"] for e in entries]
        assert scores == pytest.approx([math.exp(-loss) for loss in losses], rel=1e-9)
        target = 0.7 * entries[0].cost
        assert [e.reward for e in entries] == [e.score * (e.cost / target) ** -0.07 for e in entries]
        assert min(e.reward for e in entries) > 0
    else:
        assert 0 <= min(scores) <= max(scores) <= 1
    read_architecture(run / "arch.yaml")


def test_one_trial_by_its_file_gives_the_searchs_score(street, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["search.samples=1", "search.retrain=none", "search.objective=loss"]
    assert search("platform_nas_lraspp", street, run, *words) == 0
    file = next(f for f in (run / "trials").glob("*.json") if not f.name.endswith(".result.json"))
    result = file.with_suffix(".result.json")
    score = json.loads(result.read_text())["score"]
    assert 0 < score < 1
    result.unlink()
    assert main(["search", "--trial", str(file)]) == 0
    assert json.loads(result.read_text())["score"] == score


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["search.targt=1"], "search.targt: unknown key 'targt'; did you mean 'target'?"),
        (["search.target=small"], "search.target: expected a share of the seed's cost such as 0.7x"),
        (["search.target=2x"], "costs"),
        (["search.method=netadpt"], "did you mean 'netadapt'?"),
        (["data.val_fraction=0.5"], "search.holdout"),
        (["data.image_size=null"], "data.image_size"),
        (["model.head.name=ssdlite"], "ssdlite is no head for segmentation"),
        (["search.launcher=slurm"], "sbatch is not here"),
        (["search.method=random", "search.retrain=inherit"], "search.retrain: only netadapt leaves weights"),
        (["search.target=inf"], "search.target: expected a share"),
        (["search.alpha=0.1"], "search.alpha: expected a number between -10 and 0"),
        (["search.space.kernels=[3,4]"], "search.space.kernels: expected an odd number from 1 to 31, got 4"),
        (["search.space.kernels=[]"], "search.space.kernels: expected a list of values"),
        (["search.space.widths=[0.5,-1]"], "search.space.widths: expected a factor between 0.05 and 10, got -1"),
        (["search.space.widths=[.nan]"], "search.space.widths: expected a factor"),
        (["search.space.squeeze=[0,4]"], "search.space.squeeze: expected a share of the expansion"),
        (["search.space.layers=[0,1,0]"], "search.space.layers: 0 stands twice in [0, 1, 0]"),
        (["search.space.operators=[mbconv4]", "search.method=random"], "unknown operator 'mbconv4'"),
        (["search.supernet.kernels=[-3]"], "search.supernet.kernels: expected an odd number"),
        (["search.supernet.expansions=[0]"], "search.supernet.expansions: expected a factor"),
        (["search.supernet.acts=[relu,gelu]"], "search.supernet.acts: expected one of relu, relu6, hswish, got gelu"),
        (["search.supernet.strides=[0]"], "search.supernet.strides: expected a number from 1 to 8"),
        (["search.supernet.strides=[2]", "search.method=dmasking"], "search.supernet.strides: expected 1, the whole"),
        (["search.supernet.strides=[1,2]", "search.method=dmasking"], "search.supernet.strides: only a classifier's"),
        (["search.supernet.widths=[1.0]", "search.method=dmasking"], "search.supernet: there is one single network"),
        (["search.method=evolution", *ONE], "search.space: there is one single network to choose from"),
        (["search.table=x.json"], "only search.cost=latency knows it"),
        (["search.cost=latency", "search.method=dmasking", "search.table={here}"], "search.cost"),
        (["search.method=random", "model.backbone.pretrained=x.pth"], "x.pth"),
    ],
)
def test_a_mistake_is_one_sentence(words, sentence, street, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    words = [word.format(here=tmp_path / "table.json") for word in words]
    assert search("netadapt_lraspp_v3_small", street, tmp_path / "run", *words) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_a_file_that_is_no_trial_is_told(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    assert main(["search", "--trial", str(tmp_path / "x.json")]) == 1
    assert "describes no trial of a search" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_give_what_one_process_gives(street, tmp_path):
    words = ["search.samples=3", "search.retrain=none", "search.batch=3"]
    assert search("platform_nas_lraspp", street, tmp_path / "one", *words) == 0
    assert search("platform_nas_lraspp", street, tmp_path / "two", *words, "search.workers=2") == 0
    assert (tmp_path / "one" / "history.jsonl").read_bytes() == (tmp_path / "two" / "history.jsonl").read_bytes()


def test_a_supernet_is_trained_once(street, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["search.method=dmasking", "search.retrain=none", "search.supernet.widths=[0.5,1.0]"]
    words += ["search.supernet.epochs=2"]
    assert search("netadapt_lraspp_v3_small", street, run, *words) == 0
    assert "epoch 2 of 2" in capsys.readouterr().out
    (file,) = run.glob("supernet-*.jsonl")
    before = file.read_bytes()
    assert search("netadapt_lraspp_v3_small", street, run, *words) == 0  # nothing is left to be done
    said = capsys.readouterr().out
    assert "epoch" not in said
    assert "0 trials made" in said
    assert file.read_bytes() == before
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    seed, found = read_history(run / "history.jsonl")
    assert found.cost <= seed.cost
    assert read_architecture(run / "arch.yaml").feature_info["c5"].stride == 16


def test_a_chosen_resolution_is_trained_at_and_counted_at(tmp_path, capsys):
    """A price that only a quarter of the pixels can pay, and nothing else to choose."""
    write_class_tree(tmp_path / "data", ("dark", "light"), count=5)
    run, words = tmp_path / "run", ["search.method=dmasking", "search.supernet.widths=[1.0]", "search.target=0.3x"]
    words += ["search.supernet.strides=[1,2]", "search.supernet.epochs=2", "search.supernet.warmup_epochs=0"]
    words += ["search.supernet.theta_lr=1", "search.supernet.strength=1000", "data.name=class_folders"]
    words += ["model.backbone.name=mobilenet_v2", "model.backbone.width_mult=0.35", "data.image_size=64"]
    words += ["data.crop_size=64", *SMALL[4:], f"data.root={tmp_path}/data", f"output_dir={run}"]
    assert main(["search", "mobilenet_v3_imagenet", *words]) == 0
    assert "train with data.image_size=[32, 32]" in capsys.readouterr().out
    seed, found = read_history(run / "history.jsonl")
    networks = [read_trial(run / "trials" / f"{entry.trial}.json") for entry in (seed, found)]
    assert networks[0][0] == networks[1][0] == read_architecture(run / "arch.yaml")
    data = [trial["setting"]["config"]["data"] for _, trial in networks]
    assert [d["image_size"] for d in data] == [[64, 64], [32, 32]]
    assert data[1]["crop_size"] == [32, 32]
    linear = 1280 * 2 / 1e6  # all but the last layer counts for every pixel
    assert 4 * (found.cost - linear) + linear == pytest.approx(seed.cost, rel=1e-9)
    assert "data.image_size=[32, 32]" in (run / "arch.yaml").read_text()
    trained = yaml.safe_load((run / "config.yaml").read_text())["data"]
    assert trained["image_size"] == trained["crop_size"] == [32, 32]


def test_a_search_with_other_values_leaves_nothing_of_the_one_before(street, tmp_path, capsys):
    run, words = tmp_path / "run", ["search.samples=4", "search.batch=2", "search.method=random"]
    assert search("platform_nas_lraspp", street, run, *words) == 0
    (run / "pareto" / "007.yaml").write_text("")
    history = run / "history.jsonl"
    before = history.read_bytes()
    history.write_bytes(b'{"number": 0, "rou\n' + before[:-9])
    (run / "pareto.png").write_bytes(b"")
    capsys.readouterr()
    assert search("platform_nas_lraspp", street, run, *words, "trainer.log_every=7") == 1
    said = capsys.readouterr().err
    assert re.search(r"holds the training of the same network with trainer.log_every=\d+; delete config.yaml", said)
    assert search("platform_nas_lraspp", street, run, *words) == 0  # goes on: all of it is written anew
    assert "0 trials made" in capsys.readouterr().out
    assert history.read_bytes() == before
    assert (run / "pareto.png").stat().st_size > 10_000
    assert len(list((run / "pareto").iterdir())) == len(pareto_front(read_history(history)))
    # nothing can be taken for what the other search found, while it has found nothing
    other = [*words, *ONE[:-1], "search.space.layers=[-2,-1]"]
    for result in (run / "trials").glob("*.result.json"):
        result.write_text("")
    assert search("platform_nas_lraspp", street, run, *other) == 1
    assert "delete it, and the trial is made again" in capsys.readouterr().err
    assert not any((run / name).exists() for name in ("arch.yaml", "history.jsonl", "pareto.png"))
    assert not list((run / "pareto").iterdir())
    for result in (run / "trials").glob("*.result.json"):
        result.unlink()
    assert search("platform_nas_lraspp", street, run, *other, "search.alpha=-10", "search.beta=-10") == 1
    assert "holds the training of another network than" in capsys.readouterr().err  # the cheapest
    assert (run / "arch.yaml").exists()
