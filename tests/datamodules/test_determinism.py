"""The sample of (seed, epoch, index) is one sample, whoever asks for it, and no two are alike."""

import shutil

import pytest

from datamodules import DATAMODULES
from densevision.config.schema import DataConfig
from tests.trees import write_cityscapes_tree, write_coco_tree

# all chance there is: geometry and colour; the pictures are copies of one, so that only chance tells samples apart
KEYS = {
    "cityscapes": {"scale_range": [0.5, 2.0], "flip": 0.5, "photometric": 1.0, "crop_size": [24, 24]},
    "coco": {"augment": "ssd", "vertical_flip": 0.5, "photometric": 1.0, "image_size": [32, 32]},
}


@pytest.fixture(scope="module", params=KEYS)
def trees(request, tmp_path_factory):
    """Name of the format and the folder of its data: 12 training pictures."""
    root = tmp_path_factory.mktemp(request.param) / "data"
    if request.param == "cityscapes":
        for split in ("train", "val"):
            write_cityscapes_tree(root, split, ("aachen",), count=12)
    else:
        for split in ("train2017", "val2017"):
            write_coco_tree(root, split, count=12)
    pictures = [p for p in root.rglob("*.png") if "label" not in p.name and ("train" in str(p.parent))]
    for picture in pictures[1:]:
        shutil.copy(pictures[0], picture)
    return request.param, root


def loader(trees, num_workers=0, seed=5, **keys):
    name, root = trees
    data = DataConfig(name=name, root=str(root), num_workers=num_workers, **{"batch_size": 2, **KEYS[name], **keys})
    return DATAMODULES[name](data, seed).train_dataloader()


def samples(loader, epochs=(0, 1)):
    """{(epoch, name): (picture, labels, boxes)} as bytes."""
    seen = {}
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            columns = [batch[key] for key in ("images", "labels", "boxes") if key in batch]
            for name, *tensors in zip(batch["names"], *columns, strict=True):
                seen[epoch, name] = tuple(tensor.numpy().tobytes() for tensor in tensors)
    return seen


@pytest.fixture(scope="module")
def alone(trees):
    return samples(loader(trees))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(trees, alone, num_workers):
    assert samples(loader(trees, num_workers)) == alone


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_the_batch_size_changes_nothing(trees, alone, batch_size):
    assert samples(loader(trees, batch_size=batch_size)) == alone


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_what_one_process_sees(trees, alone, monkeypatch, world_size):
    shared = {}
    for rank in range(world_size):
        monkeypatch.setattr("datamodules.base.rank_and_world_size", lambda rank=rank: (rank, world_size))
        share = samples(loader(trees))
        assert len(share) == 24 // world_size
        shared.update(share)
    assert shared == alone


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cache", ["raw", "compressed"])
def test_the_cache_changes_nothing(trees, alone, num_workers, cache):
    assert samples(loader(trees, num_workers, cache=cache)) == alone


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_epoch_goes_on_with_the_same_samples(trees, alone, num_workers):
    interrupted, resumed = loader(trees, num_workers), loader(trees, num_workers)
    interrupted.sampler.set_epoch(1)
    batches = iter(interrupted)
    for _ in range(2):
        next(batches)
    resumed.load_state_dict(interrupted.state_dict())
    rest = samples(resumed, epochs=(1,))
    assert len(rest) == 12 - 2 * 2
    assert rest == {key: alone[key] for key in rest}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_epochs_and_seeds_never_repeat_each_other(trees, num_workers):
    seen = [samples(loader(trees, num_workers, seed=seed), epochs=(0, 1, 2)) for seed in (5, 6)]
    pictures = [sample[0] for run in seen for sample in run.values()]
    assert len(pictures) == 2 * 3 * 12
    assert len(set(pictures)) == len(pictures)
