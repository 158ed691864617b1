"""Indexing an annotation file of COCO train2017's size: 118,000 pictures, 860,000 boxes with their outlines.

python tools/benchmarks/coco_index.py
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from datamodules.coco_json import read_coco

CLASSES, WANTED = 80, 30.0
# what stands in the file and is not needed has to be read too
LICENCE = {"license": 1, "coco_url": "http://images.cocodataset.org/train2017/000000000009.jpg"}
PICTURE = {**LICENCE, "height": 480, "width": 640, "date_captured": "2013-11-14 17:02:52", "flickr_url": "http://farm9"}


def write_annotations(path: Path, pictures: int, boxes: int) -> None:
    """Write a file in COCO's form with outlines of 20 corners."""
    rng = np.random.default_rng(0)
    owners, labels = rng.integers(1, pictures + 1, boxes).tolist(), rng.integers(1, CLASSES + 1, boxes).tolist()
    places, sides = rng.uniform(0, 400, (boxes, 2)).round(2).tolist(), rng.uniform(5, 80, (boxes, 2)).round(2).tolist()
    outlines = [json.dumps([rng.uniform(0, 480, 40).round(2).tolist()]) for _ in range(1000)]
    with path.open("w", encoding="utf-8") as file:
        categories = [{"id": k, "name": f"class {k}", "supercategory": "any"} for k in range(1, CLASSES + 1)]
        file.write(f'{{"categories": {json.dumps(categories)}, "images": [')
        entries = (json.dumps({**PICTURE, "id": i, "file_name": f"{i:012d}.jpg"}) for i in range(1, pictures + 1))
        file.write(", ".join(entries) + '], "annotations": [')
        for number, (owner, label, place, side) in enumerate(zip(owners, labels, places, sides, strict=True)):
            file.write(
                f'{", " if number else ""}{{"segmentation": {outlines[number % 1000]}, "iscrowd": 0, '
                f'"area": {side[0] * side[1] / 2}, "image_id": {owner}, "bbox": {place + side}, '
                f'"category_id": {label}, "id": {number + 1}}}'
            )
        file.write("]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=118_000)
    parser.add_argument("--boxes", type=int, default=860_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        write_annotations(path, options.pictures, options.boxes)
        size = path.stat().st_size / 2**20
        wall, processor = time.perf_counter(), time.process_time()
        annotations, _ = read_coco(path)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    held = sum(part.nbytes for part in vars(annotations).values() if isinstance(part, np.ndarray)) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # KiB on Linux
    print(f"{options.pictures} pictures, {options.boxes} boxes, a file of {size:.0f} MiB")
    print(f"indexed in {wall:.1f} s ({processor:.1f} s of CPU), at most {WANTED:g} wanted")
    print(f"{held:.0f} MiB of arrays are kept; {peak:.0f} MiB at the most while reading")
    return int(wall > WANTED)


if __name__ == "__main__":
    sys.exit(main())
