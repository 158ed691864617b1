"""Batches: their shapes and shares, and errors that arrive as sentences."""

import time

import lightning.pytorch as pl
import pytest
import torch

from datamodules import CityscapesDataModule
from datamodules.base import check_batch_size
from datamodules.collate import collate_segmentation
from datamodules.loader import Loader
from datamodules.samplers import EvalSampler
from densevision.config.schema import DataConfig
from densevision.errors import UserError
from tests.trees import label_path, write_cityscapes_tree

CONFIG = {"scale_range": [0.5, 2.0], "flip": 0.5, "photometric": 1.0, "crop_size": [24, 24], "batch_size": 2}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("cityscapes")
    for split in ("train", "val"):
        write_cityscapes_tree(root, split, ("aachen", "bochum"), count=3)
    return root


def datamodule(root, seed=0, num_workers=0, **keys):
    data = DataConfig(name="cityscapes", root=str(root), num_workers=num_workers, **{**CONFIG, **keys})
    return CityscapesDataModule(data, seed)


def epochs(module, count=2):
    """{(epoch, name): image} over some epochs, and the order of the keys."""
    loader, seen = module.train_dataloader(), {}
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            seen.update({(epoch, n): (i, y) for n, i, y in zip(batch["names"], batch["images"], batch["labels"])})  # noqa: B905
    return seen


@pytest.fixture(scope="module")
def alone(tree):
    return epochs(datamodule(tree))


def test_batches_are_uint8_and_contiguous(tree):
    batch = next(iter(datamodule(tree).train_dataloader()))
    assert batch["images"].shape == (2, 3, 24, 24)
    assert batch["labels"].shape == (2, 24, 24)
    assert batch["images"].dtype == batch["labels"].dtype == torch.uint8
    assert batch["images"].is_contiguous()
    assert batch["sizes"] == [(32, 64)] * 2


def test_evaluation_gives_every_picture_once_with_its_label_as_stored(tree):
    batches = list(datamodule(tree, image_size=[16, 32]).val_dataloader())
    assert len({name for batch in batches for name in batch["names"]}) == len(batches) == 6
    assert {batch["images"].shape for batch in batches} == {(1, 3, 16, 32)}
    assert {batch["labels"].shape for batch in batches} == {(1, 32, 64)}


def test_loading_leaves_torchs_generator_alone(tree):
    before = torch.get_rng_state()
    module = datamodule(tree)
    list(module.train_dataloader())
    list(module.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_ranks_share_both_splits(tree, monkeypatch):
    def names(loader):
        return {name for batch in loader for name in batch["names"]}

    shares = []
    for rank in range(2):
        monkeypatch.setattr("datamodules.base.rank_and_world_size", lambda rank=rank: (rank, 2))
        shares.append((names(datamodule(tree).train_dataloader()), names(datamodule(tree).val_dataloader())))
    assert [len(train) for train, _ in shares] == [2, 2]  # of 3 each, in batches of 2
    assert not shares[0][0] & shares[1][0]
    assert sorted(len(val) for _, val in shares) == [3, 3]
    assert len(shares[0][1] | shares[1][1]) == 6


def test_sizes_that_cannot_share_a_batch_say_what_to_set():
    samples = [
        {"image": torch.zeros(3, 4, size, dtype=torch.uint8), "name": f"p{size}", "size": (4, size)} for size in (5, 6)
    ]
    with pytest.raises(UserError, match=r"p5 is 4x5, p6 is 4x6.*data\.crop_size.*data\.eval_batch_size=1"):
        collate_segmentation(samples)


def test_a_batch_that_the_split_does_not_fill_is_refused(tree):
    with pytest.raises(UserError, match=r"6 pictures, fewer than one batch of 8; set data\.batch_size to 6"):
        datamodule(tree, batch_size=8).train_dataloader()


@pytest.mark.parametrize(
    ("size", "world_size", "said"),
    [
        (6, 1, r"6 pictures, .* batch of 8; set data\.batch_size to 6 or less"),
        (1, 1, r"1 picture, .* batch of 8; set data\.batch_size to 1$"),
        (2, 4, "2 pictures, .* batch of 8 in each of 4 processes; start fewer processes"),
    ],
)
def test_what_fits_a_small_split_is_said(size, world_size, said):
    with pytest.raises(UserError, match=said):
        check_batch_size(size, DataConfig(batch_size=8), world_size)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_user_error_comes_out_of_a_worker_as_its_sentence(tmp_path, num_workers):
    pictures = write_cityscapes_tree(tmp_path, count=4)
    label_path(pictures[2]).write_bytes(b"")
    with pytest.raises(UserError) as error:
        list(datamodule(tmp_path, val_split="train", num_workers=num_workers).train_dataloader())
    assert str(error.value) == f"{label_path(pictures[2])} is empty (0 bytes)"


class Slow:
    def __len__(self):
        return 6

    def __getitem__(self, key):
        time.sleep(0.02)
        return key


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_knows_how_long_it_was_waited_for(num_workers):
    loader = Loader(Slow(), EvalSampler(6), 2, num_workers, list)
    began = time.perf_counter()
    for _ in loader:
        time.sleep(0.001)
    assert 0.12 <= loader.waited < time.perf_counter() - began


class Watcher(pl.LightningModule):
    """Learns nothing and notes what it is shown."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(1)), []
        self.automatic_optimization = False

    def training_step(self, batch):
        self.seen += [(self.current_epoch, name, image.sum()) for name, image in zip(batch["names"], batch["images"])]  # noqa: B905

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], 0.1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_trainer_tells_the_sampler_its_epoch(tree, tmp_path, alone, num_workers):
    watcher = Watcher()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, use_distributed_sampler=False, **quiet
    )
    trainer.fit(watcher, datamodule=datamodule(tree, num_workers=num_workers))
    assert watcher.seen == [(epoch, name, image.sum()) for (epoch, name), (image, _) in alone.items()]
