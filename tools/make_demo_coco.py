"""Write the people and cars of the demo scenes as COCO annotations: ``annotations/instances_{train,val}.json``.

    python tools/make_demo_coco.py data/demo

The boxes are those of the instances' pixels in ``gtFine``; a speck of fewer than MIN_PIXELS is left out and counted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from densevision.cli import forget_tools_folder
from densevision.io import write_json

CATEGORIES = {24: "person", 26: "car"}  # Cityscapes' ids
MIN_PIXELS = 12


def boxes(instance_ids: np.ndarray) -> list[dict[str, Any]]:
    """Category, xywh box and area of each instance in an (H, W) uint16 map of ``label * 1000 + n``."""
    found = []
    for instance in np.unique(instance_ids[instance_ids >= 1000]).tolist():
        ys, xs = np.nonzero(instance_ids == instance)
        left, top = int(xs.min()), int(ys.min())
        box = [left, top, int(xs.max()) + 1 - left, int(ys.max()) + 1 - top]
        found.append({"category_id": instance // 1000, "bbox": box, "area": len(xs), "iscrowd": 0})
    return found


def write_split(root: Path, split: str) -> str:
    """Write one split's file; says what is in it."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    specks = 0
    for file in sorted((root / "gtFine" / split).rglob("*_gtFine_instanceIds.png")):
        instance_ids = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        height, width = instance_ids.shape
        picture = f"{file.parent.name}/{file.name.replace('gtFine_instanceIds', 'leftImg8bit')}"
        images.append({"id": len(images) + 1, "file_name": picture, "height": height, "width": width})
        for box in boxes(instance_ids):
            if box["area"] < MIN_PIXELS:
                specks += 1
                continue
            annotations.append({"id": len(annotations) + 1, "image_id": len(images), **box})
    categories = [{"id": key, "name": name} for key, name in CATEGORIES.items()]
    target = root / "annotations" / f"instances_{split}.json"
    write_json(target, {"images": images, "annotations": annotations, "categories": categories})
    return f"{target}: {len(images)} pictures, {len(annotations)} boxes, {specks} specks left out"


def main(argv: list[str]) -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("root", type=Path, help="what tools/make_demo_data.py wrote")
    root = arguments.parse_args(argv).root
    if not (root / "gtFine").is_dir():
        print(f"error: {root} holds no demo scenes; draw them with tools/make_demo_data.py", file=sys.stderr)
        return 1
    for split in ("train", "val"):
        print(write_split(root, split))
    return 0


if __name__ == "__main__":
    forget_tools_folder()
    sys.exit(main(sys.argv[1:]))
