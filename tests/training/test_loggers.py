"""W&B: what an offline run holds, by W&B's own reader; one run a job; sweeps; and where it goes by default."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wandb as wandb_module
import yaml
from google.protobuf import text_format
from wandb.proto import wandb_internal_pb2

from densevision.cli import main
from densevision.config.loader import CONFIG_DIRS
from densevision.training.loggers import wandb_mode
from tests.trees import write_cityscapes_tree, write_class_tree, write_coco_tree
from tests.wandb_runs import written
from tests.wandb_server import KEY, wandb_server

SMALL = ["data.batch_size=2", "data.num_workers=0", "trainer.log_every=1", "trainer.val_every=1", "wandb.mode=offline"]
TINY = ["model.backbone.name=mobilenet_v3_small", "model.backbone.width_mult=0.35"]
SWEEPS = sorted((CONFIG_DIRS[0] / "sweeps").glob("*.yaml"))


def wandb(*words, **environment):
    command = [sys.executable, "-m", "wandb", *map(str, words)]
    environment = os.environ | {name: str(value) for name, value in environment.items()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout + done.stderr


def history(folder):
    """What was logged: key -> its values, one after the other."""
    values = {}
    for entry in written(folder)["history"]:
        for key, value in entry.items():
            values.setdefault(key, []).append(value)
    return values


def inspected(folder):
    """The records of a run as W&B's own reader prints them into a pipe: protobuf's text format."""
    _, *texts = re.split(r"^# record \d+: .*$", wandb("leet", "inspect", folder), flags=re.MULTILINE)
    return [text_format.Parse(text, wandb_internal_pb2.Record(), allow_unknown_field=True) for text in texts]


def test_our_reader_reads_what_wandbs_own_reads(tmp_path):
    run = wandb_module.init(
        project="p", mode="offline", dir=tmp_path, config={"a": {"b": 1}}, settings={"silent": True}
    )
    for step in range(2000):  # several blocks of the file
        run.log({"value": step / 7, "text": "x" * (step % 50)})
    run.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    ours = written(folder)
    assert ours["config"] == {"a": {"b": 1}}
    assert ours["exit_code"] == 0
    assert [entry["value"] for entry in ours["history"]] == [step / 7 for step in range(2000)]
    theirs = [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in inspected(folder)
        if record.WhichOneof("record_type") == "history"
    ]
    assert theirs == ours["history"]


@pytest.fixture
def street(tmp_path):
    for split, count in (("train", 4), ("val", 2)):
        write_cityscapes_tree(tmp_path / "cityscapes", split, count=count)
    return tmp_path / "cityscapes"


def train_street(street, run, *words):
    words = [f"data.root={street}", f"output_dir={run}", "data.crop_size=[32,64]", *SMALL, *TINY, *words]
    return main(["train", "lraspp_v3_cityscapes", *words])


def test_an_offline_run_of_segmentation(street, tmp_path):
    run = tmp_path / "run"
    words = ["trainer.max_steps=2", "trainer.pictures_every=1", "wandb.checkpoints=best", "optim.schedule=constant"]
    assert train_street(street, run, *words) == 0
    (folder,) = (run / "wandb").glob("offline-run-*")
    values = history(folder)
    assert values["images_seen"][:2] == [2, 2]
    assert len(values["train/loss"]) == len(values["val/miou"]) == len(values["val/iou/road"]) == 2
    media = folder / "files" / "media"
    assert len(list((media / "images").glob("val/pictures_*.png"))) == 2 * 2
    table = json.loads(next((media / "table").rglob("confusion_table_*.json")).read_text())
    assert table["columns"] == ["Actual", "Predicted", "nPredictions"]
    assert sum(row[2] for row in table["data"]) == 2 * 32 * 64  # every labelled pixel once
    content = written(folder)
    origin = json.loads((run / "origin.json").read_text())
    masks = content["summary"]["val/pictures"]["all_masks"]
    assert [set(of_one) for of_one in masks] == [{"truth", "prediction"}] * 2
    assert origin["data"]["train"]["pictures"] == 4
    assert content["config"]["origin"] == origin
    assert "best/miou" in content["summary"]
    assert content["config"]["model"]["backbone"]["name"] == "mobilenet_v3_small"

    # the artifact waits beside the run, and a sync would take it along
    staged = {file.read_bytes() for file in (run / "wandb" / "artifacts" / "staging").iterdir()}
    assert (run / "checkpoints" / "best.ckpt").read_bytes() in staged
    assert "Would sync 1 run" in wandb("sync", "--dry-run", "--yes", folder)

    # going on is the same run; what was logged before is not logged again
    assert train_street(street, run, *words, "trainer.max_steps=3") == 0
    folders = sorted((run / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert len({folder.name.rsplit("-", 1)[1] for folder in folders}) == 1
    assert history(folders[1])["images_seen"][0] == 6

    # W&B's own client takes all of it to a server later
    with wandb_server() as (address, received):
        wandb("sync", *folders, WANDB_BASE_URL=address, WANDB_API_KEY=KEY, WANDB_DATA_DIR=run / "wandb")
    (run_id,) = received.history
    assert [row["images_seen"] for row in received.history[run_id] if "train/loss" in row] == [2, 4, 6]
    assert received.config[run_id]["origin"]["value"] == origin
    local = {str(file.relative_to(part / "files")) for part in folders for file in (part / "files/media").rglob("*.*")}
    assert local
    assert local <= set(received.files[run_id])
    assert received.artifacts.count(f"checkpoints-{run_id}") == 2
    assert received.files["artifact"]["best.ckpt"] == (run / "checkpoints" / "best.ckpt").read_bytes()


def test_an_online_run_is_delivered_while_it_trains(street, tmp_path, monkeypatch):
    with wandb_server() as (address, received):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        wandb_module.teardown()  # what it read of the environment before
        assert train_street(street, tmp_path / "run", "trainer.max_steps=2", "wandb.mode=online") == 0
        wandb_module.teardown()
    (run_id,) = received.history
    assert run_id == (tmp_path / "run" / "wandb_id.txt").read_text().strip()
    assert [row["images_seen"] for row in received.history[run_id] if "train/loss" in row] == [2, 4]


def test_where_the_server_cannot_be_reached_a_run_goes_on_offline_and_says_so(street, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    wandb_module.teardown()
    run = tmp_path / "run"
    words = [word for word in SMALL if not word.startswith("wandb.")]
    words += [f"data.root={street}", f"output_dir={run}", "data.crop_size=[32,64]", "trainer.max_steps=1"]
    assert main(["train", "lraspp_v3_cityscapes", *TINY, *words]) == 0
    wandb_module.teardown()
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: W&B")]
    assert "127.0.0.1:9" in warning
    assert f"wandb sync {run}/wandb/offline-run-*" in warning
    (folder,) = (run / "wandb").glob("offline-run-*")
    assert len(history(folder)["train/loss"]) == 1


@pytest.mark.parametrize("key", [KEY, "too-short", None])
def test_where_wandb_refuses_a_sentence_says_what_to_do(street, tmp_path, monkeypatch, capsys, key):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setenv("HOME", str(tmp_path))  # without a login of its own
    if key is not None:
        monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "5")
    wandb_module.teardown()
    assert train_street(street, tmp_path / "run", "trainer.max_steps=2", "wandb.mode=online") == 1
    wandb_module.teardown()
    said = capsys.readouterr().err
    assert "wandb.mode=offline" in said
    assert "Traceback" not in said


def test_an_offline_run_of_detection_has_boxes_and_curves(tmp_path):
    for split in ("train2017", "val2017"):
        write_coco_tree(tmp_path / "coco", split)
    words = [f"data.root={tmp_path / 'coco'}", f"output_dir={tmp_path / 'run'}", "data.image_size=64", *SMALL, *TINY]
    assert main(["train", "ssdlite_v3_coco", *words, "trainer.max_steps=1"]) == 0
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    boxes = [json.loads(file.read_text()) for file in folder.rglob("boxes2D/**/*.json")]
    shown = {box["box_caption"].split()[0] for entry in boxes for box in entry["box_data"]}
    assert shown == {"square", "bar"}
    curve = json.loads(next(folder.rglob("precision_recall_50_table_*.json")).read_text())
    assert {row[1] for row in curve["data"]} == {"square", "bar"}
    assert {0.0, 1.0} <= {row[0] for row in curve["data"]}


def test_an_offline_run_of_classification_has_a_confusion_matrix(tmp_path):
    write_class_tree(tmp_path / "data", ("dark", "light"))
    words = [f"data.root={tmp_path / 'data'}", f"output_dir={tmp_path / 'run'}", "model.backbone.width_mult=0.35"]
    words += [*SMALL, "trainer.max_epochs=null", "trainer.max_steps=1"]
    assert main(["train", "mobilenext_cifar10", *words]) == 0
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    table = json.loads(next(folder.rglob("confusion_table_*.json")).read_text())
    assert sum(row[2] for row in table["data"]) == 6


def sweep_command(file):
    """What a W&B agent would run: the middle of every parameter's range, by W&B's own code."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep = yaml.safe_load(file.read_text())
    drawn = {
        key: {"value": choice["values"][0] if "values" in choice else (choice["min"] * choice["max"]) ** 0.5}
        for key, choice in sweep["parameters"].items()
    }
    words = create_sweep_command_args({"args": drawn}) | {"env": [], "interpreter": ["python"]}
    words["program"] = [sweep["program"]]
    parts = [words.get(str(part)[2:-1], [part]) for part in create_sweep_command(sweep["command"])]
    return [word for part in parts for word in part], drawn


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_a_sweep_calls_the_command_with_keys_that_exist(file):
    from densevision.config import load_config
    from densevision.config.loader import config_to_dict, flat_items

    words, drawn = sweep_command(file)
    config, *overrides = words[words.index("tools/train.py") + 1 :]
    values = dict(flat_items(config_to_dict(load_config(config, overrides).config)))
    assert {key: values[key] for key in drawn} == {key: choice["value"] for key, choice in drawn.items()}
    assert Path(words[words.index(config) - 1]).is_file()


def test_runs_of_a_sweep_are_the_agents_and_do_not_collide(street, tmp_path, monkeypatch):
    (file,) = [file for file in SWEEPS if file.stem == "learning_rate"]
    words, _ = sweep_command(file)
    words = words[words.index("tools/train.py") + 1 :]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    small = [f"data.root={street}", "data.image_size=[32,64]", "data.crop_size=[32,64]", *SMALL, *TINY]
    for run_id in ("agent1", "agent2"):
        monkeypatch.setenv("WANDB_RUN_ID", run_id)
        steps = ["trainer.max_steps=1", "trainer.bn_recalibration=0", "data.batch_size=2"]
        assert main(["train", *words, *small, *steps]) == 0
        (folder,) = Path("runs/sweep_sweep1", run_id, "wandb").glob("offline-run-*")
        assert folder.name.endswith(run_id)


@pytest.mark.slow
def test_two_processes_make_one_run(street, tmp_path):
    """A sweep's command with torchrun: both processes train, one writes."""
    run = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, "tools/train.py", "lraspp_v3_cityscapes"]
    words = [f"data.root={street}", f"output_dir={run}", "data.crop_size=[32,64]", *SMALL, *TINY]
    words += ["trainer.max_steps=2", "trainer.accelerator=cpu", "trainer.devices=2"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (run / "wandb").glob("*run-*-*")
    assert history(folder)["images_seen"][0] == 4


@pytest.mark.parametrize(
    ("asked", "environment", "expected"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_MODE": "disabled"}, "disabled"),
        ("offline", {"WANDB_MODE": "online"}, "offline"),
        ("disabled", {}, "disabled"),
    ],
)
def test_without_a_login_nothing_goes_online(monkeypatch, tmp_path, asked, environment, expected):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode(asked) == expected
