"""How much memory of its own a loader process takes, from a thousand to COCO's 118 thousand pictures.

    python tools/benchmarks/data_memory.py [--counts 1000 30000 118000]

One loader process goes once over all of a data set, and says what it does not share with the main process (Linux:
Private_Clean + Private_Dirty). The pictures are tiny, so that what grows is what the data set itself takes. The last
row is the same data as a list of Python objects, of which a process comes to hold its own copy by looking at them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rounds import one_thread

from datamodules.annotations import Annotations, distinct_colors
from datamodules.detection import DetectionDataset
from datamodules.detection_transforms import DetectionTrainTransform
from datamodules.loader import Loader
from datamodules.packed import PackedStrings
from datamodules.pairs import Pair
from datamodules.samplers import EvalSampler
from datamodules.segmentation import SegmentationDataset
from datamodules.store import Store
from datamodules.transforms import TrainTransform
from densevision.io import write_png
from densevision.structures import LabelMap, SampleKey

SIDE, BOXES = 32, 7
CLASSES = LabelMap(tuple(range(80)), tuple(f"class {k}" for k in range(80)), distinct_colors(80))


def private_megabytes() -> float:
    """Of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def segmentation(folder: Path, count: int, store: Store | None) -> SegmentationDataset:
    """``count`` pictures in the data set, few on the disk."""
    pairs = [Pair(f"{k:012d}", folder / f"{k % 8}.png", folder / f"{k % 8}_label.png", True) for k in range(count)]
    dataset = SegmentationDataset(pairs, CLASSES, TrainTransform(crop_size=(SIDE, SIDE), scale_range=(0.5, 2.0)))
    return dataset if store is None else dataset.use_store(store)


def detection(folder: Path, count: int, store: Store | None) -> DetectionDataset:
    """Likewise, with boxes."""
    rng = np.random.default_rng(0)
    total = BOXES * count
    boxes = np.concatenate([rng.uniform(0, SIDE / 2, (total, 2)), rng.uniform(4, SIDE / 2, (total, 2))], axis=1)
    annotations = Annotations(
        source="made up",
        files=PackedStrings(f"{k % 8}.png" for k in range(count)),
        image_ids=np.arange(count),
        sizes=np.full((count, 2), SIDE),
        starts=np.arange(count + 1) * BOXES,
        boxes=boxes,
        labels=rng.integers(0, 80, total),
        areas=boxes[:, 2] * boxes[:, 3],
        crowd=np.zeros(total, bool),
        annotation_ids=np.arange(total),
        notes=Counter(),
    )
    dataset = DetectionDataset(folder, annotations, CLASSES, DetectionTrainTransform((SIDE, SIDE), "ssd"))
    return dataset if store is None else dataset.use_store(store, None)


class Objects:
    """The boxes as json gives them."""

    def __init__(self, count: int) -> None:
        box = {"category_id": 1, "iscrowd": 0}
        self.items = [
            {"file": f"{k:012d}.jpg", "boxes": [{**box, "bbox": [k + 0.5, j + 0.5, 9.5, 9.5]} for j in range(BOXES)]}
            for k in range(count)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: SampleKey) -> float:
        return sum(box["bbox"][0] for box in self.items[key.index]["boxes"])


class Weighed:
    """A data set whose samples are what the process takes after reading one."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey) -> float:
        self.dataset[key]
        return private_megabytes() if key.index in (200, len(self) - 1) else 0.0


def grown(dataset: Any) -> tuple[float, float]:
    """Private megabytes of the loader process once it has begun, and at its end."""
    loader = Loader(Weighed(dataset), EvalSampler(len(dataset)), 50, 1, list)
    weights = [weight for batch in loader for weight in batch if weight]
    return weights[0], weights[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 30_000, 118_000], metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    one_thread()
    results: dict[str, dict[int, tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        for k in range(8):
            rng = np.random.default_rng(k)
            write_png(folder / f"{k}.png", rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
            write_png(folder / f"{k}_label.png", rng.integers(0, 80, (SIDE, SIDE)).astype(np.uint8))
        store = Store(folder / "c", folder, compressed=False)
        kinds = {
            "segmentation": lambda count: segmentation(folder, count, None),
            "segmentation, raw cache": lambda count: segmentation(folder, count, store),
            "detection": lambda count: detection(folder, count, None),
            "detection, raw cache": lambda count: detection(folder, count, store),
            "detection as Python objects": Objects,
        }
        print(f"{'private MB at the start -> at the end':38}" + "".join(f"{count:>22,}" for count in arguments.counts))
        for kind, make in kinds.items():
            results[kind] = {count: grown(make(count)) for count in arguments.counts}
            cells = (f"{first:10.1f} -> {last:8.1f}" for first, last in results[kind].values())
            print(f"{kind:38}" + "".join(cells), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
