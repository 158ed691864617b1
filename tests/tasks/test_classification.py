"""Classification by the same commands: it learns, resumes, is judged, and hands its backbone on."""

import json

import pytest
import torch

from densevision.cli import run
from densevision.models import create_model
from densevision.tasks.classification import mix
from tests.trees import write_cityscapes_tree, write_class_tree

SMALL = (
    "model.backbone.width_mult=0.35", "data.batch_size=6", "data.eval_batch_size=6", "data.num_workers=0",
    "data.crop_area=[0.5,1.0]", "trainer.max_epochs=null", "trainer.log_every=5", "optim.schedule=constant",
    "optim.warmup_steps=0", "optim.name=adamw", "optim.lr=0.003", "wandb.mode=disabled", "trainer.accelerator=cpu",
)  # fmt: skip


def train(root, out, steps, *more):
    arguments = ["mobilenext_cifar10", f"data.root={root}", f"output_dir={out}", f"trainer.max_steps={steps}", *SMALL]
    assert run("train", [*arguments, *more]) == 0
    return json.loads((out / "summary.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("classes")
    write_class_tree(root / "data", ("dark", "light"))
    summary = train(root / "data", root / "run", 20, "trainer.bn_recalibration=2")
    return root, summary


def test_it_learns(trained):
    _, summary = trained
    assert summary["best"]["top1"] == 1.0
    assert summary["evaluation"] == {"top1": 1.0, "top5": 1.0}


def test_evaluate(trained, tmp_path, capsys):
    root, _ = trained
    checkpoint = str(root / "run" / "checkpoints" / "best.ckpt")
    assert run("evaluate", [checkpoint, "--json", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["top1"], scores["pictures"]) == (1.0, 6)
    assert "val, 6 pictures: top-1 100.00  top-5 100.00" in capsys.readouterr().out


def test_the_published_recipe_trains(tmp_path):
    """MobileNetV3's own, RMSprop and averaged weights with it, on two classes."""
    write_class_tree(tmp_path / "data", ("dark", "light"))
    words = ["mobilenet_v3_imagenet", "data.name=class_folders", f"data.root={tmp_path / 'data'}"]
    words += [f"output_dir={tmp_path / 'run'}", "trainer.log_every=1"]
    words += ["model.backbone.width_mult=0.35", "data.image_size=32", "data.batch_size=6", "data.num_workers=0"]
    words += ["loss.mixup=0.2", "loss.cutmix=1", "trainer.max_epochs=null", "trainer.max_steps=3"]
    assert run("train", [*words, "wandb.mode=disabled", "trainer.accelerator=cpu"]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [entry["train/loss"] for entry in map(json.loads, lines) if "train/loss" in entry]
    assert losses
    assert all(0 < loss < 10 for loss in losses)


def test_show_batch(trained, tmp_path):
    root, _ = trained
    picture = tmp_path / "batch.png"
    assert (
        run("show_batch", ["mobilenext_cifar10", f"data.root={root / 'data'}", "--output", str(picture), *SMALL]) == 0
    )
    assert picture.stat().st_size > 1000


def test_a_checkpoint_is_a_pretrained_backbone(trained):
    root, _ = trained
    checkpoint = root / "run" / "checkpoints" / "best.ckpt"
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    model = create_model(
        "lraspp_v2_cityscapes",
        ["model.backbone.name=mobilenext", "model.backbone.width_mult=0.35", f"model.backbone.pretrained={checkpoint}"],
    )
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, stored[f"model.backbone.{key}"]), key


def test_a_segmenter_is_fine_tuned_from_a_classifier_of_real_pictures(test_data, tmp_path):
    """Its backbone begins as the classifier's; at a learning rate of 0 it stays so, and else it learns on."""
    train(test_data / "cifar10_folder", tmp_path / "classes", 4, "data.eval_batch_size=250")
    checkpoint = tmp_path / "classes" / "checkpoints" / "last.ckpt"
    write_cityscapes_tree(tmp_path / "streets")
    write_cityscapes_tree(tmp_path / "streets", "val")
    words = ["lraspp_v2_cityscapes", f"data.root={tmp_path / 'streets'}", f"model.backbone.pretrained={checkpoint}"]
    words += ["model.backbone.name=mobilenext", "data.crop_size=[32,64]", "data.batch_size=2", "optim.ema_decay=null"]
    words += ["trainer.max_steps=3", *SMALL[:1], *SMALL[3:4], *SMALL[5:]]
    kept = []
    for rate in (0, 1):
        out = tmp_path / f"rate{rate}"
        words += [f"optim.backbone_lr_mult={rate}", f"output_dir={out}", "trainer.max_steps=3"]
        assert run("train", words) == 0
        before, after = (
            torch.load(path, weights_only=True)["state_dict"]
            for path in (checkpoint, out / "checkpoints" / "last.ckpt")
        )
        convolutions = [key for key, value in after.items() if key.startswith("model.backbone") and value.dim() == 4]
        kept.append([torch.equal(before[key], after[key]) for key in convolutions])
    assert kept[0]
    assert all(kept[0])
    assert not any(kept[1])


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path):
    """With mixup and cutmix: a step's chance follows from its place alone."""
    write_class_tree(tmp_path / "data", ("dark", "light"))
    more = ("loss.mixup=0.2", "loss.cutmix=1.0", "trainer.checkpoint_every=1")
    train(tmp_path / "data", tmp_path / "whole", 4, *more)
    train(tmp_path / "data", tmp_path / "parts", 3, *more)
    train(tmp_path / "data", tmp_path / "parts", 4, *more)
    whole, parts = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixed_labels_have_the_share_of_mixed_pixels(mixup, cutmix):
    """Pictures that are constant tell by their mean how much of each other they hold."""
    values = torch.tensor([0, 100, 200, 50], dtype=torch.uint8)
    images = values[:, None, None, None].expand(4, 3, 20, 30)
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, targets = mix(images, torch.arange(4), 4, mixup, cutmix)
        torch.testing.assert_close(mixed.float().mean((1, 2, 3)), targets @ values.float(), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(targets.sum(1), torch.ones(4))
        assert mixed.shape == images.shape
        assert images.eq(values[:, None, None, None]).all()
        torch.manual_seed(seed)
        assert torch.equal(mix(images, torch.arange(4), 4, mixup, cutmix)[0], mixed)
